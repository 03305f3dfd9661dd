"""What a report tells beyond its figures: how the run was trained, on which data, and what its views learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from usr_tf.config import Config
from usr_tf.history import read_history
from usr_tf.schema import SUCCESS

if TYPE_CHECKING:  # both need TensorFlow
    from usr_tf.data import Data
    from usr_tf.run import Run


@dataclass(frozen=True)
class Background:
    """Of one run and the data that it is evaluated on."""

    config: Config
    trained: str
    """When the run was finished."""
    split: str
    """The one evaluated."""
    command: Sequence[str]
    """What makes the same page again."""
    history: Sequence[Mapping[str, float]]
    """The lines of the run's `history.jsonl`."""
    stats: Mapping[str, Any]
    """What the data's `stats.json` holds."""
    vocabulary_sizes: Mapping[str, int]
    """Ids of each feature that has any."""
    views: Mapping[str, Any] | None = None
    """Of `usr_tf.views.views_document`."""
    beside: Mapping[str, Any] | None = None
    """Those of another run."""


def read_background(
    run: "Run",
    data: "Data",
    split: str,
    command: Sequence[str],
    views: Mapping[str, Any] | None = None,
    beside: Mapping[str, Any] | None = None,
) -> Background:
    """What the directories of a run and of data tell."""
    finished = datetime.fromtimestamp((run.directory / SUCCESS).stat().st_mtime, UTC)
    return Background(
        config=run.config,
        trained=f"{finished:%Y-%m-%d %H:%M} UTC",
        split=split,
        command=command,
        history=read_history(run.history),
        stats=data.stats,
        vocabulary_sizes=data.vocabulary_sizes,
        views=views,
        beside=beside,
    )
