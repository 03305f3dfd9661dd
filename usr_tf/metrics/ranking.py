"""Ranking metrics: AUC, GAUC, average precision, NDCG@10 and MRR. All depend on the order of the scores alone."""

import numpy as np

from usr_tf.metrics.groups import grouped_ndcg, grouped_reciprocal_rank
from usr_tf.metrics.metric import Metric, Sums, ratio


def _auc(sums: Sums) -> np.ndarray:
    return ratio(sums["won"], sums["positives"] * (sums["rows"] - sums["positives"]))


def _auc_given_previous(sums: Sums) -> np.ndarray:
    none = np.zeros_like(sums["rows"])  # shards have no sums where that task happened in no row
    return _auc({part: sums.get(f"given_previous.{part}", none) for part in ("won", "rows", "positives")})


AUC = Metric(name="auc", label="AUC", sample=_auc, higher_is_better=True, ranking=True)
"""Chance that a positive row scores above a negative one, ties counting half. Needs both classes."""

GAUC = Metric(
    name="gauc",
    label="GAUC",
    sample=lambda sums: ratio(sums["gauc"], sums["gauc_weight"]),
    higher_is_better=True,
    ranking=True,
    in_slices=True,
)
"""Mean of the users' own AUCs over the users with both classes, weighted by impressions."""

GAUC_CLICKS = Metric(
    name="gauc_clicks",
    label="GAUC by clicks",
    sample=lambda sums: ratio(sums["gauc_clicks"], sums["gauc_clicks_weight"]),
    higher_is_better=True,
    ranking=True,
)
"""GAUC weighted by positives."""

PR_AUC = Metric(
    name="pr_auc",
    label="PR-AUC",
    sample=lambda sums: ratio(sums["precision"], sums["positives"]),
    higher_is_better=True,
    ranking=True,
)
"""Average precision: over the positives, the mean share of positives among the rows that score as high or higher.

Chance gives the base rate. Needs a positive.
"""

NDCG = Metric(
    name="ndcg@10",
    label="NDCG@10",
    sample=lambda sums: ratio(sums["ndcg@10"], sums["ranked"]),
    per_request={"ndcg@10": grouped_ndcg},
    higher_is_better=True,
    ranking=True,
)
"""Gain 1 for a positive, tied rows sharing their places evenly; mean over the requests with a positive."""

MRR = Metric(
    name="mrr",
    label="MRR",
    sample=lambda sums: ratio(sums["mrr"], sums["ranked"]),
    per_request={"mrr": grouped_reciprocal_rank},
    higher_is_better=True,
    ranking=True,
)
"""1 / the place of the first positive; mean over the same requests, tied rows in every order alike."""

AUC_GIVEN_PREVIOUS = Metric(
    name="auc_given_previous",
    label="AUC given the task before",
    sample=_auc_given_previous,
    higher_is_better=True,
    later_tasks_only=True,
)
"""AUC of the probability given the task before, over the rows where that one happened."""
