"""HTML page of an A/B test, `abtest.html`."""

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from usr_tf.evaluation.report import html
from usr_tf.evaluation.report.html import Section
from usr_tf.evaluation.report.plots import BLUE, FAINT, ORANGE, Dot, dot_plot, svg
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
    share,
    test_row,
    twins_row,
)

_HEADLINE = ("uctr", "ucvr")
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
    lead = (
        f"{document['users']:,} people of the simulated shop, {settings['days']} days, {asked:,} requests in each arm. "
        f"Slates by {settings['by']}."
    )
    found = [_twins(document), _test(document), _peeking(document), _off_policy(document)]
    return html.page("B against A", lead, [*found, _making(document, command)], _verdict(document), "A/B test")


def _verdict(document: Mapping[str, Any]) -> str:
    found = [(scope, metric, twin) for scope, metric, twin in lifts(document, "twins") if metric in _HEADLINE]
    wins = sum(_mood(twin) == "good" for scope, _, twin in found if scope != ALL)
    total = sum(scope != ALL for scope, *_ in found)
    sentence = f"B lifts {wins} of {total} figures, UCTR and UCVR of each scenario, beyond chance."
    tiles = [
        html.tile(
            f"{scope}, {NAMES[metric]}",
            change(twin["lift"]),
            (f"{LEVEL}: {changes(twin['interval'])}", f"A test: {change(document['test'][scope][metric]['lift'])}"),
            html.chip({"good": "better", "level": "not told apart", "bad": "worse"}[_mood(twin)], _mood(twin)),
        )
        for scope, metric, twin in found
    ]
    return html.paragraph(sentence, "verdict") + html.grid(tiles, least=220)


def _mood(found: Mapping[str, Any]) -> str:
    interval = found["interval"]
    if interval is None or interval[0] <= 0 <= interval[1]:
        return "level"
    return "good" if interval[0] > 0 else "bad"


def _twins(document: Mapping[str, Any]) -> Section:
    dots = [
        Dot(
            f"{scope}, {NAMES[metric]}",
            100 * found["lift"],
            [100 * end for end in found["interval"]] if found["interval"] else None,
            {"test": _percent(document["test"][scope][metric]["lift"])},
            scope,
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
            *twins_row(metric, found),
            _correlation(found["correlation"]),
            figure(metric, document["figures"][scope][metric]["shop"]),
        )
        for scope, metric, found in lifts(document, "twins")
    ]
    table = html.table(["scenario", "figure", *TWINS, "correlation", "the shop's own"], rows, names=2, main=4)
    return Section(
        "What B does: twins",
        html.card(
            picture + table, "Lift of B over A", note=f"Bands are {LEVEL} intervals, by the spread between users."
        )
        + html.definitions(_MEANING),
        "Everybody lives through the same days twice, once in each arm, from the same state, with the same luck. No "
        "shop can do that; it is the truth that the test below is to find. The more the arms correlate, the more it "
        "saves. The last column is a third arm, the shop's own ranker.",
    )


def _test(document: Mapping[str, Any]) -> Section:
    rows = [(scope, NAMES[metric], *test_row(metric, found)) for scope, metric, found in lifts(document, "test")]
    split = document["sample_ratio"]
    sound = "as even as chance has it" if split["sound"] else "more uneven than chance has it: trust nothing here"
    note = (
        f"{split['a']} users see A and {split['b']} see B, by a salted hash; {split['share']:.0%} were to see B. "
        f"That is {sound} (chi-square p = {split['p_value']:.3g})."
    )
    splits = [
        (scope, NAMES[metric], *(share(found[name]) for name in ("power", "coverage")))
        for scope, metric, found in lifts(document, "splits")
    ]
    columns = ["scenario", "figure", "significant", "interval holds the twins' lift"]
    return Section(
        "What a test sees",
        html.card(html.table(["scenario", "figure", *TEST], rows, names=2, main=4), "One split of the users", note=note)
        + html.card(
            html.table(columns, splits, names=2),
            "A thousand splits of the same users",
            note="Coverage may exceed the level: intervals are for users drawn anew, and these are always the same.",
        ),
        "Each user counts in one arm only. Power is for the lift seen; the least effect is found with 80 %.",
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
        html.grid(plots)
        + html.card(
            html.table(columns, rows, names=2),
            "A against A, a thousand splits",
            note="How often two halves that see the same model are told apart, which should be 5 % at the most.",
        ),
        "The test at the end of each day. Dark: the fixed interval, which holds for one look. Light: the sequential "
        "one, which holds for all looks together, so that one may stop when it leaves 0.",
    )


def _by_day(found: Mapping[str, Any]) -> str:
    def draw(canvas: Figure) -> None:
        axes = canvas.add_subplot()
        for name, alpha in (("valid", 0.18), ("fixed", 0.35)):
            known = [(day, *interval) for day, interval in enumerate(found[name], 1) if interval]
            if known:
                days, low, high = zip(*known, strict=True)
                axes.fill_between(days, [100 * x for x in low], [100 * x for x in high], color=BLUE, alpha=alpha, lw=0)
        lifts = [math.nan if lift is None else 100 * lift for lift in found["lift"]]
        axes.plot(range(1, len(lifts) + 1), lifts, "o-", color=ORANGE, markersize=3)
        axes.axhline(0, color=FAINT, linewidth=1, linestyle=(0, (3, 3)))
        last = [interval for interval in (found["valid"][-1], found["fixed"][-1]) if interval]
        reach = 250 * max((abs(end) for interval in last for end in interval), default=1)
        axes.set(xlabel="day", ylabel="lift, %", ylim=(-reach, reach))

    return svg(draw, 330, 220, "Lift by day with fixed and sequential intervals")


def _stop(found: Mapping[str, Any]) -> str:
    return f"could stop on day {found['stops']}" if found["stops"] else "no day to stop"


def _off_policy(document: Mapping[str, Any]) -> Section:
    rows = []
    for row in document["off_policy"]:
        found, truth = row["estimates"], row["one_step"]
        rows.append(
            (
                f"{row['logging']} → {row['target']}",
                f"{row['scenario']}, {NAMES[row['task']]}",
                f"{row['replay']:.4f}",
                f"{truth:.4f}",
                *(estimate(each) + ("" if holds(each["interval"], truth) else " ✗") for each in found.values()),
                f"{found['ips']['effective']:,.0f} of {row['impressions']:,}",
                f"{found['ips']['largest']:.0f}",
            )
        )
    columns = ["log → policy", "figure", "replay", "one step", *ESTIMATORS.values(), "effective", "largest weight"]
    return Section(
        "Without a test: off-policy estimates",
        html.card(
            html.table(columns, rows, names=2),
            "Actions per impression",
            note=f"± is half the {LEVEL} interval; ✗ misses the truth of one step. Clipped: no weight above {CLIP:g}. "
            "Effective: as many impressions of the policy's own would tell as much. Largest: over the mean weight.",
        ),
        "What a policy would bring, guessed from the log of another one. Replay is what it did bring. One step is the "
        "true worth of its slates in the situations of that log, all that such a guess can aim at: what its own slates "
        "would have led to is not in there. The shop's own ranker is “shop”.",
    )


def _making(document: Mapping[str, Any], command: str) -> Section:
    facts = [("A", document["a"]), ("B", document["b"]), ("logs", document["logs"]), ("salt", document["salt"])]
    facts += [(name, f"{value}") for name, value in document["settings"].items()]
    return Section("How it was made", html.code(command) + html.definitions(facts))


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _correlation(value: float | None) -> str:
    return html.UNDEFINED if value is None else f"{value:.2f}"
