"""Metrics per user or request: AUC, NDCG, reciprocal rank, with ties shared evenly."""

from dataclasses import dataclass

import numpy as np

CUTOFF = 10
"""Places of a slate that NDCG looks at."""


def grouped_auc(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """AUC `[G]` of each group by the Mann-Whitney statistic; NaN with one class.

    Args:
      groups: number of each row's group, from 0, `[N]`.
    """
    size = np.bincount(groups)
    positives = np.bincount(groups, labels, len(size))
    pairs = positives * (size - positives)
    rows = pairs[groups] > 0
    blocks = _tie_blocks(scores[rows], groups[rows], labels[rows])
    average_rank = blocks.offset + (blocks.size + 1) / 2
    rank_sum = np.bincount(blocks.group, blocks.positives * average_rank, len(size))
    return np.where(pairs > 0, rank_sum - positives * (positives + 1) / 2, np.nan) / np.maximum(pairs, 1)


def grouped_ndcg(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """NDCG@10 `[G]` of each group, mean over the orders of ties; NaN without a positive."""
    positives = np.bincount(groups, labels)
    rows = positives[groups] > 0
    blocks = _tie_blocks(-scores[rows], groups[rows], labels[rows])
    # Discount summed over the first places of a slate: [0, d_1, d_1 + d_2, …], no gain below the cutoff.
    summed = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(CUTOFF) + 2))])
    discount = summed[np.minimum(blocks.offset + blocks.size, CUTOFF)] - summed[np.minimum(blocks.offset, CUTOFF)]
    gain = np.bincount(blocks.group, blocks.positives / blocks.size * discount, len(positives))
    ideal = summed[np.minimum(positives, CUTOFF).astype(np.int64)]
    return np.where(positives > 0, gain, np.nan) / np.maximum(ideal, 1)


def grouped_reciprocal_rank(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Reciprocal rank `[G]` of the first positive, mean over the orders of ties; NaN without one.

    Of a block of s tied rows with m positives the first positive stands at place j with probability
    `C(s − j, m − 1) / C(s, m)`.
    """
    positives = np.bincount(groups, labels)
    rows = positives[groups] > 0
    blocks = _tie_blocks(-scores[rows], groups[rows], labels[rows])
    holding = np.flatnonzero(blocks.positives)
    group, first = np.unique(blocks.group[holding], return_index=True)
    offset, size, hits = (column[holding[first]] for column in (blocks.offset, blocks.size, blocks.positives))
    rank, chance, place = np.zeros(len(group)), hits / np.maximum(size, 1), 1
    active = np.arange(len(group))
    while len(active):
        rank[active] += chance[active] / (offset[active] + place)
        active = active[place <= (size - hits)[active]]  # later places can hold the first positive
        chance[active] *= (size - hits - place + 1)[active] / (size - place)[active]
        place += 1
    whole = np.full(len(positives), np.nan)
    whole[group] = rank
    return whole


@dataclass(frozen=True)
class _TieBlocks:
    """Tied rows of a group, as arrays over blocks; blocks of a group by rising score."""

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
