"""Summary of a run for its report: configuration, epoch history, data statistics and view diagnostics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from usr_tf.config import Config


@dataclass(frozen=True)
class RunSummary:
    """One run and the data that it is evaluated on."""

    config: Config
    trained: str
    """When training ended, as text."""
    split: str
    """The evaluated split."""
    command: Sequence[str]
    """The command that makes the same report."""
    history: Sequence[Mapping[str, float]]
    """The lines of the run's `history.jsonl`."""
    stats: Mapping[str, Any]
    """The data's `stats.json`."""
    vocabulary_sizes: Mapping[str, int]
    """Number of ids of each feature that has any."""
    views: Mapping[str, Any] | None = None
    """The document of `usr_tf.evaluation.view_diagnostics.views_document`."""
    beside: Mapping[str, Any] | None = None
    """The same document of another run."""
