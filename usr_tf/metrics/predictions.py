"""The rows of an evaluated split: keys, labels, probabilities, and what else is known of each row."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True, eq=False)
class Predictions:
    """The rows of an evaluated split, as aligned arrays of length `N`.

    Raises:
      ValueError: arrays of unequal length, labels other than 0 and 1, or probabilities outside [0, 1].
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

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self._columns()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"The columns of predictions must be of one length. Received: {lengths}")
        for task, labels in self.labels.items():
            if not np.isin(labels, (0, 1)).all():
                raise ValueError(f"Labels of {task} must be 0 or 1. Received: {np.unique(labels)[:5]}")
        for task, probabilities in self.probabilities.items():
            valid = (probabilities >= 0) & (probabilities <= 1)  # False for NaN
            if not valid.all():
                raise ValueError(
                    f"Probabilities of {task} must be within [0, 1]. Received: {probabilities[~valid][0]} "
                    f"and {np.count_nonzero(~valid) - 1} more"
                )

    def __len__(self) -> int:
        return len(self.scenario)

    def only(self, mask: np.ndarray) -> "Predictions":
        """The rows that a boolean `[N]` or an array of row numbers selects."""
        taken: dict[str, Any] = {}
        for column in dataclasses.fields(self):
            values = getattr(self, column.name)
            if isinstance(values, Mapping):
                taken[column.name] = {name: each[mask] for name, each in values.items()}
            else:
                taken[column.name] = None if values is None else values[mask]
        return Predictions(**taken)

    def with_probabilities(self, probabilities: Mapping[str, np.ndarray]) -> "Predictions":
        """The same rows as another model scores them."""
        return dataclasses.replace(self, probabilities=probabilities)

    def _columns(self) -> Iterator[tuple[str, Any]]:
        for column in dataclasses.fields(self):
            values = getattr(self, column.name)
            if isinstance(values, Mapping):
                for name, each in values.items():
                    yield f"{column.name}.{name}", each
            elif values is not None:
                yield column.name, values
