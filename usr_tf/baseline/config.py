"""Settings of a tree baseline: the objective, the seed and LightGBM's parameters."""

from collections.abc import Iterable
from typing import Any, Literal, get_args

from pydantic import Field

from usr_tf.documents import StrictModel, parse_yaml
from usr_tf.errors import InputError

Objective = Literal["binary", "lambdarank"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
Family = Literal["match", "history_match", "counters", "past_queries"]
FAMILIES: tuple[Family, ...] = get_args(Family)
PARAMETERS: dict[str, Any] = {
    "num_iterations": 1000,
    "early_stopping_round": 50,
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 100,
    "min_sum_hessian_in_leaf": 10,
    "lambda_l2": 20,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
}
"""LightGBM's parameters of a run that sets none."""
FIXED = ("objective", "seed", "metric", "deterministic", "force_row_wise", "verbosity")
"""Parameters that `--set` cannot change: flags of their own set them, or the run depends on them."""


class BaselineConfig(StrictModel):
    """What a tree run was trained with."""

    objective: Objective = "binary"
    """`binary`: a model for each task. `lambdarank`: one model that orders each request's rows."""
    seed: int = Field(0, ge=0, lt=2**31)
    data: str | None = None
    """The data that the run was trained on."""
    without: tuple[Family, ...] = ()
    """Families of signals whose columns are left out."""
    parameters: dict[str, Any] = PARAMETERS
    """LightGBM's parameters, by LightGBM's names."""

    @property
    def booster(self) -> dict[str, Any]:
        """All parameters of LightGBM. The same data and parameters give the same model, whatever the threads."""
        metric = {"binary": "binary_logloss", "lambdarank": "ndcg"}[self.objective]
        ranking = {"eval_at": [10]} if self.objective == "lambdarank" else {}
        fixed = {"objective": self.objective, "metric": metric, "seed": self.seed, "verbosity": -1}
        return ranking | self.parameters | fixed | {"deterministic": True, "force_row_wise": True}


def make_config(
    objective: Objective = "binary", seed: int = 0, overrides: Iterable[str] = (), without: Iterable[Family] = ()
) -> BaselineConfig:
    """The settings of a run, with `key=value` overrides of LightGBM's parameters such as `num_leaves=63`.

    Raises:
      InputError: an override that is no `key=value`, or of a parameter that cannot be changed.
    """
    parameters = dict(PARAMETERS)
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or not key:
            raise InputError("--set", repr(override), "key=value, such as num_leaves=63")
        if key in FIXED:
            raise InputError(f"--set {key}", "a parameter that is fixed", "--objective, --seed or another parameter")
        parameters[key] = parse_yaml(value, f"--set {key}", "a value")
    left_out = tuple(sorted(set(without), key=FAMILIES.index))
    return BaselineConfig(objective=objective, seed=seed, without=left_out, parameters=parameters)
