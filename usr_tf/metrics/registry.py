"""Registry of the evaluation metrics. To add one, write its `Metric` and add it to `METRICS`."""

from usr_tf.metrics.metric import Metric
from usr_tf.metrics.probability import CALIBRATION, ECE, LOGLOSS, NE
from usr_tf.metrics.ranking import AUC, AUC_GIVEN_PREVIOUS, GAUC, GAUC_CLICKS, MRR, NDCG, PR_AUC
from usr_tf.schema import Schema

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (AUC, GAUC, GAUC_CLICKS, PR_AUC, NDCG, MRR, LOGLOSS, NE, CALIBRATION, ECE, AUC_GIVEN_PREVIOUS)
}
"""Name → metric, in the order of documents, pages and tables."""


def metrics_for(schema: Schema, task: str) -> list[Metric]:
    """The metrics that a task has."""
    first = task == schema.task_names[0]
    return [metric for metric in METRICS.values() if not (first and metric.later_tasks_only)]
