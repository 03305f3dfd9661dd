"""Metrics of an evaluated split: per scenario, task and slice, with intervals and baselines. Needs no TensorFlow.

Read `predictions` (the rows), `registry` (the metrics and their formulas), `sums` (what they are made of), then `cells`
and `documents` (which of them are computed, and how they are laid out).
"""

from usr_tf.metrics.baselines import popularity_baseline, position_baseline
from usr_tf.metrics.comparison import DeLong, compare, delong_test
from usr_tf.metrics.documents import details_document, metrics_document
from usr_tf.metrics.metric import Metric
from usr_tf.metrics.predictions import Predictions
from usr_tf.metrics.registry import METRICS
from usr_tf.metrics.slices import Training, slices_of

__all__ = [
    "METRICS",
    "DeLong",
    "Metric",
    "Predictions",
    "Training",
    "compare",
    "delong_test",
    "details_document",
    "metrics_document",
    "popularity_baseline",
    "position_baseline",
    "slices_of",
]
