"""An evaluation as files (`metrics.json`, `details.json`, `report.html`) and as a table for the terminal.

Needs no TensorFlow. The page is self-contained: its plots are inside it, and it fetches nothing.
"""

from usr_tf.report.background import Background, read_background
from usr_tf.report.terminal import format_table
from usr_tf.report.write import write_report

__all__ = ["Background", "format_table", "read_background", "write_report"]
