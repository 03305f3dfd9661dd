"""Writer of the report files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from usr_tf.evaluation.report.evaluation_page import evaluation_page
from usr_tf.evaluation.report.run_summary import RunSummary
from usr_tf.evaluation.report.worst_errors import TextsOf
from usr_tf.files import make_folder, replace_text, strict_json
from usr_tf.metrics import Predictions
from usr_tf.schema import Schema


def write_report(
    out_dir: str | Path,
    *,
    document: Mapping[str, Any],
    details: Mapping[str, Any],
    schema: Schema,
    title: str,
    predictions: Predictions | None = None,
    run_summary: RunSummary | None = None,
    texts_of: TextsOf | None = None,
) -> None:
    """Writes `metrics.json`, `details.json` and `report.html` to `out_dir`, `metrics.json` last.

    Each is written aside and then renamed, so that a reader never meets half a file.

    Args:
      document: of `metrics.metrics_document`.
      details: of `metrics.details_document`.
      predictions: the rows that both were taken from, for the worst of them.
      texts_of: words of the worst rows.
      run_summary: for the sections on training, views, data and making.

    Raises:
      InputError: `out_dir` cannot be a folder, or the files cannot be written.
    """
    out_dir = make_folder(out_dir)
    texts = {"report.html": evaluation_page(document, details, schema, title, predictions, run_summary, texts_of)}
    texts |= {
        name: strict_json(each, indent=2) + "\n"
        for name, each in (("details.json", details), ("metrics.json", document))
    }
    for name, text in texts.items():
        replace_text(out_dir / name, text)
