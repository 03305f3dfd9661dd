"""Simulated shops as training data, made once and found again."""

from pathlib import Path
from typing import NamedTuple

import yaml

from pipelines.preprocess import preprocess
from pipelines.simulate import simulate
from usr_tf.schema import SUCCESS

_SPLIT = {"valid": 0.1, "test": 0.2}
"""A larger test split than the simulator's own, for narrower intervals."""


class Shop(NamedTuple):
    """One simulated shop."""

    impressions: int
    similarity: float
    seed: int

    def data(self, work: Path) -> Path:
        """Where its training data lie under `work`."""
        return work / "shops" / f"{self.impressions}-{self.similarity}-{self.seed}" / "data"


def make_shop(shop: Shop, work: Path) -> Path:
    """Simulates and preprocesses a shop unless that is done, and returns its data."""
    data = shop.data(work)
    if not (data / SUCCESS).exists():
        logs = data.parent / "logs"
        simulate(logs, shop.impressions, seed=shop.seed, similarity=shop.similarity)
        schema = yaml.safe_load((logs / "schema.yaml").read_text(encoding="utf-8"))
        (logs / "schema.yaml").write_text(yaml.safe_dump(schema | {"split": _SPLIT}), encoding="utf-8")
        preprocess(str(logs), str(data))
    return data
