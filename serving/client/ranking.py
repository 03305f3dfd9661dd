"""Rankings: items of a request sorted by score."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.client.formula import Formula
from usr_tf.columns import ITEM

SCORE = "score"
"""What a row calls the value of a formula."""
_CLICK = "ctr"


def default_output(outputs: Sequence[str]) -> str:
    """Default output to rank by: `ctr`, or the first output without it."""
    return _CLICK if _CLICK in outputs else min(outputs)


def rank(
    outputs: Mapping[str, np.ndarray],
    by: Formula,
    inputs: Mapping[str, np.ndarray],
    items: Sequence[Any] | None = None,
) -> list[dict[str, Any]]:
    """Ranking as one row per item, best first.

    Args:
      outputs: what the model gives, `[N]` each.
      by: over outputs and inputs. Equal scores keep the request's order, and a score that is no number comes last.
      inputs: other names that `by` may hold, `[N]` each.
      items: the items' ids.

    Returns:
      Rows of `rank` from 1, `item_id` (or `row`, the place in the request from 0, without `items`), `score` where `by`
      is more than an output's name, and each output: that of `by` first, then `ctr`, then by name.

    Raises:
      ValueError: columns that are not of one length.
    """
    lengths = {name: np.shape(column) for name, column in {**inputs, **outputs}.items()}
    lengths |= {} if items is None else {"items": (len(items),)}
    if len(set(lengths.values())) != 1 or any(len(shape) != 1 for shape in lengths.values()):
        raise ValueError(f"Outputs, inputs and items must be [N] each. Received: shapes {lengths}")
    scores = by({**inputs, **outputs})
    names = sorted(outputs, key=lambda name: (name != by.name, name != _CLICK, name))
    columns = {} if by.name in outputs else {SCORE: scores.tolist()}
    columns |= {name: np.asarray(outputs[name], np.float64).tolist() for name in names}
    return [
        {
            "rank": place,
            **({"row": row} if items is None else {ITEM: items[row]}),
            **{name: values[row] for name, values in columns.items()},
        }
        for place, row in enumerate(np.argsort(-scores, kind="stable").tolist(), start=1)
    ]


def format_ranking(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> str:
    """Ranking as a text table: item ids on the left of their column, numbers on the right."""
    lines = [_printable(title)] if title else []
    if rows:
        table = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for cells in table:
            aligned = (
                cell.ljust(width) if name == ITEM else cell.rjust(width)
                for name, cell, width in zip(rows[0], cells, widths, strict=True)
            )
            lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return f"{value:.6f}" if isinstance(value, float) else _printable(str(value))  # only scores are floats


def _printable(text: str) -> str:
    """Text on one line, without the control characters that an id may hold."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
