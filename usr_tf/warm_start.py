"""Warm start: training that goes on from an older run, whose vocabularies may have grown since."""

from pathlib import Path

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras

from usr_tf.checkpoints import newest_checkpoint
from usr_tf.embedding import FeatureEmbedding
from usr_tf.errors import InputError
from usr_tf.model import USRModel
from usr_tf.optimizers import make_optimizer, make_state, trained_variables
from usr_tf.run import Run
from usr_tf.schema import Schema

_KEY, _CHUNK = "train.warm_start", 1 << 20


def warm_start(model: USRModel, optimizer: keras.optimizers.Optimizer, run: Run, older: Run) -> None:
    """Gives `model` the weights of the best epoch of `older`, and `optimizer` the state that it ended with.

    Ids are append-only (`usr-tf preprocess --grow_from`): a table's rows go to where their feature's ids stand now, and
    rows of new ids stay as they were initialised, with fresh optimizer state. All else must have the shape it had. For
    a moment both models are in memory.

    Args:
      model, optimizer: those of the new run, all variables of both made.
      run: the new run.

    Raises:
      InputError: the older run has another schema, ids that mean something else, or other layers.
    """
    _check_schema(run, older)
    old = older.make_model()
    old.make_variables()
    old_optimizer = make_optimizer(old, older.config.train)
    make_state(old_optimizer, old)
    _check_layers(model, old, older)
    whole = tf.train.Checkpoint(model=old.checkpoint(), optimizer=old_optimizer)
    whole.read(newest_checkpoint(older)).expect_partial()
    trained = zip(trained_variables(model), trained_variables(old), strict=True)
    for own, others, (variables, old_variables) in zip(
        optimizer.optimizers, old_optimizer.optimizers, trained, strict=True
    ):
        own.iterations.assign(others.iterations)
        for slot in own.get_slot_names():
            for variable, old_variable in zip(variables, old_variables, strict=True):
                rows = _rows(variable, model.embedding, old.embedding)
                _carry(own.get_slot(variable, slot), others.get_slot(old_variable, slot), rows)
    best = older.load_model()
    for variable, old_variable in zip(_weights(model), _weights(best), strict=True):
        _carry(variable, old_variable, _rows(variable, model.embedding, best.embedding))


Rows = list[tuple[int, int, int]]
"""Rows of a table that go on: where they start now, where they started, and how many they are."""


def _rows(variable: tf.Variable, new: FeatureEmbedding, old: FeatureEmbedding) -> Rows | None:
    """None of a variable that is no table of features."""
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
    """All that is saved of a model, what is not trained too."""
    counted = {variable.ref() for metric in model.metrics for variable in metric.variables}
    return [variable for variable in model.weights if variable.ref() not in counted]


def _check_schema(run: Run, older: Run) -> None:
    """Refuses an older run whose ids mean something else."""
    if _meaning(older.schema) != _meaning(run.schema):
        raise InputError(_KEY, f"{older.directory} with another schema", f"that of {run.directory / 'schema.yaml'}")
    mine, others = (tft.TFTransformOutput(str(each.transform)) for each in (run, older))
    for name, feature in run.schema.features.items():
        if not feature.has_vocabulary:
            continue
        files = [Path(output.vocabulary_file_by_name(name)) for output in (others, mine)]
        if not _begins_with(files[1], files[0]):
            expected = f"the older run's with new ones behind them: preprocess with --grow_from {older.transform}"
            raise InputError(_KEY, f"{files[1]} with other ids of {name} than {older.directory}", expected)


def _meaning(schema: Schema) -> dict:
    """A schema without what may be otherwise when vocabularies grow."""
    document = schema.model_dump(exclude={"split", "labels"})
    for feature in document["features"].values():
        feature.update(min_count=None, vocabulary_size=None)
    return document


def _begins_with(file: Path, start: Path) -> bool:
    with file.open("rb") as longer, start.open("rb") as shorter:
        while chunk := shorter.read(_CHUNK):
            if longer.read(len(chunk)) != chunk:
                return False
    return True


def _check_layers(model: USRModel, old: USRModel, older: Run) -> None:
    """Refuses an older run whose layers are of another kind or size."""
    mine, others = _weights(model), _weights(old)
    tables = {table.ref() for table in model.embedding.tables.values()}
    if len(mine) == len(others):
        pairs = zip(mine, others, strict=True)
        wrong = [
            (a, b) for a, b in pairs if a.shape[1:] != b.shape[1:] or (a.ref() not in tables and a.shape != b.shape)
        ]
        if not wrong:
            return
        found = f"{wrong[0][1].name} {tuple(wrong[0][1].shape)} where this model has {tuple(wrong[0][0].shape)}"
    else:
        found = f"{len(others)} weights where this model has {len(mine)}"
    raise InputError(_KEY, f"{older.directory} with {found}", "a run of the same backbone, parts and sizes")
