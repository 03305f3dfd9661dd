"""Markdown document of experiment results: question, answer and tables of each experiment."""

from collections.abc import Iterable, Sequence

from usr_tf.experiments.grid.comparisons import Comparison
from usr_tf.experiments.grid.results import (
    READING,
    Results,
    answered,
    answers,
    apart_rows,
    by_chance,
    caution,
    gain,
    rows,
    verdicts,
)


def results_document(command: str, results: Sequence[Results]) -> str:
    """Markdown text of the whole file."""
    lines = ["# Results", "", *_LEAD.format(command=command).splitlines(), "", *READING.splitlines(), ""]
    lines += [*caution(results).splitlines(), "", *_contents(results)]
    for each in results:
        lines += ["", *_section(each)]
    return "\n".join(lines) + "\n"


_LEAD = """\
Do not edit: this file is written by

```
{command}
```

Every figure is ours, of our reading of the paper on our simulated shop; none is the paper's."""
_APART = """\
How far the views stand apart, mean over seeds: *silhouette* 0 is within each other, 1 far apart; cosines of a row's
views with each other, and of different rows in one view (near 1 they have collapsed to a point)."""


def _contents(results: Sequence[Results]) -> list[str]:
    """Contents: the questions, with a one-word verdict of each variant."""
    lines = ["| question | against | what is shown |", "| --- | --- | --- |"]
    for each in results:
        answer = "<br>".join(f"{_plain(name)}: {verdicts(each, means)}" for name, means in answers(each).items()) or "–"
        question = f"[{_plain(each.spec.question)}](#{_anchor(each.spec.title)})"
        lines.append(f"| {question} | {_plain(each.spec.baseline)} | {answer} |")
    means = [mean for each in results for means in answers(each).values() for mean in means]
    return [*lines, "", by_chance(means)]


def _anchor(title: str) -> str:
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def _section(results: Results) -> list[str]:
    spec = results.spec
    lines = [f"## {spec.title}", "", f"**{spec.question}**", ""]
    for name, answer in answered(results).items():
        lines.append(f"- *{_plain(name)}* against *{_plain(spec.baseline)}*: {_plain(answer)}")
    if spec.note:
        lines += ["", *spec.note.strip().splitlines()]
    for fact in results.facts:
        lines += ["", _plain(fact)]
    if not results.comparisons:
        return lines
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
    lines += ["", "<details><summary>Every scenario and task</summary>", "", *_table(columns, body), ""]
    lines += [by_chance(results.comparisons), "", "</details>"]
    return lines


def _means(results: Results, comparisons: Sequence[Comparison], axes: Sequence[str]) -> list[str]:
    """Table with a row per place and variant and a column per task."""
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
    lines = [f"| {' | '.join(map(_plain, columns))} |", f"|{' --- |' * len(columns)}"]
    return lines + [f"| {' | '.join(map(_plain, row))} |" for row in body]


def _plain(text: str) -> str:
    """Text escaped for a Markdown table cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
