"""Report of an evaluation: `metrics.json`, `details.json`, `report.html`, and a table for the terminal.

Needs no TensorFlow. The page is self-contained: its plots are inside it, and it fetches nothing.
"""

from usr_tf.evaluation.report.evaluation_text import format_table
from usr_tf.evaluation.report.run_summary import RunSummary
from usr_tf.evaluation.report.worst_errors import RowText, TextsOf
from usr_tf.evaluation.report.writer import write_report

__all__ = ["RowText", "RunSummary", "TextsOf", "format_table", "write_report"]
