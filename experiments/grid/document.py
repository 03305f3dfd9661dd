"""Results as Markdown: of each experiment the question, the answer, then the tables."""

from collections.abc import Iterable, Sequence

from experiments.grid.compare import Comparison
from experiments.grid.results import Results, answered, answers, apart_rows, gain, rows


def results_document(command: str, results: Sequence[Results]) -> str:
    """A whole file."""
    lines = ["# Results", "", *_head(command, results), ""]
    lines += _contents(results)
    for each in results:
        lines += ["", *_section(each)]
    return "\n".join(lines) + "\n"


_LEAD = """\
Do not edit: this file is written by

```
{command}
```

Every figure is ours, of our reading of the paper on our simulated shop; none is the paper's.

How to read it: a difference is AUC on the test split less the baseline's, on the same rows. The interval holds 95 % of
a paired bootstrap, which draws seeds (each another shop and other first weights) and then users. *Helps* and *hurts*
mean that it lies above or below 0, *not shown* that it holds 0: there is nothing, or the experiment is too small to
tell. Where there is nothing, one comparison in twenty will be called something by chance. Means over scenarios and
places are of the same draws. *Gap closed* is the share of oracle − baseline."""
_SMALL = """
This is a small run, with {seeds} in places: its intervals hardly know how shops differ from each other. Read them as:
on these shops, for other users."""
_APART = """\
How far the views stand apart, mean over seeds: *silhouette* 0 is within each other, 1 far apart; cosines of a row's
views with each other, and of different rows in one view (near 1 they have collapsed to a point)."""
_FEW_SEEDS = 5


def _head(command: str, results: Sequence[Results]) -> list[str]:
    lines = _LEAD.format(command=command).splitlines()
    seeds = min((len(each.spec.seeds) for each in results), default=_FEW_SEEDS)
    if seeds < _FEW_SEEDS:
        lines += _SMALL.format(seeds=f"{seeds} seed{'s' if seeds > 1 else ''}").splitlines()
    return lines


def _contents(results: Sequence[Results]) -> list[str]:
    """The questions, and in a word what each variant does."""
    lines = ["| question | against | what is shown |", "| --- | --- | --- |"]
    for each in results:
        told = "<br>".join(f"{name}: {_verdicts(means)}" for name, means in answers(each).items()) or "–"
        lines.append(f"| [{each.spec.question}](#{_anchor(each.spec.title)}) | {each.spec.baseline} | {told} |")
    return lines


def _verdicts(means: Sequence[Comparison]) -> str:
    return ", ".join(f"{each.task} {each.verdict}" for each in means) or "undefined"


def _anchor(title: str) -> str:
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def _section(results: Results) -> list[str]:
    spec = results.spec
    lines = [f"## {spec.title}", "", f"**{spec.question}**", ""]
    lines += [f"- *{name}* against *{spec.baseline}*: {told}" for name, told in answered(results).items()]
    if spec.note:
        lines += ["", *spec.note.strip().splitlines()]
    lines += ["", f"Size: {results.size}."]
    if results.chosen:
        chosen = ", ".join(f"{name} {value:g}" for name, value in results.chosen.items())
        lines += ["", f"{spec.tune.key} by validation AUC in a shop of its own: {chosen}."]
    for failure in results.failures:
        lines += ["", f"Not done: {failure.name} ({failure.reason})."]
    several = [axis for axis, values in results.axes.items() if len(values) > 1]
    if len(several) > 1:
        for axis in several:
            lines += ["", f"By {_told(axis)}, mean over the rest:", "", *_means(results, results.by_axis(axis), [axis])]
    if several:
        lines += ["", f"By {' and '.join(map(_told, several))}, mean over scenarios:", ""]
        lines += _means(results, results.by_place(), list(results.axes))
    if results.apart:
        lines += ["", *_APART.splitlines(), "", *_table(*apart_rows(results))]
    columns, body = rows(results)
    lines += ["", "<details><summary>Every scenario and task</summary>", "", *_table(columns, body), "", "</details>"]
    return lines


def _means(results: Results, comparisons: Sequence[Comparison], axes: Sequence[str]) -> list[str]:
    """A row for each place and variant, a column for each task."""
    found: dict[tuple[str, ...], dict[str, Comparison]] = {}
    for each in comparisons:
        found.setdefault((*(each.place[axis] for axis in axes), each.variant), {})[each.task] = each
    body = [[*key, *(_cell(of.get(task)) for task in results.tasks)] for key, of in found.items()]
    return _table([*map(_told, axes), "variant", *results.tasks], body)


def _cell(comparison: Comparison | None) -> str:
    if comparison is None:
        return "–"
    shown = comparison.verdict in ("helps", "hurts")
    return f"**{gain(comparison)}** {comparison.verdict}" if shown else f"{gain(comparison)} {comparison.verdict}"


def _told(axis: str) -> str:
    return axis.replace("_", " ")


def _table(columns: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    return lines + [f"| {' | '.join(row)} |" for row in body]
