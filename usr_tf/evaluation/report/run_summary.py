"""Summary of a run for its report: configuration, epoch history, data statistics and view diagnostics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True)
class RunSummary:
    """One run and the data that it is evaluated on."""

    config: BaseModel
    """`usr_tf.config.Config` of our model, or the settings of another kind of run."""
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
    importances: Mapping[str, Any] | None = None
    """A tree run's `importances.json`."""
    beside: Mapping[str, Any] | None = None
    """The same document of another run."""
