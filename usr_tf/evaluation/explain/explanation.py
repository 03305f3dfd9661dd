"""Explanation records. Effects are in log-odds, `log(p / (1 - p))`, and add up."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Action:
    """One action of the user's history."""

    item: str
    """What the history holds of the item: its id, where it is among the history's features."""
    about: str
    """The rest of what it holds of the item."""
    action: str
    scenario: str
    age_ms: int
    attention: float | None
    """Its weight, the mean over the heads; None without IE and DIN."""
    unknown: tuple[str, ...] = ()
    """Which values of its item no vocabulary has."""


@dataclasses.dataclass(frozen=True)
class TaskExplanation:
    """Attribution of one probability of one candidate."""

    probability: float
    """The served one."""
    log_odds: float
    baseline_log_odds: float
    """The mean over the baseline's candidates."""
    features: dict[str, float]
    """What each feature moved."""
    history: tuple[float, ...]
    """What each action moved."""
    gates: dict[str, float] | None
    """What FG's gate of each feature moved, against passing the feature on as it is; None without FG. It is a part of
    the score and not of the sum: features and history have moved it *through* these gates."""

    @property
    def baseline(self) -> float:
        """The baseline as a probability."""
        return 1 / (1 + math.exp(-self.baseline_log_odds))

    @property
    def difference(self) -> float:
        """Log-odds of candidate minus baseline, which features and history explain."""
        return self.log_odds - self.baseline_log_odds

    @property
    def residual(self) -> float:
        """Difference minus the sum of the effects."""
        return self.difference - sum(self.features.values()) - sum(self.history)


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Explanation of one candidate's probabilities."""

    scenario: str
    item: str
    baseline: str
    """Whose mean the baseline is."""
    values: dict[str, str]
    """Each feature's raw value."""
    gates: dict[str, float] | None
    """FG's gates of each feature in this view, δ, the mean over its columns; None without FG."""
    history: tuple[Action, ...]
    """Oldest first, as far as the model reads it."""
    tasks: dict[str, TaskExplanation]
    steps: int
    """Points on each path."""
    unknown: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Of each feature that has any, the values or words that its vocabulary lacks."""

    def to_document(self) -> dict:
        """JSON form."""
        document = dataclasses.asdict(self)
        for name, task in self.tasks.items():
            document["tasks"][name] |= {"baseline": task.baseline, "residual": task.residual}
        return document


@dataclasses.dataclass(frozen=True)
class Difference:
    """Attribution of the difference of two candidates of a request for one task, in log-odds."""

    log_odds: float
    features: dict[str, float]
    history: tuple[float, ...]


def difference(one: Explanation, other: Explanation) -> dict[str, Difference]:
    """Attribution of the score difference of `one` and `other`, per task.

    Both start from the same baseline, so that the differences between what moved them add up to the difference between
    their scores. A feature that both share is in it where it meets what they do not share.
    """
    return {name: _subtract(task, other.tasks[name]) for name, task in one.tasks.items()}


def _subtract(one: TaskExplanation, other: TaskExplanation) -> Difference:
    return Difference(
        one.log_odds - other.log_odds,
        {name: moved - other.features[name] for name, moved in one.features.items()},
        tuple(mine - its for mine, its in zip(one.history, other.history, strict=True)),
    )
