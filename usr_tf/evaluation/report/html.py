"""HTML building blocks of self-contained pages: no script, no external resource.

Light and dark follow the reader's system, print is light. Functions take plain text and escape it. An argument called
`content` is HTML already, as these functions and `usr_tf.evaluation.report.plots.svg` return it.
"""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources

UNDEFINED = "–"
"""What stands where a figure is not defined."""


@dataclass(frozen=True)
class Section:
    """A part of a page, with a heading that the contents list links to."""

    title: str
    content: str
    lead: str = ""
    """A sentence or two below the heading."""


def page(title: str, lead: str, sections: Sequence[Section], content: str = "", kicker: str = "") -> str:
    """A whole page.

    Args:
      title: its heading.
      lead: a line below it.
      sections: in order; a list of contents links to each.
      content: what stands between the heading and the first section, such as the verdict.
      kicker: a few words above the heading: what kind of page it is.
    """
    anchors = _anchors(section.title for section in sections)
    links = "".join(
        f'<li><a href="#{anchor}">{escape(section.title)}</a></li>'
        for anchor, section in zip(anchors, sections, strict=True)
    )
    body = "\n".join(_section(anchor, section) for anchor, section in zip(anchors, sections, strict=True))
    above = f'<p class="kicker">{escape(kicker)}</p>' if kicker else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{_CSS}</style>
</head>
<body>
<nav aria-label="Contents"><ol>{links}</ol></nav>
<main>
<header>{above}<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p></header>
{content}
{body}
</main>
</body>
</html>
"""


def escape(value: object) -> str:
    """Text as HTML."""
    return html.escape(str(value))


def paragraph(text: str, kind: str = "note") -> str:
    """A paragraph; `kind` is `note` (small) or `verdict` (large)."""
    return f'<p class="{kind}">{escape(text)}</p>'


def heading(text: str, aside: str = "") -> str:
    """A heading within a section, with a few quieter words beside it."""
    return f"<h3>{escape(text)}{_aside(aside)}</h3>"


def card(content: str, title: str = "", aside: str = "", note: str = "") -> str:
    """A box with an optional title and a small note at its end. Print does not break it."""
    above = f"<h4>{escape(title)}{_aside(aside)}</h4>" if title else ""
    below = paragraph(note) if note else ""
    return f'<div class="card">{above}{content}{below}</div>'


def grid(contents: Iterable[str], least: int = 300) -> str:
    """Elements side by side, at least `least` pixels each, wrapped on a narrow screen."""
    return f'<div class="grid" style="--least:{least}px">{"".join(contents)}</div>'


def tile(
    label: str,
    value: str,
    notes: Iterable[str],
    content: str = "",
    beside: Iterable[tuple[str, str, str]] = (),
    weak: bool = False,
) -> str:
    """One large figure with its name above, small notes below, and `content` such as chips at the end.

    Args:
      beside: smaller figures below the notes: name, value and a note.
      weak: whether the figures rest on too few rows; they are grey then.
    """
    lines = "".join(f"<span>{escape(note)}</span>" for note in notes)
    smaller = "".join(
        f"<p><span>{escape(name)}</span><b>{escape(figure)}</b><small>{escape(note)}</small></p>"
        for name, figure, note in beside
    )
    smaller = smaller and f'<div class="beside">{smaller}</div>'
    return (
        f'<div class="card tile{" weak" if weak else ""}"><p class="label">{escape(label)}</p>'
        f'<p class="value">{escape(value)}</p><p class="notes">{lines}</p>{smaller}{content}</div>'
    )


def chip(text: str, mood: str = "level") -> str:
    """Short verdict; `mood` is `good`, `level`, `bad` or (no verdict) `mark`, with a sign as well as a colour."""
    return f'<span class="chip {mood}">{_SIGNS[mood]} {escape(text)}</span>'


def legend(items: Iterable[tuple[str, str, str]]) -> str:
    """Legend of the plots in a card: name, sign such as `●`, and the name of a page colour."""
    entries = (
        f'<span><b style="color:var(--{colour})">{sign}</b> {escape(name)}</span>' for name, sign, colour in items
    )
    return f'<p class="legend">{" ".join(entries)}</p>'


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    names: int = 1,
    main: int | None = None,
    groups: bool = True,
) -> str:
    """A table that scrolls sideways where it is too wide.

    Args:
      names: the first so many columns are names, set left; the rest are figures.
      rows: of plain text, what follows a line break set small below it, or of `heat`, `bar` and `weak`.
      main: the column that stands out.
      groups: whether, with several columns of names, rows of the same first name are a group that shows it once.
    """
    groups = groups and names > 1
    head = "".join(f"<th{_class(index < names and 'name')}>{escape(name)}</th>" for index, name in enumerate(columns))
    body, previous = [], None
    for row in rows:
        repeated = groups and row[0] == previous
        cells = []
        for index, value in enumerate(row):
            kinds = _class(
                index < names and "name",
                index < names and len(value.partition("\n")[0]) > _LONG and "long",
                index == main and "main",
                value == UNDEFINED and "none",
                isinstance(value, TableCell) and value.kind,
            )
            cells.append(f"<td{kinds}>{'' if repeated and not index else _in_cell(value)}</td>")
        body.append(f"<tr{_class(groups and not repeated and 'first')}>{''.join(cells)}</tr>")
        previous = row[0]
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


class TableCell(str):
    """Cell of a `table` with more than text."""

    content: str
    kind: str
    """Its CSS class; empty for none."""

    def __new__(cls, text: str, content: str, kind: str = "") -> "TableCell":
        cell = super().__new__(cls, text)
        cell.content, cell.kind = content, kind
        return cell


def weak(text: str) -> TableCell:
    """A figure in grey, even in the main column: it rests on too few rows to be relied on."""
    return TableCell(text, _in_cell(text), "weak")


def heat(text: str, value: float) -> TableCell:
    """Cell coloured by a value from -1 (orange) through 0 (none) to 1 (blue)."""
    share = min(abs(value), 1)
    return TableCell(
        text, f'<span class="heat{" low" if value < 0 else ""}" style="--share:{share:.0%}">{escape(text)}</span>'
    )


def bar(text: str, share: float) -> TableCell:
    """A cell with a bar as long as a share from 0 to 1."""
    return TableCell(text, f'<span class="bar" style="--share:{share:.0%}">{escape(text)}</span>')


def definitions(terms: Iterable[tuple[str, str]]) -> str:
    """Terms and what they mean."""
    return f"<dl>{''.join(f'<dt>{escape(term)}</dt><dd>{escape(text)}</dd>' for term, text in terms)}</dl>"


def code(text: str) -> str:
    """A command or a file, as it is."""
    return f"<pre><code>{escape(text)}</code></pre>"


def details(summary: str, content: str) -> str:
    """Collapsed block that the reader opens."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


_LONG = 32
"""A name of more characters than this is broken over several lines."""
_SIGNS = {"good": "▲", "level": "●", "bad": "▼", "mark": "┃"}


def _section(anchor: str, section: Section) -> str:
    lead = f'<p class="lead">{escape(section.lead)}</p>' if section.lead else ""
    return f'<section id="{anchor}"><h2>{escape(section.title)}</h2>{lead}{section.content}</section>'


def _anchors(titles: Iterable[str]) -> list[str]:
    """Distinct anchors for sections, even with equal titles."""
    return [f"{index}-{re.sub(r'[^a-z0-9]+', '-', title.lower())}" for index, title in enumerate(titles, start=1)]


def _in_cell(text: str) -> str:
    if isinstance(text, TableCell):
        return text.content
    first, *rest = text.split("\n")
    return escape(first) + "".join(f"<small>{escape(line)}</small>" for line in rest)


def _aside(text: str) -> str:
    return f" <span>{escape(text)}</span>" if text else ""


def _class(*names: str | bool) -> str:
    kept = " ".join(name for name in names if name)
    return f' class="{kept}"' if kept else ""


_CSS = resources.files("usr_tf.evaluation.report").joinpath("page.css").read_text(encoding="utf-8")
