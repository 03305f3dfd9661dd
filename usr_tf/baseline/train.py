"""Training of a tree baseline: LightGBM on the training split, stopped early by the validation split."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from usr_tf.baseline.calibration import calibrate
from usr_tf.baseline.config import BaselineConfig
from usr_tf.baseline.features import Rows, Table, count_ids, read_rows
from usr_tf.baseline.lightgbm import check_parameters, load_lightgbm
from usr_tf.baseline.model import RELEVANCE, TreeModel
from usr_tf.baseline.run import TreeRun, check_vacant, save_tree_run
from usr_tf.data import Data
from usr_tf.errors import InputError


def train_baseline(
    data: Data, out: str | Path, config: BaselineConfig, report: Callable[[str], object] = lambda _: None
) -> TreeRun:
    """Trains trees on `data` and writes the run to `out`, which appears when it is whole.

    `binary` trains a model for each task on the task's own label, stopped by the logloss of the validation split.
    `lambdarank` trains one model: rows are grouped by request and graded by how many tasks they fulfil, and NDCG@10
    stops it. Its scores become probabilities by Platt scaling on the validation split, in each scenario and task. Data
    without a validation split train all rounds and are calibrated on the training split.

    Args:
      report: gets a line of text as each model is trained.

    Raises:
      InputError: LightGBM is not installed or refuses a parameter, a file of the data is broken, or `out` holds files
        or cannot be written.
    """
    check_vacant(out)
    check_parameters(config.booster)
    config = config.model_copy(update={"data": str(Path(data.directory).resolve())})
    table = Table(data.schema, count_ids(data), config.without)
    train, valid = read_rows(data, "train", table), read_rows(data, "valid", table)
    report(f"{len(train.matrix):,} training and {len(valid.matrix):,} validation rows of {len(table.columns)} columns")
    if config.objective == "binary":
        model = _train_binary(data, config, table, train, valid, report)
    else:
        model = _train_lambdarank(data, config, table, train, valid, report)
    rounds = {name: booster.num_trees() for name, booster in model.boosters.items()}
    return save_tree_run(out, data, config, model, rounds)


def _train_binary(
    data: Data, config: BaselineConfig, table: Table, train: Rows, valid: Rows, report: Callable[[str], object]
) -> TreeModel:
    sets = _datasets(config, table, train, valid)
    boosters = {}
    for task in data.schema.task_names:
        for each, rows in zip(sets, (train, valid), strict=False):
            each.set_label(rows.labels[task])
        boosters[task] = _boost(config, sets, task, report)
    return TreeModel(data.schema, table, boosters)


def _train_lambdarank(
    data: Data, config: BaselineConfig, table: Table, train: Rows, valid: Rows, report: Callable[[str], object]
) -> TreeModel:
    train, valid = _by_request(train), _by_request(valid)
    sets = _datasets(config, table, train, valid)
    for each, rows in zip(sets, (train, valid), strict=False):
        each.set_label(np.sum(list(rows.labels.values()), axis=0))
        each.set_group(np.unique(rows.request, return_counts=True)[1])
    booster = _boost(config, sets, RELEVANCE, report)
    held_out = valid if len(valid.matrix) else train
    calibration = calibrate(booster.predict(held_out.matrix), held_out, data.schema.scenarios)
    return TreeModel(data.schema, table, {RELEVANCE: booster}, calibration)


def _by_request(rows: Rows) -> Rows:
    """The rows with those of each request together, in the order of the requests' hashes."""
    order = np.argsort(rows.request, kind="stable")
    labels = {task: values[order] for task, values in rows.labels.items()}
    return Rows(rows.matrix[order], labels, rows.scenario[order], rows.request[order])


def _datasets(config: BaselineConfig, table: Table, train: Rows, valid: Rows) -> list[Any]:
    """LightGBM's form of the training rows, and of the validation rows where there are any."""
    lightgbm = load_lightgbm()
    shared = {
        "params": config.booster,
        "feature_name": table.names,
        "categorical_feature": table.categories,
        "free_raw_data": True,
    }
    sets = [lightgbm.Dataset(train.matrix, **shared)]
    if len(valid.matrix):
        sets.append(lightgbm.Dataset(valid.matrix, reference=sets[0], **shared))
    return sets


def _boost(config: BaselineConfig, sets: list[Any], name: str, report: Callable[[str], object]) -> Any:
    """A booster cut to its best round.

    Raises:
      InputError: LightGBM refuses the rows, such as a request of more than 10,000.
    """
    lightgbm = load_lightgbm()
    parameters = config.booster
    if len(sets) == 1:
        parameters["early_stopping_round"] = 0
    try:
        booster = lightgbm.train(parameters, sets[0], valid_sets=sets[1:], valid_names=["valid"] * len(sets[1:]))
    except lightgbm.basic.LightGBMError as error:
        raise InputError(f"{config.data}: {name}", str(error).strip(), "rows that LightGBM takes") from error
    best = booster.best_iteration if booster.best_iteration > 0 else booster.current_iteration()
    scores = "".join(f", {metric} {value:.5f}" for metric, value in booster.best_score.get("valid", {}).items())
    report(f"{name}: {best} rounds{scores}")
    return lightgbm.Booster(model_str=booster.model_to_string(num_iteration=best))
