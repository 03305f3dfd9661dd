"""Metrics of an evaluated split: per scenario, task and slice, with intervals and baselines. Needs no TensorFlow.

Read `predictions` (the rows), `sums` (what figures are made of), `figures` (the formulas), then `cells` and
`documents` (which of them, and how they are laid out).
"""

from usr_tf.metrics.baselines import popularity_baseline, position_baseline
from usr_tf.metrics.bootstrap import bootstrap_interval, paired_bootstrap, paired_bootstrap_sample
from usr_tf.metrics.comparison import DeLong, compare, delong_test
from usr_tf.metrics.documents import details_document, metrics_document
from usr_tf.metrics.figures import FIGURES, GIVEN_PREVIOUS, RANK_FIGURES, rank_metrics, task_metrics
from usr_tf.metrics.predictions import Predictions
from usr_tf.metrics.slices import Training, slices_of

__all__ = [
    "FIGURES",
    "GIVEN_PREVIOUS",
    "RANK_FIGURES",
    "DeLong",
    "Predictions",
    "Training",
    "bootstrap_interval",
    "compare",
    "delong_test",
    "details_document",
    "metrics_document",
    "paired_bootstrap",
    "paired_bootstrap_sample",
    "popularity_baseline",
    "position_baseline",
    "rank_metrics",
    "slices_of",
    "task_metrics",
]
