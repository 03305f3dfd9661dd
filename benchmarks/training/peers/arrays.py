"""Workload arrays and common command line of the peers."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.training.measure import BACKBONES


class Split(NamedTuple):
    """Rows of a split."""

    ids: NDArray[np.int32]
    """`[N, 21]`: the categorical fields, then the scenario, which is one more to peers that have none."""
    numbers: NDArray[np.float32]
    """`[N, 5]`."""
    history: NDArray[np.int32]
    """`[N, 20]` ids of items, 0 for padding."""
    labels: NDArray[np.float32]
    """`[N, 2]`."""

    @property
    def scenario(self) -> NDArray[np.int32]:
        """`[N]`."""
        return self.ids[:, -1]

    def columns(self) -> dict[str, NDArray]:
        """The features by their names, for models that have an input for each."""
        return {
            **dict(zip(field_names(self), self.ids.T, strict=True)),
            **dict(zip(number_names(self), self.numbers.T, strict=True)),
            "history": self.history,
        }


class Arrays(NamedTuple):
    sizes: list[int]
    """Ids of each of the fields."""
    train: Split
    test: Split


def load_arrays(path: Path) -> Arrays:
    """Loads the arrays of `benchmarks.training.workload`."""
    with np.load(path) as file:
        scenario = file["scenario"]
        ids = np.column_stack([file["fields"], scenario])
        whole = Split(ids, file["numbers"], file["history"], file["labels"])
        sizes, test = [*file["sizes"].tolist(), int(scenario.max()) + 1], int(file["test"])
    return Arrays(sizes, Split(*(part[:-test] for part in whole)), Split(*(part[-test:] for part in whole)))


ITEM_FIELD = "field_1"
"""The one whose ids the history has."""


def field_names(split: Split) -> list[str]:
    return [f"field_{place}" for place in range(split.ids.shape[1])]


def number_names(split: Split) -> list[str]:
    return [f"number_{place}" for place in range(split.numbers.shape[1])]


def parse_arguments(what: str | None, variants: Sequence[str]) -> argparse.Namespace:
    """`arrays`, `backbone`, `variant` and `steps` of a peer's command line."""
    parser = argparse.ArgumentParser(description=(what or "").partition("\n")[0])
    parser.add_argument("--arrays", type=Path, required=True)
    parser.add_argument("--backbone", choices=BACKBONES, required=True)
    parser.add_argument("--variant", choices=variants, required=True)
    parser.add_argument("--steps", type=int, help="time so many steps only, and give no AUC")
    return parser.parse_args()
