"""Explanations of scores: integrated gradients, gates and attention, as text, HTML and JSON."""

from usr_tf.evaluation.explain.explainer import BACKGROUND, Explainer
from usr_tf.evaluation.explain.explanation import Action, Difference, Explanation, TaskExplanation, difference
from usr_tf.evaluation.explain.explanation_page import write_page
from usr_tf.evaluation.explain.explanation_text import format_difference, format_explanation

__all__ = [
    "BACKGROUND",
    "Action",
    "Difference",
    "Explainer",
    "Explanation",
    "TaskExplanation",
    "difference",
    "format_difference",
    "format_explanation",
    "write_page",
]
