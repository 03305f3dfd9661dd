"""Tuning objective: a validation metric of an epoch, or SCENARIO/TASK/METRIC of `metrics.json`."""

from collections.abc import Mapping
from typing import Any

from usr_tf.errors import InputError
from usr_tf.metrics import METRICS
from usr_tf.schema import Schema

_LOSSES = ("loss", "nll")
"""Of an epoch's validation, beside `SCENARIO/TASK_loss`."""


def is_of_validation(objective: str) -> bool:
    return objective.startswith("val_")


def is_higher_better(objective: str, schema: Schema) -> bool:
    """Whether larger values of the objective are better.

    Raises:
      InputError: a figure that has no better end, or one of no scenario or task. Whether validation has that loss,
        training knows.
    """
    *place, figure = objective.split("/")
    if is_of_validation(objective):
        aucs = [f"val_{scenario}/{task}_auc" for scenario in schema.scenarios for task in schema.task_names]
        if (place or figure.endswith("auc")) and objective not in aucs:
            raise InputError("--objective", repr(objective), f"a loss of validation, or one of {', '.join(aucs)}")
    else:
        scenarios = ("overall", *schema.scenarios)
        if len(place) != 2 or place[0] not in scenarios or place[1] not in schema.task_names:
            known = f"{' or '.join(scenarios)}, of {' or '.join(schema.task_names)}"
            raise InputError("--objective", repr(objective), f"val_FIGURE or SCENARIO/TASK/FIGURE: of {known}")
    figure = figure.removeprefix("val_")
    better = {name: metric.higher_is_better for name, metric in METRICS.items() if metric.higher_is_better is not None}
    if figure in better:
        return better[figure]
    if figure.endswith("_auc"):
        return True
    if figure in _LOSSES or figure.endswith("_loss"):
        return False
    known = ", ".join((*better, *_LOSSES))
    raise InputError("--objective", repr(objective), f"a figure that has a better end: {known}")


def value_in(metrics: Mapping[str, Any], objective: str) -> float:
    """Value of SCENARIO/TASK/METRIC in `metrics.json`.

    Raises:
      InputError: it is not there, or undefined.
    """
    scenario, task, figure = objective.split("/")
    tasks = metrics["overall"] if scenario == "overall" else metrics["scenarios"].get(scenario, {})
    figures = tasks.get(task, {})
    if figures.get(figure) is None:
        known = ", ".join(name for name, value in figures.items() if value is not None)
        undefined = ", undefined on the validation split" if figure in figures else ""
        raise InputError("--objective", f"{objective!r}{undefined}", f"one that is defined: {known or 'none is'}")
    return figures[figure]
