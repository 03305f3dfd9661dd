import dataclasses
import io
import json

import pytest
from rich.console import Console

from usr_tf.evaluation.explain.explanation import Action, Explanation, TaskExplanation, difference
from usr_tf.evaluation.explain.explanation_page import write_page
from usr_tf.evaluation.explain.explanation_text import format_difference, format_explanation
from usr_tf.evaluation.explain.table_rows import (
    Row,
    age,
    balance,
    difference_headline,
    difference_rows,
    feature_rows,
    headline,
    history_rows,
    strongest,
)


def explanation(item: str, shift: float = 0.0) -> Explanation:
    """Log-odds −2 at the baseline and 0 here: 1.5 from the brand, −0.25 from the rest, 0.5 and 0.25 from actions."""
    action = Action(item="i7", about="tea · <b>", action="click", scenario="search", age_ms=7_200_000, attention=0.75)
    return Explanation(
        scenario="search",
        item=item,
        baseline="32 logged candidates of search",
        values={"brand": "[red]acme", "query": ""},
        gates={"brand": 1.25},
        history=(action, action),
        tasks={
            "ctr": TaskExplanation(
                probability=0.5,
                log_odds=0.0 + shift,
                baseline_log_odds=-2.0,
                features={"brand": 1.5 + shift, "query": -0.25},
                history=(0.5, 0.25),
                gates={"brand": -0.125},
            )
        },
        steps=64,
    )


def printed(renderable, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


def test_the_sum_is_told_with_what_it_leaves_over():
    task = explanation("i1").tasks["ctr"]
    assert task.difference == 2.0
    assert task.residual == 0.0
    assert task.baseline == pytest.approx(0.1192, abs=1e-4)
    told = "-2.0000 baseline +1.2500 features +0.7500 history +0.0000 left over = 0.0000"
    assert balance(explanation("i1"), "ctr") == told


def test_headlines_name_the_strongest_reasons():
    told = "i1: ctr 0.5000, odds × 7.39 against the baseline's 0.1192: brand +1.50, history +0.75, query -0.25"
    assert headline(explanation("i1"), "ctr") == told
    one, other = explanation("i1", 1.0), explanation("i2")
    told = "i1 above i2: ctr 0.5000 and 0.5000, odds × 2.72: brand +1.00, query +0.00, history +0.00"
    assert difference_headline(one, other, difference(one, other), "ctr") == told


def test_values_that_the_vocabulary_lacks_are_marked(tmp_path):
    known = explanation("i1")
    actions = [dataclasses.replace(known.history[0], unknown=unknown) for unknown in (("i7",), ("tea", "green"))]
    query = {"values": {"brand": "zzz", "query": "Green tea"}, "unknown": {"brand": ("zzz",), "query": ("green",)}}
    told = dataclasses.replace(known, history=tuple(actions), **query)
    brand, query, _ = feature_rows(told, "ctr")
    assert (brand.cells[1], query.cells[1]) == ("zzz (unknown)", "Green tea (unknown: green)")
    rows = history_rows(told.history, told.tasks)
    assert [row.cells[:2] for row in rows] == [
        ("i7 (unknown)", "tea · <b>"),
        ("i7", "tea · <b> (unknown: tea, green)"),
    ]
    assert [row.cells for row in difference_rows(known, told, difference(known, told))[:2]] == [
        ("brand", "[red]acme", "zzz (unknown)"),
        ("query", "–", "Green tea (unknown: green)"),
    ]
    write_page(tmp_path, [told], "ctr")
    assert "zzz (unknown)" in (tmp_path / "explanation.html").read_text(encoding="utf-8")
    (written,) = json.loads((tmp_path / "explanation.json").read_text(encoding="utf-8"))["explanations"]
    assert written["unknown"] == {"brand": ["zzz"], "query": ["green"]}
    assert [action["unknown"] for action in written["history"]] == [["i7"], ["tea", "green"]]


def test_rows_hold_values_gates_and_ages():
    brand, query, history = feature_rows(explanation("i1"), "ctr")
    assert brand == Row("brand", ("brand", "[red]acme"), {"ctr": 1.5}, ("1.25", "-0.125"))
    assert query == Row("query", ("query", "–"), {"ctr": -0.25}, ("", ""))
    assert history == Row("history", ("history", "2 actions"), {"ctr": 0.75}, ("", ""))
    row, _ = history_rows(explanation("i1").history, explanation("i1").tasks)
    assert row == Row("i7", ("i7", "tea · <b>", "click, search", "2 h"), {"ctr": 0.5}, ("75%",))


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0 min"), (150_000, "2 min"), (3_600_000, "1 h"), (86_400_000, "1 d"), (10**9, "12 d")],
)
def test_ages(milliseconds, text):
    assert age(milliseconds) == text


def test_the_weakest_rows_are_added_up():
    rows = [
        Row(name, (name, "value"), {"ctr": moved}) for name, moved in zip("abcd", (0.1, -3.0, 0.2, 1.0), strict=True)
    ]
    shown = strongest(rows, "ctr", 2)
    assert [row.name for row in shown] == ["b", "d", "2 others"]
    assert shown[-1].moved["ctr"] == pytest.approx(0.3)
    assert [row.name for row in strongest(rows, "ctr", 3)] == ["b", "d", "c", "a"]  # one alone stands for itself


def test_the_terminal_shows_text_as_it_is_and_bars_to_both_sides():
    text = printed(format_explanation(explanation("i1"), "ctr"))
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "[red]acme" in lines["brand"]
    assert "│████████" in lines["brand"]
    assert "█│" in lines["query"]
    assert "75%" in lines["i7"]
    apart = printed(
        format_difference(
            explanation("i1", 1.0), explanation("i2"), difference(explanation("i1", 1.0), explanation("i2")), "ctr"
        )
    )
    assert "+1.000" in apart


def test_the_page_is_self_contained_and_escapes_what_it_is_told(tmp_path):
    write_page(tmp_path / "new" / "folder", [explanation("<i>1</i>")], "ctr", command="usr-tf explain --run=x")
    page = (tmp_path / "new" / "folder" / "explanation.html").read_text(encoding="utf-8")
    assert "<h1>Why &lt;i&gt;1&lt;/i&gt;</h1>" in page
    assert "<b>" not in page
    assert "usr-tf explain --run=x" in page
    assert not any(word in page for word in ("http:", "https:", "<script", "src="))
