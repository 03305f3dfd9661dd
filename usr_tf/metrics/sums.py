"""Additive sums of every metric, over rows, users, requests and score order.

Each is an array `[1 + R]`: of the data as they are, then of each resample. Sums of two sets of rows that share no user,
no request and no stretch of the order, each as its function needs, are the sums of both sets. So the figures of one
array in memory and those of a thousand shards are the same.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from usr_tf.metrics.groups import grouped_auc
from usr_tf.metrics.keys import codes_of
from usr_tf.metrics.metric import Sums
from usr_tf.metrics.registry import METRICS
from usr_tf.metrics.resample import Resample

BINS = 10
"""Bins of equal share that calibration is looked at in: deciles."""
_BLOCK_VALUES = 1 << 21
"""Numbers of one block of resamples that are held at a time: 16 MB."""


def row_sums(labels: np.ndarray, probabilities: np.ndarray, resample: Resample) -> Sums:
    """Row sums: `rows`, `positives`, `predicted` (probabilities) and `loss` (−ln of the outcome's probability)."""
    added = {name: add for metric in METRICS.values() for name, add in metric.per_row.items()}
    columns = (add(labels, probabilities) for add in added.values())
    totals = resample.totals(np.ones(len(labels)), labels, *columns)
    return dict(zip(("rows", "positives", *added), totals, strict=True))


def user_sums(labels: np.ndarray, scores: np.ndarray, resample: Resample) -> Sums:
    """User sums: `users`, and AUCs weighted by impressions and by clicks, with the weights' sums."""
    rows = np.bincount(resample.users, minlength=resample.weights.shape[1])
    positives = np.bincount(resample.users, labels, len(rows))
    auc = np.full(len(rows), np.nan)
    found = grouped_auc(labels, scores, resample.users)
    auc[: len(found)] = found
    both = np.isfinite(auc)
    auc = np.where(both, auc, 0)
    totals = resample.totals_of_users(rows > 0, rows * auc, rows * both, positives * auc, positives * both)
    names = ("users", "gauc", "gauc_weight", "gauc_clicks", "gauc_clicks_weight")
    return dict(zip(names, totals, strict=True))


def request_sums(labels: np.ndarray, scores: np.ndarray, requests: np.ndarray, resample: Resample) -> Sums:
    """Request sums: `ranked` with a positive, `ndcg@10` and `mrr`; drawn with the user of the last row."""
    codes, distinct = codes_of(requests)
    user = np.zeros(len(distinct), np.int64)
    user[codes] = resample.users
    added = {name: add for metric in METRICS.values() for name, add in metric.per_request.items()}
    columns = (np.nan_to_num(add(labels, scores, codes)) for add in added.values())
    ranked = np.bincount(codes, labels, len(distinct)) > 0
    totals = Resample(user, resample.weights).totals(ranked, *columns)
    return dict(zip(("ranked", *added), totals, strict=True))


@dataclass(frozen=True, eq=False)
class Outside:
    """Negatives and positives `[2, 1 + R]` that score below and above a stretch of the order."""

    below: np.ndarray
    above: np.ndarray

    @classmethod
    def nothing(cls, resample: Resample) -> "Outside":
        return cls(*np.zeros((2, 2, len(resample.weights))))


def order_sums(labels: np.ndarray, scores: np.ndarray, resample: Resample, outside: Outside | None = None) -> Sums:
    """Rank sums of a stretch of the score order: contributions to AUC and average precision.

    `won`: over the positives, negatives that score lower, tied ones counting half. `precision`: over the positives, the
    share of positives among the rows that score as high or higher.

    Negatives matter by the distinct scores of the positives that they lie between, or are tied with. So rows are
    counted by that place and user once; a block of resamples is one sparse product with how often each user is drawn.
    """
    outside = outside or Outside.nothing(resample)
    positive = labels == 1
    thresholds, hits_at = np.unique(scores[positive], return_inverse=True)
    others = scores[~positive]
    place = np.searchsorted(thresholds, others, "left")
    tied = np.append(thresholds, np.nan)[place] == others
    between_and_at = _counts(2 * place + tied, resample.users[~positive], 2 * len(thresholds) + 1, resample)
    at = _counts(hits_at, resample.users[positive], len(thresholds), resample)

    won, precision = np.zeros((2, len(resample.weights)))
    step = max(1, _BLOCK_VALUES // max(len(thresholds) + 1, resample.weights.shape[1]))
    for start in range(0, len(won), step):
        block = slice(start, start + step)
        drawn = np.ascontiguousarray(resample.weights[block].T, np.float64)
        hits, falls = at @ drawn, between_and_at @ drawn
        np.cumsum(falls, axis=0, out=falls)
        below, up_to, all_falls, all_hits = falls[:-1:2], falls[1::2], falls[-1], hits.sum(axis=0)
        won[block] = (hits * (below + up_to)).sum(axis=0) / 2 + all_hits * outside.below[0, block]
        hits_above = all_hits - np.cumsum(hits, axis=0) + hits + outside.above[1, block]
        rows_above = all_falls - below + outside.above[0, block] + hits_above
        shares = np.divide(hits_above, rows_above, out=np.zeros(hits.shape), where=rows_above > 0)
        precision[block] = (hits * shares).sum(axis=0)
    return {"won": won, "precision": precision}


def _counts(places: np.ndarray, users: np.ndarray, size: int, resample: Resample) -> sparse.csr_matrix:
    """`[size, U]` rows of each user at each place."""
    ones = np.ones(len(places))
    return sparse.coo_matrix((ones, (places, users)), (size, resample.weights.shape[1])).tocsr()
