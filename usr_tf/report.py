"""An evaluation as files (`metrics.json`, `details.json`, `report.html`) and as a table for the terminal.

Needs no TensorFlow. The page is self-contained: its plots are inside it, and it fetches nothing.
"""

import base64
import html
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from rich import box
from rich.console import Group
from rich.table import Table
from sklearn.metrics import roc_curve

from usr_tf.errors import InputError
from usr_tf.files import replace_text
from usr_tf.metrics import FIGURES, Predictions
from usr_tf.schema import Schema

OVERALL = "overall"

_UNDEFINED = "–"
_BLUE, _ORANGE, _GREY, _LIGHT = "#1f5fbf", "#d9730d", "#8a8f98", "#c9d7ec"
_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#c4c9d1",
    "axes.grid": True,
    "axes.labelcolor": "#3c434d",
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": "#1c2430",
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "font.family": "DejaVu Sans",
    "grid.color": "#eceff3",
    "legend.fontsize": 8,
    "legend.frameon": False,
    "svg.hashsalt": "usr_tf",  # the same figures give the same bytes
    "xtick.color": "#6b7280",
    "xtick.labelsize": 8,
    "ytick.color": "#6b7280",
    "ytick.labelsize": 8,
}


def write_report(
    out_dir: str | Path,
    *,
    document: Mapping[str, Any],
    details: Mapping[str, Any],
    predictions: Predictions,
    schema: Schema,
    title: str,
) -> None:
    """Writes `metrics.json`, `details.json` and `report.html` to `out_dir`, `metrics.json` last.

    Each is written aside and then renamed, so that a reader never meets half a file.

    Args:
      document: of `metrics.metrics_document`.
      details: of `metrics.details_document`.
      predictions: the rows that both were taken from, for the plots.

    Raises:
      InputError: `out_dir` cannot be a folder.
    """
    out_dir = Path(out_dir)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(out_dir, f"no folder ({error.strerror})", "a folder to write the report to") from error
    texts = {
        "report.html": _page(document, details, predictions, schema, title),
        "details.json": _json(details),
        "metrics.json": _json(document),
    }
    for name, text in texts.items():
        replace_text(out_dir / name, text)


def format_table(document: Mapping[str, Any], details: Mapping[str, Any]) -> Group:
    """Two tables for the terminal, per scenario and task, both with the oracle's figure beside the model's.

    AUC has its interval and the baselines', logloss has NE and calibration.
    """
    cells = list(_cells(document, details))
    ranking = [(scenario, task, *_headline(figures, detail)[2:]) for scenario, task, figures, detail in cells]
    losses = [(scenario, task, *_losses(figures, detail)) for scenario, task, figures, detail in cells]
    names = _headline_columns(details)
    return Group(
        _terminal_table("AUC", [*names[:2], *names[4:]], ranking),  # rows and positives are too wide for 80 columns
        _terminal_table("Logloss", [*names[:2], *_LOSS_COLUMNS], losses),
    )


def _terminal_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose first two columns are scenario and task."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < 2 else "right", no_wrap=True)
    previous = None
    for scenario, *row in rows:
        if scenario != previous and previous is not None:
            table.add_section()
        table.add_row(scenario if scenario != previous else "", *row)
        previous = scenario
    return table


def _cells(
    document: Mapping[str, Any], details: Mapping[str, Any]
) -> Iterator[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]]:
    """Scenario, task, figures and details, in the order of the document, all rows together last."""
    for scenario, tasks in document["scenarios"].items():
        for task, figures in tasks.items():
            yield scenario, task, figures, details["scenarios"][scenario][task]
    for task, figures in document[OVERALL].items():
        yield OVERALL, task, figures, details[OVERALL][task]


def _headline_columns(details: Mapping[str, Any]) -> list[str]:
    interval = f"{details['level']:.0%} interval"
    return ["scenario", "task", "rows", "positives", "AUC", interval, "position", "popularity", "oracle"]


def _headline(figures: Mapping[str, Any], detail: Mapping[str, Any]) -> list[str]:
    """Values of `_headline_columns` from `rows` on."""
    baselines = detail["baselines"]
    return [
        _count(figures["n"]),
        _count(figures["positives"]),
        _figure(figures["auc"]),
        _range(detail["intervals"].get("auc")),
        _figure((baselines["position"] or {}).get("auc")),
        _figure((baselines["popularity"] or {}).get("auc")),
        _figure(figures.get("oracle_auc")),
    ]


_LOSS_COLUMNS = ("logloss", "oracle", "NE", "oracle", "calibration")


def _losses(figures: Mapping[str, Any], detail: Mapping[str, Any]) -> list[str]:
    """Values of `_LOSS_COLUMNS`."""
    oracle = detail["oracle"] or {}
    values = (figures["logloss"], oracle.get("logloss"), figures["ne"], oracle.get("ne"), figures["calibration"])
    return [_figure(value) for value in values]


def _figure(value: float | None) -> str:
    return _UNDEFINED if value is None else f"{value:.4f}"


def _range(interval: Sequence[float] | None) -> str:
    return _UNDEFINED if interval is None else f"{interval[0]:.4f}–{interval[1]:.4f}"


def _count(value: int) -> str:
    return f"{value:,}"


def _share(positives: int, rows: int) -> str:
    return f"{positives / rows:.3%}" if rows else _UNDEFINED


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


# The page.

_HOW_TO_READ = (
    (
        "AUC",
        "The chance that a row with the action is scored above a row without it. 0.5 is guessing, 1 is perfect. The "
        "interval comes from resampling users, since the rows of one user are not independent. The "
        "interval of the difference to a baseline, on the same users, is in details.json.",
    ),
    (
        "Position and popularity",
        "What is reached without a model: the order in which the rows were shown, and the item's click rate in "
        "training. Users act more on what stands first, which flatters position.",
    ),
    (
        "Oracle",
        "The AUC, logloss or NE of the true probabilities, which only simulated logs have. No model can be expected to "
        "do better.",
    ),
    (
        "GAUC and NDCG@10",
        "GAUC is AUC within each user's own rows, so it leaves out what is only a difference between users. NDCG@10 "
        "looks at the top of each request that had a positive.",
    ),
    (
        "Logloss, NE and calibration",
        "They judge the probabilities themselves. NE below 1 beats always answering the average rate. Calibration is "
        "predicted over observed: 1 is right, 1.1 promises a tenth too much.",
    ),
    (
        _UNDEFINED,
        "The figure is not defined on these rows (for AUC: they are of one class only), its interval would rest on "
        "too few users, or the logs do not hold what it needs.",
    ),
)

_CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f6f7f9; color: #1c2430;
       font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 40px 0 10px; }
h3 { font-size: 15px; margin: 0 0 8px; }
h3 span { color: #6b7280; font-weight: 400; margin-left: 8px; }
.lead, .note { color: #5b6472; margin: 0; }
.note { font-size: 13px; margin-top: 8px; }
.card { background: #fff; border: 1px solid #e2e6eb; border-radius: 8px; padding: 18px 20px; margin-bottom: 16px; }
.table { padding: 4px 0; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 8px 14px; text-align: right; white-space: nowrap; }
th { color: #5b6472; font-size: 13px; font-weight: 600; border-bottom: 1px solid #dfe3e8; }
th.name, td.name { text-align: left; }
tr.first td { border-top: 1px solid #eceff3; }
tbody tr.first:first-child td { border-top: 0; }
tr.overall td { background: #fafbfc; }
td.main { font-weight: 650; color: #1f5fbf; }
td.none { color: #a3a9b3; }
img { display: block; width: 100%; height: auto; }
dl { margin: 0; } dt { font-weight: 600; } dd { margin: 0 0 10px; color: #3c434d; } dd:last-child { margin: 0; }
@media print { body { background: #fff; } .card { break-inside: avoid; } }
"""


def _page(
    document: Mapping[str, Any],
    details: Mapping[str, Any],
    predictions: Predictions,
    schema: Schema,
    title: str,
) -> str:
    cells = list(_cells(document, details))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{_CSS}</style>
</head>
<body>
<main>
<h1>{html.escape(title)}</h1>
<p class="lead">{_lead(predictions, schema)}</p>
<h2>AUC</h2>
{_headline_table(cells, details)}
<h2>Logloss</h2>
{_loss_table(cells)}
<h2>All figures</h2>
{_all_figures_table(cells)}
<h2>Rows and positives</h2>
{_rows_table(cells)}
<h2>Calibration, scores and ROC</h2>
{_plots(cells, predictions, schema)}
<h2>How to read this page</h2>
<div class="card"><dl>{"".join(f"<dt>{term}</dt><dd>{text}</dd>" for term, text in _HOW_TO_READ)}</dl></div>
</main>
</body>
</html>
"""


def _lead(predictions: Predictions, schema: Schema) -> str:
    counts = [
        (len(predictions), "row"),
        (len(set(predictions.request)), "request"),
        (len(set(predictions.user)), "user"),
        (len(set(predictions.item)), "item"),
        (len(schema.scenarios), "scenario"),
    ]
    return ", ".join(f"{count:,} {name}{'' if count == 1 else 's'}" for count, name in counts)


def _headline_table(cells: Sequence[tuple], details: Mapping[str, Any]) -> str:
    rows = [(scenario, task, *_headline(figures, detail)) for scenario, task, figures, detail in cells]
    note = f"{details['level']:.0%} interval from {details['replicates']} bootstrap resamples of users."
    return _table(_headline_columns(details), rows, main=4) + f'<p class="note">{note}</p>'


def _loss_table(cells: Sequence[tuple]) -> str:
    rows = [(scenario, task, *_losses(figures, detail)) for scenario, task, figures, detail in cells]
    return _table(["scenario", "task", *_LOSS_COLUMNS], rows, main=2)


def _all_figures_table(cells: Sequence[tuple]) -> str:
    names = {"auc": "AUC", "gauc": "GAUC", "ne": "NE", "ndcg@10": "NDCG@10"}
    rows = [(scenario, task, *(_figure(figures[name]) for name in FIGURES)) for scenario, task, figures, _ in cells]
    return _table(["scenario", "task", *(names.get(name, name) for name in FIGURES)], rows)


def _rows_table(cells: Sequence[tuple]) -> str:
    rows = [
        (scenario, task, _count(f["n"]), _count(f["positives"]), _share(f["positives"], f["n"]))
        for scenario, task, f, _ in cells
    ]
    return _table(["scenario", "task", "rows", "positives", "positive rate"], rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], main: int | None = None) -> str:
    """A table whose first two columns are scenario and task; `main` is the column to stand out."""
    head = "".join(f"<th{_class(['name'] * (i < 2))}>{html.escape(c)}</th>" for i, c in enumerate(columns))
    body, previous = [], None
    for row in rows:
        cells = []
        for index, value in enumerate(row):
            kinds = ["name"] * (index < 2) + ["main"] * (index == main) + ["none"] * (value == _UNDEFINED)
            text = "" if index == 0 and value == previous else html.escape(value)
            cells.append(f"<td{_class(kinds)}>{text}</td>")
        kinds = ["first"] * (row[0] != previous) + ["overall"] * (row[0] == OVERALL)
        body.append(f"<tr{_class(kinds)}>{''.join(cells)}</tr>")
        previous = row[0]
    return f'<div class="card table"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _class(names: Sequence[str]) -> str:
    return f' class="{" ".join(names)}"' if names else ""


# The plots.


def _plots(cells: Sequence[tuple], predictions: Predictions, schema: Schema) -> str:
    cards = []
    for scenario, task, figures, _ in cells:
        if scenario == OVERALL:
            continue
        name = f"{html.escape(scenario)} · {html.escape(task)}"
        rows = predictions.only(predictions.scenario == schema.scenarios.index(scenario))
        summary = f"{_count(figures['n'])} rows, {_count(figures['positives'])} positives"
        if len(rows):
            source = _svg(rows.labels[task], rows.probabilities[task], rows.oracle.get(task), figures)
            content = f'<img alt="Calibration, scores and ROC curve of {name}" src="{source}">'
        else:
            content = '<p class="lead">No rows of this scenario.</p>'
        cards.append(f'<div class="card"><h3>{name}<span>{summary}</span></h3>{content}</div>')
    return "\n".join(cards)


def _svg(labels: np.ndarray, probabilities: np.ndarray, oracle: np.ndarray | None, figures: Mapping[str, Any]) -> str:
    """The three plots of one scenario and task, as a `data:` address of an SVG."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(12.4, 4.0))  # not pyplot's: nothing to close
        grid = figure.add_gridspec(4, 3, left=0.055, right=0.99, bottom=0.12, top=0.93, wspace=0.22, hspace=0.3)
        reliability = figure.add_subplot(grid[:3, 0])
        _draw_reliability(reliability, figure.add_subplot(grid[3, 0], sharex=reliability), labels, probabilities)
        _draw_scores(figure.add_subplot(grid[:, 1]), labels, probabilities)
        _draw_roc(figure.add_subplot(grid[:, 2]), labels, probabilities, oracle, figures)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _draw_reliability(axes: Axes, below: Axes, labels: np.ndarray, probabilities: np.ndarray) -> None:
    """Observed rate over predicted, in bins of about as many rows each, and the rows of each bin below."""
    bins = _reliability_bins(labels, probabilities)
    observed = bins["positives"] / bins["rows"]
    low, high = _wilson(bins["positives"], bins["rows"])
    some = bins["positives"] > 0
    floor = min(bins["predicted"].min(), observed[some].min() if some.any() else 1.0) / 2
    ceiling = min(1.0, max(bins["predicted"].max(), high.max()) * 1.5)
    axes.plot([floor, ceiling], [floor, ceiling], color=_GREY, linewidth=1, linestyle="--", label="perfect")
    axes.errorbar(
        bins["predicted"][some],
        observed[some],
        yerr=np.maximum([observed - low, high - observed], 0)[:, some],  # rounding can cross zero
        color=_BLUE,
        marker="o",
        markersize=4,
        linewidth=1.2,
        elinewidth=0.8,
        label="observed, 95% interval",
    )
    if not some.all():
        axes.plot(
            bins["predicted"][~some],
            np.full(np.count_nonzero(~some), floor),
            color=_BLUE,
            marker="v",
            markersize=5,
            markerfacecolor="white",
            linestyle="none",
            clip_on=False,
            label="no positives",
        )
    axes.set(title="Calibration", ylabel="observed rate", xscale="log", yscale="log", ylim=(floor, ceiling))
    axes.tick_params(labelbottom=False)
    axes.legend(loc="upper left")
    widths = np.maximum(bins["upper"] - bins["lower"], bins["predicted"] * 0.05)
    below.bar(bins["lower"], bins["rows"], widths, align="edge", color=_LIGHT, edgecolor="white", linewidth=0.5)
    below.bar(bins["lower"], bins["positives"], widths, align="edge", color=_BLUE, edgecolor="white", linewidth=0.5)
    below.set(xlabel="predicted probability (blue: positives, light: rows)", ylabel="count", yscale="log")
    below.set_ylim(bottom=0.8)  # one row is still a bar
    for axis in (axes.xaxis, axes.yaxis, below.xaxis, below.yaxis):
        axis.set_minor_formatter(NullFormatter())
        axis.set_tick_params(which="minor", length=0)


def _reliability_bins(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = 12, least: int = 25
) -> dict[str, np.ndarray]:
    """Rows, positives, mean prediction and its range, per bin of equal share; equal predictions stay together.

    Fewer than `bins` where they would hold fewer than `least` rows.
    """
    bins = max(1, min(bins, len(labels) // least))
    order = np.argsort(probabilities)
    ordered = np.maximum(probabilities[order].astype(np.float64), 1e-12)  # for a logarithmic axis
    edges = np.unique(ordered[np.linspace(0, len(ordered), bins, endpoint=False).astype(np.int64)])
    starts = np.searchsorted(ordered, edges)
    rows = np.diff(starts, append=len(ordered))
    return {
        "rows": rows,
        "positives": np.add.reduceat(labels[order].astype(np.float64), starts),
        "predicted": np.add.reduceat(ordered, starts) / rows,
        "lower": ordered[starts],
        "upper": ordered[starts + rows - 1],
    }


def _wilson(positives: np.ndarray, rows: np.ndarray, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95% interval of a rate."""
    rate = positives / rows
    centre = (rate + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * np.sqrt(rate * (1 - rate) / rows + z**2 / (4 * rows**2))
    return centre - half, centre + half


def _draw_scores(axes: Axes, labels: np.ndarray, probabilities: np.ndarray) -> None:
    """How the predictions of each class are spread, each class adding up to 1."""
    scores = np.log10(np.maximum(probabilities.astype(np.float64), 1e-12))
    edges = np.linspace(scores.min() - 0.05, scores.max() + 0.05, 49)
    for value, name, colour in ((0, "negatives", _GREY), (1, "positives", _ORANGE)):
        chosen = scores[labels == value]
        if len(chosen):
            share = np.histogram(chosen, edges)[0] / len(chosen)
            axes.stairs(share, 10**edges, fill=True, color=colour, alpha=0.3)
            axes.stairs(share, 10**edges, color=colour, linewidth=1.2, label=f"{name} ({len(chosen):,})")
    axes.set(title="Scores", xlabel="predicted probability", ylabel="share of the class", xscale="log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(bottom=0)
    axes.set_ylim(top=axes.get_ylim()[1] * 1.2)  # room for the legend
    axes.legend(loc="upper left")


def _draw_roc(
    axes: Axes,
    labels: np.ndarray,
    probabilities: np.ndarray,
    oracle: np.ndarray | None,
    figures: Mapping[str, Any],
) -> None:
    axes.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01))
    if figures["auc"] is None:
        axes.text(
            0.5, 0.5, "not defined: one class only", ha="center", va="center", color=_GREY, backgroundcolor="white"
        )
        return
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--")
    _draw_roc_of(axes, labels, probabilities, color=_BLUE, label=f"model {figures['auc']:.4f}")
    if figures.get("oracle_auc") is not None and oracle is not None:
        label = f"oracle {figures['oracle_auc']:.4f}"
        _draw_roc_of(axes, labels, oracle, color=_ORANGE, label=label, linestyle=":")
    axes.legend(loc="lower right")


def _draw_roc_of(axes: Axes, labels: np.ndarray, scores: np.ndarray, points: int = 300, **line: Any) -> None:
    false_positive, true_positive, _ = roc_curve(labels, scores)
    kept = np.unique(np.linspace(0, len(false_positive) - 1, points).astype(np.int64))
    axes.plot(false_positive[kept], true_positive[kept], linewidth=1.5, **line)
