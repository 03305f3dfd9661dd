"""HTML page of an A/B test, `abtest.html`."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from usr_tf.evaluation.report import html
from usr_tf.evaluation.report.html import Section
from usr_tf.evaluation.report.plots import BLUE, FAINT, ORANGE, Dot, dot_plot, svg
from usr_tf.evaluation.report.task_results import FEW
from usr_tf.experiments.abtest.analysis import A, B
from usr_tf.experiments.abtest.off_policy import CLIP
from usr_tf.experiments.abtest.outcomes import ALL
from usr_tf.experiments.abtest.result_tables import (
    ESTIMATORS,
    LEVEL,
    NAMES,
    TEST,
    TWINS,
    change,
    changes,
    estimate,
    figure,
    holds,
    lifts,
    model_names,
    share,
    test_row,
    twins_row,
)

_HEADLINE = ("uctr", "ucvr")
_MOST = 1e3
"""The largest ratio of the arms on an axis, and one over it the smallest."""
_RATIOS = (1e-3, 0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 100, 1e3)
"""Ticks of an axis that spans a wide range of ratios."""
_MOODS = {"good": "B is better", "level": "not told apart", "bad": "B is worse"}
_GREY = f"Grey: fewer than {FEW} actions in an arm."
_MEANING = (
    ("UCTR", "clicking users over exposed users, both counted once a day"),
    ("UCVR", "buying users over exposed users, both counted once a day"),
    ("CTR, CTCVR", "clicks and purchases over impressions"),
    ("revenue per user", "prices of what was bought over users"),
    ("all", "all scenarios together, and what was looked up later outside of any list and bought"),
)


def page(document: Mapping[str, Any], command: str) -> str:
    """HTML page of the test.

    Args:
      document: of `abtest.json`.
      command: that makes it again.
    """
    settings, asked = document["settings"], document["requests"]["a"]
    a, b = model_names(document["a"], document["b"])
    lead = (
        f"A is {a}, B is {b}. {document['users']:,} people of the simulated shop, {settings['days']} days, {asked:,} "
        f"requests in each arm. Slates by {settings['by']}."
    )
    sections = [_twins(document), _test(document), _peeking(document), _off_policy(document)]
    sections.append(_making(document, command))
    return html.page(f"{b} against {a}", lead, sections, _verdict(document, a, b), "A/B test")


def _verdict(document: Mapping[str, Any], a: str, b: str) -> str:
    found = [(scope, metric, twin) for scope, metric, twin in lifts(document, "twins") if metric in _HEADLINE]
    wins = sum(_mood(twin) == "good" for scope, _, twin in found if scope != ALL)
    total = sum(scope != ALL for scope, *_ in found)
    sentence = f"{b} (B) lifts {wins} of {total} figures over {a} (A), UCTR and UCVR of each scenario, beyond chance."
    tiles = [
        html.tile(
            f"{scope}, {NAMES[metric]}",
            change(twin["lift"]),
            (f"{LEVEL}: {changes(twin['interval'])}", f"One test: {change(document['test'][scope][metric]['lift'])}"),
            html.chip(_MOODS[_mood(twin)], _mood(twin)),
            weak=_few(twin),
        )
        for scope, metric, twin in found
    ]
    return html.paragraph(sentence, "verdict") + html.grid(tiles, least=220)


def _mood(found: Mapping[str, Any]) -> str:
    interval = found["interval"]
    if interval is None or interval[0] <= 0 <= interval[1]:
        return "level"
    return "good" if interval[0] > 0 else "bad"


def _few(found: Mapping[str, Any]) -> bool:
    """Whether an arm has too few actions for its figure to be relied on."""
    return min(found["actions"].values()) < FEW


def _cells(row: Sequence[str], found: Mapping[str, Any]) -> list[str]:
    """A row of `TWINS` or `TEST` with the interval below the lift, in grey where it rests on few actions."""
    of_a, of_b, lift, interval, *rest = row
    cells = [of_a, of_b, lift if interval == html.UNDEFINED else f"{lift}\n{interval}", *rest]
    return [html.weak(cell) for cell in cells] if _few(found) else cells


def _columns(names: Sequence[str]) -> list[str]:
    """Names of the columns of `_cells`."""
    of_a, of_b, lift, interval, *rest = names
    return [of_a, of_b, f"{lift}, {interval}", *rest]


def _twins(document: Mapping[str, Any]) -> Section:
    dots = [
        Dot(
            f"{scope}, {NAMES[metric]}",
            100 * found["lift"],
            [100 * end for end in found["interval"]] if found["interval"] else None,
            {"one test": _percent(document["test"][scope][metric]["lift"])},
            scope,
            _few(found),
        )
        for scope, metric, found in lifts(document, "twins")
        if found["lift"] is not None
    ]
    picture = ""
    if dots:  # none where nobody did anything
        picture = dot_plot(dots, "lift of B over A, %", name="twins", reference=0, width=560, label="Lifts by figure")
    rows = [
        (
            scope,
            NAMES[metric],
            *_cells(twins_row(metric, found), found),
            _correlation(found["correlation"]),
            figure(metric, document["figures"][scope][metric]["shop"]),
        )
        for scope, metric, found in lifts(document, "twins")
    ]
    table = html.table(["scenario", "figure", *_columns(TWINS), "correlation", "shop"], rows, names=2, main=4)
    return Section(
        "What B does: twins",
        html.card(
            picture + table,
            "Lift of B over A",
            note=f"Bands are {LEVEL} intervals, by the spread between users. {_GREY}",
        )
        + html.card(html.definitions(_MEANING), "Figures"),
        "Everybody lives through the same days twice, once in each arm, from the same state, with the same luck. No "
        "shop can do that; it is the truth that the test below is to find. The more the arms correlate, the more it "
        "saves. The last column is a third arm, the shop's own ranker.",
    )


def _test(document: Mapping[str, Any]) -> Section:
    rows = [
        (scope, NAMES[metric], *_cells(test_row(metric, found), found))
        for scope, metric, found in lifts(document, "test")
    ]
    split = document["sample_ratio"]
    sound = "as even as chance has it" if split["sound"] else "more uneven than chance has it: trust nothing here"
    note = (
        f"{split['a']} users see A and {split['b']} see B, by a salted hash; {split['share']:.0%} were to see B. "
        f"That is {sound} (chi-square p = {split['p_value']:.3g}). {_GREY}"
    )
    splits = [
        (scope, NAMES[metric], *(share(found[name]) for name in ("power", "coverage")))
        for scope, metric, found in lifts(document, "splits")
    ]
    table = html.table(["scenario", "figure", *_columns(TEST)], rows, names=2, main=4)
    columns = ["scenario", "figure", "significant", "interval holds the twins' lift"]
    return Section(
        "What a test sees",
        html.card(table, "One split of the users", note=note)
        + html.card(
            html.table(columns, splits, names=2),
            "A thousand splits of the same users",
            note="Coverage may exceed the level: intervals are for users drawn anew, and these are always the same.",
        ),
        "Each user counts in one arm only. Power is for the lift seen; the least effect is found with a power of 80%.",
    )


def _peeking(document: Mapping[str, Any]) -> Section:
    plots = [
        html.card(_by_day(found), f"{scope}, {NAMES[metric]}", _stop(found))
        for scope, metric, found in lifts(document, "days")
        if metric in _HEADLINE
    ]
    names = ("false_at_end", "false_any_day", "false_any_day_valid")
    rows = [
        (scope, NAMES[metric], *(share(found[name]) for name in names))
        for scope, metric, found in lifts(document, "splits")
        if metric in _HEADLINE
    ]
    columns = ["scenario", "figure", "at the end", "any day, fixed", "any day, sequential"]
    return Section(
        "Looking every day",
        html.grid(plots, least=320)
        + html.card(
            html.table(columns, rows, names=2),
            "A against A, a thousand splits",
            note="How often two halves that see the same model are told apart, which should be 5 % at the most.",
        ),
        "The test at the end of each day. Dark: the fixed interval, which holds for one look. Light: the sequential "
        "one, which holds for all looks together, so that one may stop when it leaves 0. The axis is "
        "logarithmic in the ratio of the arms: doubling and halving are as far from 0.",
    )


def _by_day(found: Mapping[str, Any]) -> str:
    lifts = [(day, _ratio(lift)) for day, lift in enumerate(found["lift"], 1) if lift is not None]
    if not lifts:
        return html.paragraph("Not defined on any day: A has no such action.")
    bands = {
        name: [(day, *map(_ratio, interval)) for day, interval in enumerate(found[name], 1) if interval]
        for name in ("valid", "fixed")
    }

    def draw(canvas: Figure) -> None:
        axes = canvas.add_subplot()
        for name, alpha in (("valid", 0.18), ("fixed", 0.35)):
            if len(bands[name]) == 1:
                axes.vlines(*zip(*bands[name], strict=True), color=BLUE, alpha=alpha, lw=6)
            elif bands[name]:
                axes.fill_between(*zip(*bands[name], strict=True), color=BLUE, alpha=alpha, lw=0)
        axes.plot(*zip(*lifts, strict=True), "o-", color=ORANGE, markersize=3)
        axes.axhline(1, color=FAINT, linewidth=1, linestyle=(0, (3, 3)))
        axes.set(xlabel="day", ylabel="lift", xlim=(0.5, len(found["lift"]) + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _as_lifts(axes, [ratio for rows in (lifts, *bands.values()) for _, *ratios in rows for ratio in ratios])

    return svg(draw, 330, 220, "Lift by day with fixed and sequential intervals")


def _ratio(lift: float) -> float:
    """Of B over A, no further from 1 than `_MOST`."""
    return min(max(1 + lift, 1 / _MOST), _MOST)


def _as_lifts(axes: Axes, ratios: Sequence[float]) -> None:
    """Makes the y axis of ratios logarithmic, with room for all of them and 1, and lifts at its ticks."""
    low, high = min(*ratios, 0.99) / 1.02, max(*ratios, 1.01) * 1.02
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    ticks = MaxNLocator(5) if high < 4 * low else FixedLocator([each for each in _RATIOS if low <= each <= high])
    axes.yaxis.set_major_locator(ticks)
    axes.yaxis.set_minor_locator(NullLocator())
    digits = 1 if high < 1.1 * low else 0
    axes.yaxis.set_major_formatter(FuncFormatter(lambda ratio, _: _tick(ratio - 1, digits)))


def _tick(lift: float, digits: int) -> str:
    return "0%" if abs(lift) < 1e-9 else f"{lift:+,.{digits}%}".replace("-", "−")


def _stop(found: Mapping[str, Any]) -> str:
    return f"could stop on day {found['stops']}" if found["stops"] else "no day to stop"


def _off_policy(document: Mapping[str, Any]) -> Section:
    rows = []
    for row in document["off_policy"]:
        found, truth = row["estimates"], row["one_step"]
        rows.append(
            (
                f"{_arm(row['logging'])} → {_arm(row['target'])}",
                f"{row['scenario']}, {NAMES[row['task']]}",
                f"{row['replay']:.4f}",
                f"{truth:.4f}",
                *(_estimate(each, truth) for each in found.values()),
                f"{found['ips']['effective']:,.0f} of {row['impressions']:,}\nlargest {found['ips']['largest']:.0f}",
            )
        )
    columns = ["log → policy", "figure", "replay", "one step", *ESTIMATORS.values(), "effective"]
    return Section(
        "Without a test: off-policy estimates",
        html.card(
            html.table(columns, rows, names=2),
            "Actions per impression",
            note=f"± is half the {LEVEL} interval; ✗ misses the truth of one step. Clipped: no weight above {CLIP:g}. "
            "Effective: as many impressions of the policy's own would tell as much. Largest: the "
            "largest weight over the mean one.",
        ),
        "What a policy would bring, guessed from the log of another one. Replay is what it did bring. One step is the "
        "true worth of its slates in the situations of that log, all that such a guess can aim at: what its own slates "
        "would have led to is not in there. The shop's own ranker is “shop”.",
    )


def _arm(name: str) -> str:
    return name.upper() if name in (A, B) else name


def _estimate(found: Mapping[str, Any], truth: float) -> str:
    """The value with half its interval's width below it; a cross where the interval misses the truth."""
    value, _, half = estimate(found).partition(" ± ")
    return value + ("" if holds(found["interval"], truth) else " ✗") + (f"\n± {half}" if half else "")


def _making(document: Mapping[str, Any], command: str) -> Section:
    facts = [("A", document["a"]), ("B", document["b"]), ("logs", document["logs"]), ("salt", document["salt"])]
    facts += [(name, f"{value}") for name, value in document["settings"].items()]
    settings = html.table(["setting", "value"], facts, names=2, groups=False)
    return Section("How it was made", html.card(html.code(command), "Command") + html.card(settings, "Settings"))


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _correlation(value: float | None) -> str:
    return html.UNDEFINED if value is None else f"{value:.2f}"
