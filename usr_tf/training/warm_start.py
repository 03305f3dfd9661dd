"""Warm start: training from the weights of an older run, whose vocabularies may have grown since."""

from pathlib import Path

import tensorflow as tf
import tensorflow_transform as tft

from usr_tf.config import Config, Schedule
from usr_tf.data import Data
from usr_tf.embedding import FeatureEmbedding
from usr_tf.errors import InputError
from usr_tf.model import USRModel
from usr_tf.optimizers import make_optimizer
from usr_tf.run import Run
from usr_tf.schema import KEYS_OF_LOGS, Schema
from usr_tf.training.checkpoints import newest_checkpoint

_KEY, _CHUNK = "train.warm_start", 1 << 20


def check_warm_start(older: Run, data: Data, config: Config) -> None:
    """Raises if a run of `config` on `data` cannot start from the older run.

    Raises:
      InputError: it has another schema or configuration, or ids that mean something else; or its checkpoint is gone.
    """
    _check_configuration(older, config)
    if _meaning(older.schema) != _meaning(data.schema):
        raise InputError(_KEY, f"{older.directory} with another schema", f"that of {data.directory / 'schema.yaml'}")
    _check_ids(older, data)
    if newest_checkpoint(older) is None:
        raise InputError(older.latest, "no checkpoint", "the one that the older run ended with")


def warm_start(model: USRModel, older: Run) -> None:
    """Copies the weights of the best epoch of `older` to `model`, and its final optimizer state.

    Ids are append-only (`usr-tf preprocess --grow_from`): a table's rows go to where their feature's ids stand now, and
    rows of new ids stay as they were initialised, with fresh optimizer state. For a moment the older model and its
    optimizer are in memory too.

    Args:
      model: that of the new run, compiled with `make_optimizer`.
      older: a run that `check_warm_start` has nothing against.

    Raises:
      InputError: a checkpoint of the older run cannot be read.
    """
    old = older.load_model()
    for variable, old_variable in zip(_weights(model), _weights(old), strict=True):
        _carry(variable, old_variable, _rows(variable, model.embedding, old.embedding))
    old_optimizer = make_optimizer(old, older.config.train.model_copy(update={"schedule": Schedule()}))
    newest = newest_checkpoint(older)
    try:
        tf.train.Checkpoint(model=old.checkpoint(), optimizer=old_optimizer).read(newest).expect_partial()
    except (tf.errors.OpError, ValueError) as error:
        raise InputError(newest, "a broken checkpoint", "the one that the older run ended with") from error
    for variable, old_variable in zip(model.trainable_variables, old.trainable_variables, strict=True):
        rows = _rows(variable, model.embedding, old.embedding)
        old_state = old_optimizer.state(old_variable)
        for name, state in model.optimizer.state(variable).items():
            _carry(state, old_state[name], rows)
    if not model.config.train.schedule.varies:  # a schedule begins anew with a run
        model.optimizer.iterations.assign(old_optimizer.iterations)


Rows = list[tuple[int, int, int]]
"""Rows of a table that go on: where they start now, where they started, and how many they are."""


def _rows(variable: tf.Variable, new: FeatureEmbedding, old: FeatureEmbedding) -> Rows | None:
    """Row mapping of a table variable; None for other variables."""
    for width, table in new.tables.items():
        if table is variable:
            pairs = [(place, old.places[name]) for name, place in new.places.items() if str(place.width) == width]
            return [(place.before + 1, before.before + 1, before.ids) for place, before in pairs]
    return None


def _carry(new: tf.Variable, old: tf.Variable, rows: Rows | None) -> None:
    values = old.numpy()
    if rows is not None:
        whole = new.numpy()
        for start, started, count in rows:
            whole[start : start + count] = values[started : started + count]
        values = whole
    new.assign(values)


def _weights(model: USRModel) -> list[tf.Variable]:
    """All saved variables of a model, including untrained ones."""
    counted = {variable.ref() for metric in model.metrics for variable in metric.variables}
    return [variable for variable in model.weights if variable.ref() not in counted]


def _check_configuration(older: Run, config: Config) -> None:
    """Raises for another model: equal shapes can have different meanings."""
    mine, others = (each.model_dump(exclude={"train", "data", "seed"}) for each in (config, older.config))
    for key, value in mine.items():
        if others[key] != value:
            raise InputError(_KEY, f"{older.directory} with {key} {others[key]}", f"{value}, as in this configuration")


def _check_ids(older: Run, data: Data) -> None:
    mine, others = (tft.TFTransformOutput(str(folder)) for folder in (data.directory / "transform", older.transform))
    for name, feature in data.schema.features.items():
        if not feature.has_vocabulary:
            continue
        files = [Path(output.vocabulary_file_by_name(name)) for output in (mine, others)]
        if not _begins_with(*files):
            expected = f"the older run's with new ones behind them: preprocess with --grow_from {older.transform}"
            raise InputError(_KEY, f"{files[0]} with other ids of {name} than {older.directory}", expected)


def _meaning(schema: Schema) -> dict:
    """Schema without the keys that may change when vocabularies grow."""
    document = schema.model_dump(exclude={"split", "labels", *KEYS_OF_LOGS})
    for feature in document["features"].values():
        feature.update(min_count=None, vocabulary_size=None)
    return document


def _begins_with(file: Path, start: Path) -> bool:
    with file.open("rb") as longer, start.open("rb") as shorter:
        while chunk := shorter.read(_CHUNK):
            if longer.read(len(chunk)) != chunk:
                return False
    return True
