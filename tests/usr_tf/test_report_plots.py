"""Inline SVG plots in the colours of the page."""

import re
import xml.etree.ElementTree as ElementTree
from importlib import resources

from matplotlib import pyplot

from usr_tf.evaluation.report import plots
from usr_tf.evaluation.report.plots import Dot, dot_plot, plain_log, shorten, svg

NAME = 'a <b> & "c" $x$ #2362c4 id="x" 店'


def _line(figure):
    axes = figure.add_subplot()
    axes.plot([1, 2, 1000], [1, 2, 3], "o-", color=plots.BLUE, label=NAME)
    axes.legend()
    plain_log(axes, "x")


def test_a_picture_is_whole_and_says_what_it_shows():
    text = svg(_line, 300, 200, NAME)
    (root,) = ElementTree.fromstring(text)
    assert root.attrib["viewBox"] == "0 0 300 200"
    assert root.attrib["aria-label"] == NAME
    assert NAME in [node.text for node in root.iter("text")]  # text stays text, whatever it holds
    assert pyplot.get_fignums() == []


def test_colours_are_the_pages_in_light_and_in_dark():
    text = re.sub(r">[^<]*<", "><", svg(_line, 300, 200))
    assert "var(--blue)" in text
    assert not re.search(r"#[0-9a-f]{6}", text)
    css = resources.files("usr_tf.evaluation.report").joinpath("page.css").read_text(encoding="utf-8")
    light, dark = css.split("prefers-color-scheme: dark")
    for colour, name in plots._VARIABLES.items():
        assert f"--{name}: {colour}" in light  # what is drawn is what a light page shows
        assert f"--{name}: #" in dark
    assert "@media screen and (" in light  # paper is light


def test_the_same_drawing_gives_the_same_bytes_and_ids_of_its_own():
    assert svg(_line, 300, 200) == svg(_line, 300, 200)
    texts = [svg(_line, width, 200) for width in (300, 310)]
    first, second = (
        [node.get("id") for node in ElementTree.fromstring(text).iter() if node.get("id")] for text in texts
    )
    assert first
    assert not set(first) & set(second)
    assert len(set(first)) == len(first)
    assert set(re.findall(r'(?:url\(|href=")#(\w+)', texts[0])) == set(first)


def test_nothing_is_fetched():
    assert not re.search(r"https?:|url\((?!#)", svg(_line, 300, 200))


def test_a_dot_plot_has_a_row_for_each_figure_and_skips_what_is_undefined():
    dots = [
        Dot("first", 0.6, (0.5, 0.7), {"oracle": 0.9, "position": None}, "a"),
        Dot("second", None, None, {"oracle": 0.8}, "a"),
        Dot("third", 0.7, None, {}, "b"),
    ]
    texts = [node.text for node in ElementTree.fromstring(dot_plot(dots, "AUC")).iter("text")]
    assert {"first", "second", "third", "oracle", "model", "AUC"} <= set(texts)
    assert "position" not in texts


def test_a_mark_at_zero_is_drawn():
    label = dot_plot([Dot("only", 0.5, None, {"baseline": 0.0})], "lift", span=(-1, 1))
    without = dot_plot([Dot("only", 0.5, None, {"baseline": 5.0})], "lift", span=(-1, 1))
    uses = [text.count("<use ") for text in (label, without)]
    assert uses[0] == uses[1] > 0


def test_a_long_name_keeps_both_ends():
    assert shorten("a name that fits") == "a name that fits"
    short = shorten("a_name_that_is_much_too_long_for_a_plot · ctr")
    assert len(short) == 26
    assert short.startswith("a_name")
    assert short.endswith("· ctr")
