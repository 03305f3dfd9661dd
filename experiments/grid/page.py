"""Results as one self-contained page: of each experiment the question, the answer, a picture, then the tables."""

from collections.abc import Sequence

from experiments.grid.compare import Comparison
from experiments.grid.results import Results, answered, apart_rows, rows
from usr_tf.report.html import Section, card, code, definitions, details, grid, heading, page, paragraph, table
from usr_tf.report.plots import Dot, dot_plot

_MOST_DOTS = 40


def results_page(command: str, results: Sequence[Results]) -> str:
    """The page."""
    lead = "Differences in test AUC to a baseline, with 95 % intervals over seeds and users."
    sections = [Section(each.spec.title, _content(each), each.spec.question) for each in results]
    sections.append(Section("The command", code(command)))
    return page("Results", lead, sections, kicker="experiments")


def _content(results: Results) -> str:
    spec = results.spec
    parts = [definitions((f"{name} against {spec.baseline}", told) for name, told in answered(results).items())]
    parts.append(paragraph(f"Size: {results.size}."))
    parts += [paragraph(f"Not done: {failure.name} ({failure.reason}).") for failure in results.failures]
    if not results.comparisons:
        return "".join(parts)
    means = results.by_place()
    by_task = {task: [each for each in means if each.task == task] for task in results.tasks}
    plots = [card(_plot(of), task) for task, of in by_task.items() if of]  # none where all are undefined
    parts += [heading("Means over scenarios", f"Δ AUC to {spec.baseline}"), grid(plots, least=420)]
    if results.apart:
        columns, body = apart_rows(results)
        parts += [heading("How far the views stand apart"), table(columns, body, names=len(columns) - 3, groups=False)]
    columns, body = rows(results)
    names = len(results.axes) + 2
    parts.append(details("Every scenario and task", table(columns, body, names=names, main=names + 2, groups=False)))
    return "".join(parts)


def _plot(means: Sequence[Comparison]) -> str:
    """A dot for each place and variant, grouped by the first axis."""
    variants = {each.variant for each in means}
    dots = []
    for each in means[:_MOST_DOTS]:
        values = list(each.place.values())
        name = [*values, each.variant] if len(variants) > 1 or not values else values
        dots.append(Dot(", ".join(name), each.gain, each.interval, group=values[0] if len(values) > 1 else ""))
    return dot_plot(dots, "Δ AUC", name="Δ AUC", reference=0.0, label="differences to the baseline with intervals")
