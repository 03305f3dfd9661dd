"""HTML page of an off-policy evaluation, `off_policy.html`."""

from collections.abc import Mapping
from typing import Any

from usr_tf.evaluation.report import html
from usr_tf.evaluation.report.html import Section
from usr_tf.evaluation.report.plots import Dot, dot_plot
from usr_tf.evaluation.report.task_results import FEW
from usr_tf.experiments.off_policy.estimators import LEAST
from usr_tf.experiments.off_policy.off_policy_text import (
    COLUMNS,
    NAMES,
    PERCENT,
    estimate_rows,
    interval,
    pair,
    rate,
    refusals,
    verdict,
)

_MEANING = (
    (
        "measured",
        "clicks per impression of the policy's own log, with its Wilson interval: what the others try to find",
    ),
    ("effective", "effective sample size (Σ w)² / Σ w²: impressions of the policy's own that would tell as much"),
    ("clicks", "effective sample size times the log's click rate"),
    ("largest", "the largest weight: the policy's probability of the displayed item over the log's"),
    (
        "clip, kept",
        "limit of the weights, chosen by the data, and share of the policy's probability that they stand for",
    ),
    (
        "refused",
        f"below {LEAST:.1f} effective clicks, or one more click at the largest weight would outweigh the estimate, or "
        "the weights stand for less than half of the policy's probability",
    ),
    ("weak", f"below {FEW} effective clicks, or an interval wider than ± 100 %"),
    ("agrees, differs", "whether the difference to the measured rate is within the two intervals"),
    ("IPS, SNIPS", "weighted clicks over impressions, and over the sum of the weights"),
    ("DM", "a model of the clicks alone; its error is not known, so it has no interval"),
    ("DR", "that model, corrected by the weighted difference to the clicks"),
)
_UNRELIABLE = ("refused", "weak", "no interval")
"""Beginnings of the verdicts whose figures are grey."""


def page(document: Mapping[str, Any], command: str) -> str:
    """HTML page of the document of `off_policy.json`.

    Args:
      command: that makes it again.
    """
    policies = list(dict.fromkeys(row["policy"] for row in document["policies"]))
    impressions = sum(row["impressions"] for row in document["policies"])
    lead = (
        f"Logs of {', '.join(policies)}: {impressions:,} impressions with the probability of each item at its position."
    )
    scenarios = list(dict.fromkeys(row["scenario"] for row in document["policies"]))
    sections = [_scenario(document, scenario) for scenario in scenarios]
    sections += [_words(), _making(document, command)]
    return html.page("Policies from each other's logs", lead, sections, _verdict(document), "Off-policy evaluation")


def _verdict(document: Mapping[str, Any]) -> str:
    found = [
        each for row in document["estimates"] for each in row["estimates"].values() if each["interval"] is not None
    ]
    refused = sum(bool(each["refusal"]) for each in found)
    weak = sum(each["weak"] for each in found)
    known = [each["agrees"] for each in found if each["agrees"] is not None]
    sentence = f"The data cannot carry {refused} of {len(found)} estimates; {weak} of the others are weak."
    if known:
        sentence += f" Of the {len(known)} with a measured rate, {sum(known)} agree with it."
    tiles = [
        html.tile(
            f"{row['scenario']}, {row['policy']}",
            f"{rate(row['rate'])} %",
            (f"95 %: {interval(row['interval'])}", f"{row['clicks']:,} clicks of {row['impressions']:,}"),
            weak=row["clicks"] < FEW,
        )
        for row in document["policies"]
    ]
    return html.paragraph(sentence, "verdict") + html.grid(tiles, least=180)


def _scenario(document: Mapping[str, Any], scenario: str) -> Section:
    rows = [row for row in document["estimates"] if row["scenario"] == scenario]
    cards = []
    for row in rows:
        cells = [
            [html.weak(cell) for cell in cells] if cells[-1].startswith(_UNRELIABLE) else list(cells)
            for cells in estimate_rows(row)
        ]
        table = html.table(list(COLUMNS), cells, main=1)
        sentences = "".join(html.paragraph(sentence) for sentence in refusals(row))
        cards.append(
            html.card(
                table + sentences,
                f"{row['target']} from the log of {row['logging']}",
                note=f"Probabilities of {row['target']}: {row['origin']}. {row['clicks']} clicks in the log.",
            )
        )
    dots = [
        Dot(
            f"{row['logging']} → {row['target']}, {NAMES[name]}",
            PERCENT * found["value"],
            [PERCENT * end for end in found["interval"]] if found["interval"] else None,
            {"measured": PERCENT * row["truth"]["rate"]} if row["truth"] else {},
            pair(row),
            verdict(found).startswith(_UNRELIABLE),
        )
        for row in rows
        for name, found in row["estimates"].items()
        if not found["refusal"]
    ]
    picture = ""
    if dots:
        drawn = dot_plot(dots, "clicks per impression, %", name="estimate", width=560, label=f"Estimates, {scenario}")
        picture = html.card(drawn, "Estimates that are not refused", note="Bands are 95 % intervals.")
    return Section(scenario, picture + "".join(cards))


def _words() -> Section:
    return Section("Words", html.card(html.definitions(_MEANING)))


def _making(document: Mapping[str, Any], command: str) -> Section:
    facts = [("logs", document["logs"]), *document["models"].items()]
    facts += [(name, f"{value}") for name, value in document["settings"].items()]
    settings = html.table(["setting", "value"], facts, names=2, groups=False)
    return Section("How it was made", html.card(html.code(command), "Command") + html.card(settings, "Settings"))
