"""Plots in one style, as inline SVG that uses the colours of the page.

Draw with matplotlib in the colours named here. They come out as the page's CSS variables, so that a picture is right
in light, in dark and in print; text stays text. The same drawing gives the same bytes.
"""

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log10

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from usr_tf.evaluation.report.html import escape

INK, SOFT, FAINT, LINE, GRID, SURFACE = "#171b21", "#4a5361", "#646d7a", "#e1e5ea", "#ecf0f4", "#ffffff"
BLUE, ORANGE, GREEN, PURPLE, ROSE, OCHRE = "#2362c4", "#cc6510", "#1d8a5b", "#7a4fc0", "#c23a6c", "#8d7410"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, ROSE, OCHRE)
"""Colours of series, in the order in which they tell apart best. Give series a shape of their own too (`MARKERS`)."""
MARKERS = ("o", "s", "^", "D", "v", "P")
SIGNS = ("●", "■", "▲", "◆", "▼", "✚")
"""The same in text, for `html.legend`."""

_VARIABLES = {
    INK: "ink", SOFT: "soft", FAINT: "faint", LINE: "line", GRID: "grid", SURFACE: "surface",
    BLUE: "blue", ORANGE: "orange", GREEN: "green", PURPLE: "purple", ROSE: "rose", OCHRE: "ochre",
}  # fmt: skip
_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": LINE,
    "axes.grid": True,
    "axes.labelcolor": SOFT,
    "axes.labelsize": 11,
    "axes.linewidth": 1,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "grid.color": GRID,
    "grid.linewidth": 1,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.labelcolor": SOFT,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "svg.fonttype": "none",
    "svg.hashsalt": "usr_tf",
    "text.color": INK,
    "text.parse_math": False,  # a name may hold a dollar
    "xtick.color": LINE,
    "xtick.labelcolor": SOFT,
    "xtick.labelsize": 11,
    "xtick.major.pad": 6,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.color": LINE,
    "ytick.labelcolor": SOFT,
    "ytick.labelsize": 11,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}


def svg(draw: Callable[[Figure], None], width: float, height: float, label: str = "") -> str:
    """SVG element of what `draw` puts on an empty figure.

    It grows and shrinks with the room it has, from 0.78 to 1.1 of its size; in less room it scrolls sideways.

    Args:
      draw: gets a figure (not pyplot's: nothing to close) whose layout finds room for its texts.
      width, height: in CSS pixels; a font size of 11 is then 11 pixels.
      label: what it shows, for those who cannot see it.
    """
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)  # the reader's font has it
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return _embeddable(buffer.getvalue(), width, height, label)


def series_legend(names: Sequence[str]) -> list[tuple[str, str, str]]:
    """Items of `html.legend` for series in the order of `SERIES`."""
    return [(name, SIGNS[i % len(SIGNS)], _VARIABLES[SERIES[i % len(SERIES)]]) for i, name in enumerate(names)]


def shorten(name: str, length: int = 26) -> str:
    """Name shortened in the middle to fit beside a plot."""
    return name if len(name) <= length else f"{name[: length // 2]}…{name[-(length // 2 - 1) :]}"


@dataclass(frozen=True)
class Dot:
    """A row of `dot_plot`."""

    label: str
    value: float | None
    interval: Sequence[float] | None = None
    marks: Mapping[str, float | None] = field(default_factory=dict)
    """Other figures in the same row, by their names."""
    group: str = ""
    weak: bool = False
    """Whether it rests on too few rows; it is grey then."""


_MARK_STYLES = (
    {"marker": "D", "color": ORANGE},
    {"marker": "^", "color": GREEN},
    {"marker": "|", "color": FAINT, "markersize": 12, "markeredgewidth": 2.5},
    {"marker": "s", "color": PURPLE},
)


def dot_plot(
    dots: Sequence[Dot],
    xlabel: str,
    *,
    name: str = "model",
    reference: float | None = None,
    width: float = 480,
    label: str = "",
    span: tuple[float, float] | None = None,
) -> str:
    """SVG dot plot: one row per dot with interval and marks, and gaps between groups.

    Args:
      name: of the dots, in the legend, which is there when there are marks or weak dots.
      reference: where a dashed line stands, such as 0.5.
      span: of the axis, where several plots are to share it.
    """
    places, place = [], 0.0
    for index, dot in enumerate(dots):
        place += 0 if index == 0 else 1.6 if dot.group != dots[index - 1].group else 1
        places.append(place)
    names = list(dict.fromkeys(mark for dot in dots for mark, value in dot.marks.items() if value is not None))

    legend = bool(names) or any(dot.weak for dot in dots)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if reference is not None:
            axes.axvline(reference, color=FAINT, linewidth=1, linestyle=(0, (3, 3)))
        known = [(dot, y) for dot, y in zip(dots, places, strict=True) if dot.value is not None]
        for dot, y in known:
            if dot.interval is not None:
                colour = FAINT if dot.weak else BLUE
                axes.plot(dot.interval, [y, y], color=colour, linewidth=5, alpha=0.28, solid_capstyle="round")
        for mark, style in zip(names, _MARK_STYLES, strict=False):
            of_dots = zip((dot.marks.get(mark) for dot in dots), places, strict=True)
            shown = [(value, y) for value, y in of_dots if value is not None]
            axes.plot(*zip(*shown, strict=True), linestyle="none", label=mark, **style)
        for colour, weak in ((BLUE, False), (FAINT, True)):
            shown = [(dot.value, y) for dot, y in known if dot.weak == weak]
            if shown:
                called = f"{name}, few cases" if weak else name
                axes.plot(*zip(*shown, strict=True), "o", color=colour, markersize=7, label=called)
        axes.set(ylim=(places[-1] + 0.6, -0.6), xlabel=xlabel, yticks=places)
        axes.set_yticklabels([shorten(dot.label, 34) for dot in dots])
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.06)
        if span:
            axes.set_xlim(span)
        if legend:
            columns = len(names) + len({dot.weak for dot, _ in known})
            figure.legend(loc="outside upper left", ncols=columns, columnspacing=1.2, handletextpad=0.3)

    return svg(draw, width, 44 + 24 * (places[-1] + 1 if places else 1) + 26 * legend, label)


def plain_log(axes: Axes, *names: str) -> None:
    """Makes the axes `x` and/or `y` logarithmic, with plain numbers. Call it once their limits are known."""
    for name in names:
        axes.set(**{f"{name}scale": "log"})
        low, high = getattr(axes, f"get_{name}lim")()
        axis = getattr(axes, f"{name}axis")
        subs = (1, 2, 5) if high < 30 * low else (1, 3) if high < 300 * low else (1,)
        axis.set_major_locator(LogLocator(subs=subs, numticks=7))
        axis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:g}" if value > 9e-4 else f"1e{log10(value):.0f}")
        )
        axis.set_minor_locator(NullLocator())


def _embeddable(text: str, width: float, height: float, label: str) -> str:
    """matplotlib's SVG file as an inline element with unique ids and no external addresses."""
    body = text[text.index("<g id=") : text.rindex("</svg>")]
    key = "p" + hashlib.sha1(f"{label}{body}".encode(), usedforsecurity=False).hexdigest()[:7]
    referenced = set(re.findall(r'(?:url\(|xlink:href=")#([\w.-]+)', body))

    def rename(match: re.Match[str]) -> str:
        return f' id="{key}{match[1]}"' if match[1] in referenced else ""

    def embeddable(tag: re.Match[str]) -> str:
        text = re.sub(r' id="([^"]*)"', rename, tag[0])
        text = re.sub(r'(url\(|xlink:href=")#', lambda match: f"{match[1].removeprefix('xlink:')}#{key}", text)
        text = re.sub(r'font-family: [^;"]*(?:; )?| transform="rotate\(-?0 [^"]*\)"', "", text)
        text = re.sub(r' (?:d|x|y|transform)="[^"]*"', _rounded, text)
        return re.sub(r"#[0-9a-f]{6}\b", lambda match: _colour(match[0]), text)

    body = re.sub(r"<[^>]*>", embeddable, body)  # what stands between tags is the user's
    body = re.sub(r">\s+<", "><", body).replace("<g></g>", "").strip()
    return (
        f'<div class="plot"><svg viewBox="0 0 {width:g} {height:g}" style="--width:{width:g}" role="img" '
        f'aria-label="{escape(label)}">{body}</svg></div>'
    )


def _rounded(attribute: re.Match[str]) -> str:
    """Coordinates to a hundredth of a pixel."""
    return re.sub(r"\s*\n", " ", re.sub(r"(\d+\.\d{2})\d+", r"\1", attribute[0]))


def _colour(value: str) -> str:
    return f"var(--{_VARIABLES[value]})" if value in _VARIABLES else value
