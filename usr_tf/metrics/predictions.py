"""Predictions: rows of an evaluated split with keys, labels, probabilities and slice columns."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from usr_tf.errors import InputError
from usr_tf.metrics.checks import check_labels, check_lengths, check_numbers, check_probabilities


@dataclass(frozen=True, eq=False)
class Predictions:
    """Rows of an evaluated split, as aligned arrays of length `N`.

    Raises:
      ValueError: arrays of another shape or of unequal length, labels other than 0 and 1, probabilities outside [0, 1],
        or a negative position.
    """

    scenario: np.ndarray
    """int `[N]`: index into `schema.scenarios`."""
    user: np.ndarray
    request: np.ndarray
    item: np.ndarray
    position: np.ndarray
    """int `[N]`: place in the shown slate, from 1; 0 where the log does not say."""
    labels: Mapping[str, np.ndarray]
    """Task → 0 or 1 `[N]`."""
    probabilities: Mapping[str, np.ndarray]
    """Task → the model's probability `[N]`."""
    oracle: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Task → true probability `[N]`, which only a simulator knows; NaN where a row has none."""
    baselines: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Name → scores `[N]` of a ranking that needs no model; NaN where a row has none."""
    slices: Mapping[str, pd.Categorical] = field(default_factory=dict)
    """Name → the part `[N]` of the split that each row is in; of `slices.slices_of`."""
    timestamp: np.ndarray | None = None
    """int `[N]`: ms UTC."""
    history: np.ndarray | None = None
    """int `[N]`: actions of the user before the impression that the model saw."""
    query: np.ndarray | None = None
    """uint64 `[N]`: a key of the query, 0 where there is none."""
    features: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Feature → id, scaled number or length of a list `[N]`, of the features that slices are taken by."""

    def __post_init__(self) -> None:
        columns = dict(self._columns())
        for name, column in columns.items():
            if np.ndim(column) != 1:
                raise ValueError(f"`{name}` must be one value a row, [N]. Received: shape {list(np.shape(column))}")
        check_lengths(**columns)
        check_numbers("position", self.position, 0)
        for task, labels in self.labels.items():
            check_labels(f"labels.{task}", labels)
        for task, probabilities in self.probabilities.items():
            check_probabilities(f"probabilities.{task}", probabilities)
        for task, oracle in self.oracle.items():
            check_probabilities(f"oracle.{task}", oracle, optional=True)

    def __len__(self) -> int:
        return len(self.scenario)

    def only(self, mask: np.ndarray) -> "Predictions":
        """Rows selected by a bool mask `[N]` or an array of indices."""
        taken: dict[str, Any] = {}
        for column in dataclasses.fields(self):
            values = getattr(self, column.name)
            if isinstance(values, Mapping):
                taken[column.name] = {name: each[mask] for name, each in values.items()}
            else:
                taken[column.name] = None if values is None else values[mask]
        return Predictions(**taken)

    def _columns(self) -> Iterator[tuple[str, Any]]:
        for column in dataclasses.fields(self):
            values = getattr(self, column.name)
            if isinstance(values, Mapping):
                for name, each in values.items():
                    yield f"{column.name}.{name}", each
            elif values is not None:
                yield column.name, values


def refuse_improbable(
    probabilities: Mapping[str, np.ndarray], keys: Callable[[int], tuple[str, str, str]], place: Any
) -> None:
    """Raises for values that are no probabilities, such as NaN of a diverged model.

    Args:
      probabilities: name → `[N]`.
      keys: item, request and scenario of a row.

    Raises:
      InputError: one is NaN or outside [0, 1]; it names `place`, the first such row and how many there are.
    """
    for name, values in probabilities.items():
        bad = _improbable(values)
        if len(bad):
            item, request, scenario = keys(int(bad[0]))
            found = f"{values[bad[0]]:g} for {item} of request {request} in {scenario}"
            more = f" ({len(bad):,} of {len(values):,} rows have no probability)"
            raise InputError(f"{place}: {name}", found + more, "a number from 0 to 1")


def _improbable(values: np.ndarray) -> np.ndarray:
    """Indices of rows without a valid probability."""
    return np.flatnonzero(~((values >= 0) & (values <= 1)))  # NaN is neither
