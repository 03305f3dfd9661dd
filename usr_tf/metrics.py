"""Figures of an evaluated split: per scenario and task, with intervals and baselines. Needs no TensorFlow."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

from usr_tf.schema import Schema

FIGURES = ("auc", "gauc", "logloss", "ne", "calibration", "ndcg@10")
"""The figures that `bootstrap_interval` knows."""

_CUTOFF = 10
_UNDEFINED_SHARE = 0.1


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
        taken: dict[str, Any] = {name: getattr(self, name)[mask] for name in _ROW_COLUMNS}
        for name in _TASK_COLUMNS:
            taken[name] = {task: column[mask] for task, column in getattr(self, name).items()}
        return Predictions(**taken)

    def with_probabilities(self, probabilities: Mapping[str, np.ndarray]) -> "Predictions":
        """The same rows as another model scores them."""
        return dataclasses.replace(self, probabilities=probabilities)

    def _columns(self) -> Iterator[tuple[str, np.ndarray]]:
        for name in _ROW_COLUMNS:
            yield name, getattr(self, name)
        for name in _TASK_COLUMNS:
            for task, column in getattr(self, name).items():
                yield f"{name}.{task}", column


_ROW_COLUMNS = ("scenario", "user", "request", "item", "position")
_TASK_COLUMNS = ("labels", "probabilities", "oracle")


def metrics_document(predictions: Predictions, schema: Schema) -> dict[str, Any]:
    """`metrics.json`: `task_metrics` for each scenario of the schema and for all rows together.

    A scenario without rows is there too, with `n` 0. Values are Python's own int, float and None.
    """
    return _by_scenario(
        predictions,
        schema,
        lambda rows, task: task_metrics(
            rows.labels[task], rows.probabilities[task], rows.user, rows.request, rows.oracle.get(task)
        ),
    )


def details_document(
    predictions: Predictions,
    schema: Schema,
    train_clicks: Mapping[str, tuple[int, int]] | None = None,
    *,
    figures: Sequence[str] = ("auc", "gauc"),
    replicates: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """`details.json`: what the figures of `metrics_document` are to be held against.

    Laid out as `metrics.json`; each task holds `intervals` (figure → [low, high] or null), `baselines`
    (`position` and `popularity` → `rank_metrics` of that score and `auc_gain`, the interval of the model's
    AUC less its, or null where it is not known) and `oracle` (`logloss` and `ne` of the true probabilities, the
    least that a model can hope for, or null where a row has none). Both baselines rank by click, whatever the task.

    Args:
      train_clicks: item → (clicks, impressions) in the training split, for the popularity baseline.
    """

    def details(rows: Predictions, task: str) -> dict[str, Any]:
        def held_against(score: np.ndarray) -> dict[str, Any]:
            baseline = rows.with_probabilities({task: score})
            gain = paired_bootstrap(rows, baseline, task, "auc", replicates, seed, level)
            figures = rank_metrics(rows.labels[task], score, rows.user, rows.request)
            return figures | {"auc_gain": None if gain is None else list(gain)}

        scores = {
            "position": position_baseline(rows),
            "popularity": None if train_clicks is None else popularity_baseline(rows, train_clicks),
        }
        return {
            "intervals": {
                figure: None if interval is None else list(interval)
                for figure in figures
                for interval in [bootstrap_interval(rows, task, figure, replicates, seed, level)]
            },
            "baselines": {name: None if score is None else held_against(score) for name, score in scores.items()},
            "oracle": _oracle_loss(rows.labels[task], rows.oracle.get(task)),
        }

    return {"level": level, "replicates": replicates, "seed": seed} | _by_scenario(predictions, schema, details)


def task_metrics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    users: np.ndarray,
    requests: np.ndarray,
    oracle: np.ndarray | None = None,
) -> dict[str, int | float | None]:
    """The figures of one task over `N` rows. A figure that is undefined is None, never 0, 0.5 or NaN.

    - `auc`: chance that a positive row scores above a negative one, ties counting half. Needs both classes.
    - `gauc`: mean of the users' own AUCs over the users with both classes, weighted by impressions.
    - `logloss`: mean of −ln of the probability given to what happened; probabilities are clipped to
      [ε, 1 − ε], ε the machine epsilon of their type. Needs a row.
    - `ne`: normalised entropy, logloss over the entropy of the base rate. Below 1 the model tells more than
      the base rate does. Needs both classes.
    - `calibration`: mean probability over mean label; 1 is right, above 1 the model promises too much. Needs
      a positive.
    - `ndcg@10`: of each request with a positive, gain 1 for a positive, tied rows sharing their places
      evenly; mean over those requests.
    - `n`, `positives`: rows, and rows with label 1.
    - `oracle_auc`: AUC of the true probabilities, the most that a model can hope for. Only there when every
      row has one.

    Args:
      labels: 0 or 1 `[N]`.
      probabilities: within [0, 1], `[N]`.
      users, requests: whose row it is and which slate it stood in, `[N]`.
      oracle: true probabilities `[N]`, if known.
    """
    n, positives = len(labels), int(np.count_nonzero(labels))
    ranks = rank_metrics(labels, probabilities, users, requests)
    figures: dict[str, int | float | None] = {
        "auc": ranks["auc"],
        "gauc": ranks["gauc"],
        **_loss(labels, probabilities),
        "calibration": float(probabilities.sum(dtype=np.float64)) / positives if positives else None,
        "ndcg@10": ranks["ndcg@10"],
        "n": n,
        "positives": positives,
    }
    if _is_known(oracle):
        figures["oracle_auc"] = _auc(labels, oracle)
    return figures


def _loss(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float | None]:
    """`logloss` and `ne` of `task_metrics`."""
    n, positives = len(labels), np.count_nonzero(labels)
    loss = float(log_loss(labels, _clip(probabilities), labels=[0, 1])) if n else None
    return {"logloss": loss, "ne": loss / _entropy(positives / n) if 0 < positives < n else None}


def _oracle_loss(labels: np.ndarray, oracle: np.ndarray | None) -> dict[str, float | None] | None:
    return _loss(labels, oracle) if _is_known(oracle) else None


def _is_known(oracle: np.ndarray | None) -> TypeGuard[np.ndarray]:
    return oracle is not None and bool(np.isfinite(oracle).all())


def rank_metrics(
    labels: np.ndarray, scores: np.ndarray, users: np.ndarray, requests: np.ndarray
) -> dict[str, float | None]:
    """`auc`, `gauc` and `ndcg@10` of `task_metrics`, for scores `[N]` that need not be probabilities."""
    user_codes, _ = _codes(users)
    request_codes, _ = _codes(requests)
    impressions = np.bincount(user_codes)
    user_auc = _grouped_auc(labels, scores, user_codes)
    both = np.isfinite(user_auc)
    ndcg = _grouped_ndcg(labels, scores, request_codes)
    ndcg = ndcg[np.isfinite(ndcg)]
    return {
        "auc": _auc(labels, scores),
        "gauc": float(np.average(user_auc[both], weights=impressions[both])) if both.any() else None,
        "ndcg@10": float(ndcg.mean()) if len(ndcg) else None,
    }


def bootstrap_interval(
    predictions: Predictions,
    task: str,
    figure: str = "auc",
    replicates: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of a figure, resampling users: the rows of one user are not independent.

    Replicates in which the figure is undefined are left out. None where more than a tenth of them are (the
    positives hang on one or two users), where the figure itself is undefined, or with fewer than two users.

    Args:
      figure: one of `FIGURES`.
      level: share of the replicates that the interval holds.

    Raises:
      ValueError: an unknown figure, no replicates, or a level outside (0, 1).
    """
    return _interval(predictions.user, [_statistic(predictions, task, figure)], replicates, seed, level)


def paired_bootstrap(
    predictions_a: Predictions,
    predictions_b: Predictions,
    task: str,
    figure: str = "auc",
    replicates: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float] | None:
    """Interval of figure(a) − figure(b) for two models on the same rows, both on the same resampled users.

    Much narrower than the difference of two intervals, since what makes a resample hard is hard for both.
    None as in `bootstrap_interval`.

    Raises:
      ValueError: the rows of the two are not the same, or as in `bootstrap_interval`.
    """
    statistics = _paired_statistics(predictions_a, predictions_b, task, figure)
    return _interval(predictions_a.user, statistics, replicates, seed, level)


def paired_bootstrap_sample(
    predictions_a: Predictions,
    predictions_b: Predictions,
    task: str,
    figure: str = "auc",
    replicates: int = 200,
    seed: int = 0,
) -> np.ndarray:
    """The replicates `[replicates]` behind `paired_bootstrap`, NaN where undefined, to go on with."""
    statistics = _paired_statistics(predictions_a, predictions_b, task, figure)
    return _resample(predictions_a.user, statistics, replicates, seed)


def _paired_statistics(a: Predictions, b: Predictions, task: str, figure: str) -> "list[_Statistic]":
    if len(a) != len(b) or any(
        not np.array_equal(left, right)
        for left, right in [
            (a.user, b.user),
            (a.request, b.request),
            (a.item, b.item),
            (a.labels[task], b.labels[task]),
        ]
    ):
        raise ValueError(
            f"A paired bootstrap needs the same rows twice. Received: {len(a)} and {len(b)} rows that differ"
        )
    return [_statistic(a, task, figure), _statistic(b, task, figure)]


def position_baseline(predictions: Predictions) -> np.ndarray | None:
    """Scores `[N]` of whoever made the slate: 1 / position. None where any position is unknown.

    Only their order means something: give them to `rank_metrics`.
    """
    if not len(predictions) or (predictions.position < 1).any():
        return None
    return 1.0 / predictions.position


def popularity_baseline(
    predictions: Predictions, train_clicks: Mapping[str, tuple[int, int]], strength: float = 20.0
) -> np.ndarray | None:
    """Scores `[N]` of ranking by popularity: the item's smoothed click rate in the training split.

    `(clicks + strength · prior) / (impressions + strength)`, where the prior is the click rate of all
    training rows. An item that training has not seen scores the prior. None where training has no rows.
    Only their order means something: give them to `rank_metrics`.

    Args:
      train_clicks: item → (clicks, impressions).
      strength: impressions that the prior counts for.
    """
    counts = np.array(list(train_clicks.values()), np.float64).reshape(-1, 2)
    clicks, impressions = counts.sum(axis=0)
    if not impressions:
        return None
    prior = clicks / impressions
    codes, items = _codes(predictions.item)
    seen = np.array([train_clicks.get(item, (0, 0)) for item in items], np.float64).reshape(-1, 2)
    rates = (seen[:, 0] + strength * prior) / (seen[:, 1] + strength)
    return rates[codes]


def _by_scenario(
    predictions: Predictions, schema: Schema, of: Callable[[Predictions, str], dict[str, Any]]
) -> dict[str, Any]:
    """`of(rows, task)` for each scenario and task, and for all rows."""
    scenario = predictions.scenario
    if len(scenario) and not (scenario.min() >= 0 and scenario.max() < len(schema.scenarios)):
        raise ValueError(
            f"Scenarios must be indices below {len(schema.scenarios)}. Received: {scenario.min()} to {scenario.max()}"
        )
    # Strings are hashed here once instead of in every figure.
    coded = dataclasses.replace(predictions, user=_codes(predictions.user)[0], request=_codes(predictions.request)[0])
    slices = {name: coded.only(scenario == index) for index, name in enumerate(schema.scenarios)}
    return {
        "scenarios": {name: {task: of(rows, task) for task in schema.task_names} for name, rows in slices.items()},
        "overall": {task: of(coded, task) for task in schema.task_names},
    }


def _codes(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys `[N]` as numbers from 0, and the distinct keys."""
    return pd.factorize(keys, use_na_sentinel=False)


def _clip(probabilities: np.ndarray) -> np.ndarray:
    epsilon = np.finfo(probabilities.dtype).eps
    return np.clip(probabilities, epsilon, 1 - epsilon).astype(np.float64)


def _entropy(rate: float) -> float:
    return float(-rate * np.log(rate) - (1 - rate) * np.log1p(-rate))


def _auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    return float(roc_auc_score(labels, scores)) if 0 < np.count_nonzero(labels) < len(labels) else None


def _grouped_auc(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """AUC of each group `[G]`, NaN where it has one class only: the Mann-Whitney statistic of average ranks."""
    size = np.bincount(groups)
    positives = np.bincount(groups, labels, len(size))
    pairs = positives * (size - positives)
    rows = pairs[groups] > 0
    blocks = _tie_blocks(scores[rows], groups[rows], labels[rows])
    average_rank = blocks.offset + (blocks.size + 1) / 2
    rank_sum = np.bincount(blocks.group, blocks.positives * average_rank, len(size))
    return np.where(pairs > 0, rank_sum - positives * (positives + 1) / 2, np.nan) / np.maximum(pairs, 1)


def _grouped_ndcg(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """NDCG@10 of each group `[G]`, NaN where it has no positive; every order of tied rows is as likely."""
    positives = np.bincount(groups, labels)
    rows = positives[groups] > 0
    blocks = _tie_blocks(-scores[rows], groups[rows], labels[rows])
    # Discount summed over the first places of a slate: [0, d_1, d_1 + d_2, …], no gain below the cutoff.
    summed = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(_CUTOFF) + 2))])
    discount = summed[np.minimum(blocks.offset + blocks.size, _CUTOFF)] - summed[np.minimum(blocks.offset, _CUTOFF)]
    gain = np.bincount(blocks.group, blocks.positives / blocks.size * discount, len(positives))
    ideal = summed[np.minimum(positives, _CUTOFF).astype(np.int64)]
    return np.where(positives > 0, gain, np.nan) / np.maximum(ideal, 1)


@dataclass(frozen=True)
class _TieBlocks:
    """Rows of one group with one score, as arrays over the blocks; a group's blocks go by rising score."""

    group: np.ndarray
    offset: np.ndarray
    """Rows of the group in the blocks before."""
    size: np.ndarray
    positives: np.ndarray


def _tie_blocks(scores: np.ndarray, groups: np.ndarray, labels: np.ndarray) -> _TieBlocks:
    order = np.lexsort((scores, groups))
    scores, groups, labels = scores[order], groups[order], labels[order]
    new_group = np.ones(len(order), bool)
    new_group[1:] = groups[1:] != groups[:-1]
    new_block = new_group.copy()
    new_block[1:] |= scores[1:] != scores[:-1]
    starts = np.flatnonzero(new_block)
    group_starts = np.flatnonzero(new_group)[np.cumsum(new_group)[starts] - 1]
    return _TieBlocks(
        group=groups[starts],
        offset=starts - group_starts,
        size=np.diff(starts, append=len(order)),
        positives=np.diff(np.concatenate([[0.0], np.cumsum(labels, dtype=np.float64)])[np.append(starts, len(order))]),
    )


_Statistic = Callable[[np.ndarray], float]
"""A figure of resampled rows, from how often each user `[U]` was drawn; NaN where undefined."""


def _statistic(predictions: Predictions, task: str, figure: str) -> _Statistic:
    labels = predictions.labels[task].astype(np.float64)
    probabilities = predictions.probabilities[task]
    users, _ = _codes(predictions.user)
    match figure:
        case "auc":
            return _auc_statistic(labels, probabilities, users)
        case "gauc":
            auc = _grouped_auc(labels, probabilities, users)
            weight = np.where(np.isfinite(auc), np.bincount(users), 0)
            return _ratio_statistic(weight * np.nan_to_num(auc), weight)
        case "logloss" | "ne":
            clipped = _clip(probabilities)
            loss = np.bincount(users, -np.where(labels == 1, np.log(clipped), np.log1p(-clipped)))
            rows, positives = np.bincount(users), np.bincount(users, labels)
            if figure == "logloss":
                return _ratio_statistic(loss, rows)

            def normalised_entropy(drawn: np.ndarray) -> float:
                n = drawn @ rows
                rate = drawn @ positives / n
                return drawn @ loss / n / _entropy(rate) if 0 < rate < 1 else np.nan

            return normalised_entropy
        case "calibration":
            return _ratio_statistic(np.bincount(users, probabilities), np.bincount(users, labels))
        case "ndcg@10":
            requests, distinct = _codes(predictions.request)
            user_of_request = np.zeros(len(distinct), np.int64)
            user_of_request[requests] = users
            ndcg = _grouped_ndcg(labels, probabilities, requests)
            count = len(np.bincount(users))
            return _ratio_statistic(
                np.bincount(user_of_request, np.nan_to_num(ndcg), count),
                np.bincount(user_of_request, np.isfinite(ndcg), count),
            )
        case _:
            raise ValueError(f"The figure must be one of {', '.join(FIGURES)}. Received: {figure!r}")


def _ratio_statistic(numerator: np.ndarray, denominator: np.ndarray) -> _Statistic:
    """A figure that is a ratio of sums over users, each `[U]`."""

    def ratio(drawn: np.ndarray) -> float:
        total = drawn @ denominator
        return drawn @ numerator / total if total else np.nan

    return ratio


def _auc_statistic(labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> _Statistic:
    """Weighted AUC. The rows are sorted once; a resample costs one running sum over the negatives."""
    positive = labels == 1
    order = np.argsort(scores[~positive])
    negative_scores, negative_users = scores[~positive][order], users[~positive][order]
    positive_users = users[positive]
    below = np.searchsorted(negative_scores, scores[positive], "left")
    up_to = np.searchsorted(negative_scores, scores[positive], "right")

    def auc(drawn: np.ndarray) -> float:
        weights = drawn[positive_users]
        negatives = np.concatenate([[0], np.cumsum(drawn[negative_users])])
        pairs = weights.sum() * negatives[-1]
        return weights @ (negatives[below] + negatives[up_to]) / (2 * pairs) if pairs else np.nan

    return auc


def _interval(
    user: np.ndarray, statistics: Sequence[_Statistic], replicates: int, seed: int, level: float
) -> tuple[float, float] | None:
    """Interval of the one statistic, or of the first less the second."""
    if not 0 < level < 1:
        raise ValueError(f"The level must be within (0, 1). Received: {level}")
    users = len(_codes(user)[1])
    if users < 2 or any(np.isnan(statistic(np.ones(users, np.int64))) for statistic in statistics):
        return None
    sample = _resample(user, statistics, replicates, seed)
    defined = sample[np.isfinite(sample)]
    if len(defined) < (1 - _UNDEFINED_SHARE) * replicates:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resample(user: np.ndarray, statistics: Sequence[_Statistic], replicates: int, seed: int) -> np.ndarray:
    """The one statistic, or the first less the second, of each of `replicates` draws of the users."""
    if replicates < 1:
        raise ValueError(f"A bootstrap needs at least one replicate. Received: {replicates}")
    users = len(_codes(user)[1])
    generator = np.random.default_rng(seed)
    sample = np.empty(replicates)
    for replicate in range(replicates):
        drawn = np.bincount(generator.integers(users, size=users), minlength=users)
        first, *second = (statistic(drawn) for statistic in statistics)
        sample[replicate] = first - sum(second)
    return sample
