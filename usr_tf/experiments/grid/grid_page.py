"""HTML page of experiment results: question, answer, plot and tables of each experiment."""

from collections.abc import Sequence

from usr_tf.evaluation.report.html import (
    UNDEFINED,
    Section,
    TableCell,
    card,
    chip,
    code,
    definitions,
    details,
    grid,
    heading,
    page,
    paragraph,
    table,
)
from usr_tf.evaluation.report.plots import Dot, dot_plot
from usr_tf.experiments.grid.comparisons import Comparison
from usr_tf.experiments.grid.results import READING, Results, answered, answers, apart_rows, by_chance, caution, rows

_MOST_DOTS = 40


def results_page(command: str, results: Sequence[Results]) -> str:
    """HTML page of the results."""
    lead = "Differences in test AUC to a baseline, with 95 % intervals over seeds and users."
    sections = [Section(each.spec.title, _content(each), each.spec.question) for each in results]
    sections.append(Section("The command", card(code(command))))
    reading = "".join(paragraph(text) for text in (READING, caution(results)) if text)
    return page("Results", lead, sections, reading + _overview(results), kicker="experiments")


_MOODS = {"helps": "good", "not shown": "level", "hurts": "bad"}


def _overview(results: Sequence[Results]) -> str:
    """Table with a row per answer and a column per task."""
    tasks = list(dict.fromkeys(task for each in results for task in each.tasks))
    body = []
    for each in results:
        for name, means in answers(each).items():
            found = {mean.task: TableCell(mean.verdict, chip(mean.verdict, _MOODS[mean.verdict])) for mean in means}
            own = [found.get(task, UNDEFINED) for task in tasks]
            body.append([each.spec.title, name, each.spec.baseline, *own])
    means = [mean for each in results for of in answers(each).values() for mean in of]
    shown = table(["experiment", "variant", "against", *tasks], body, names=3 + len(tasks))
    return heading("What is shown", "means over places and scenarios") + card(shown, note=by_chance(means))


def _content(results: Results) -> str:
    spec = results.spec
    parts = [definitions((f"{name} against {spec.baseline}", answer) for name, answer in answered(results).items())]
    parts += [paragraph(text) for text in (spec.note.replace("*", ""), *results.facts) if text]
    if not results.comparisons:
        return "".join(parts)
    means = results.by_place()
    by_task = {task: [each for each in means if each.task == task] for task in results.tasks}
    plots = [
        card(_plot(of), task, note=f"The first {_MOST_DOTS} of {len(of)}." if len(of) > _MOST_DOTS else "")
        for task, of in by_task.items()
        if of  # none where all are undefined
    ]
    parts += [heading("Means over scenarios", f"Δ AUC to {spec.baseline}"), grid(plots, least=420)]
    if results.apart:
        columns, body = apart_rows(results)
        apart = table(columns, body, names=len(columns) - 3, groups=False)
        parts += [heading("How far the views stand apart"), card(apart)]
    columns, body = rows(results)
    names = len(results.axes) + 2
    whole = table(columns, body, names=names, main=names + 2, groups=False)
    parts.append(details("Every scenario and task", card(whole, note=by_chance(results.comparisons))))
    return "".join(parts)


def _plot(means: Sequence[Comparison]) -> str:
    """Dot plot with a dot per place and variant, grouped by the first axis."""
    variants = {each.variant for each in means}
    dots = []
    for each in means[:_MOST_DOTS]:
        values = list(each.place.values())
        name = [*values, each.variant] if len(variants) > 1 or not values else values
        dots.append(Dot(", ".join(name), each.gain, each.interval, group=values[0] if len(values) > 1 else ""))
    return dot_plot(dots, "Δ AUC", name="Δ AUC", reference=0.0, label="differences to the baseline with intervals")
