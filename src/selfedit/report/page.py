"""What every page of a report is made of: its frame and style, words for numbers, tables, pictures.

A page is one file that loads nothing: no script, no font, no address. It opens from a mail attachment, in ten years, on
a phone, in light and in dark. Numbers come in as probabilities in [0, 1]; percent and points exist in the words only.

    document("A title", section("Accuracy", html_table(("arm", "%"), [["base", percent(0.327)]])))
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from html import escape

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"

# Words


def percent(probability: float | None) -> str:
    """Word a probability in %, with one decimal."""
    return NONE if probability is None else f"{probability * 100:.1f}"


def points(difference: float | None) -> str:
    """Word a difference of probabilities in points, with its sign."""
    if difference is None:
        return NONE
    rounded = round(difference * 100, 1)
    return f"{rounded:+.1f}".replace("-", MINUS) if rounded else "0.0"


def span(bounds: tuple[float, float] | None, word: Callable[[float | None], str]) -> str:
    """Word an interval, each bound by `word`."""
    return NONE if bounds is None else f"{word(bounds[0])} to {word(bounds[1])}"


def prose(text: str) -> str:
    """Escape a sentence of ours, and keep "95 %" and "round-2" from breaking over two lines."""
    return re.sub(r"(?<=\w)-(?=\w)", "&#8209;", escape(text).replace(" %", "&nbsp;%"))


# Tables


def rich_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Lay out a table for the terminal; the first column is text, the others are numbers."""
    table = Table(title=Text(title), title_justify="left")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def html_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table for the page; everything in it is escaped."""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    return raw_table(head, [[escape(cell) for cell in row] for row in rows])


def raw_table(head: str, rows: Iterable[Sequence[str]]) -> str:
    """Lay out cells that are HTML already; the first of a row is its heading."""
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>\n' for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


# The page


def section(heading: str, body: str) -> str:
    """Put HTML under a heading of the page."""
    return f"<section><h2>{heading}</h2>{body}</section>"


def document(title: str, body: str) -> str:
    """Return the whole page around `body`, which is HTML."""
    return _PAGE.format(title=escape(title), style=_STYLE, body=body)


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
_STYLE = """
:root{color-scheme:light dark;
--page:#fffefb;--ink:#1d1c1a;--quiet:#6a675f;--line:#e3dfd6;--soft:#f5f2ea;--accent:#1b5cc0}
@media(prefers-color-scheme:dark){
:root{--page:#16171b;--ink:#e9e7e2;--quiet:#a5a29b;--line:#34363d;--soft:#1e2026;--accent:#83b3ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:1.0625rem/1.55 Charter,Georgia,"DejaVu Serif",serif}
main{max-width:44rem;margin:auto;padding:2.5rem 1.25rem 4rem}
.meta,h2,h4,table,svg text,figcaption,summary,section p{
font-family:system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif!important}
.meta{margin:0;color:var(--quiet);font-size:.875rem}
h1{margin:.4rem 0 .8rem;font-size:clamp(1.5rem,5.2vw,2.125rem);line-height:1.2;font-weight:600;text-wrap:balance}
.lead{margin:0;font-size:1.125rem;text-wrap:pretty}
figure{margin:2rem 0}
svg{display:block;width:100%;max-width:36rem;height:auto;margin:auto}
figcaption,section p{color:var(--quiet);font-size:.875rem;line-height:1.5;margin:.75rem 0 0}
section{margin-top:2.75rem}
h2{margin:0 0 .6rem;font-size:1.0625rem;font-weight:650}
h3{margin:1.5rem 0 .5rem;font-size:1.0625rem}
h4{margin:0 0 .35rem;font-size:.8125rem;font-weight:600;color:var(--quiet)}
.scroll{overflow-x:auto}
@media(min-width:46rem){.scroll{width:max-content;min-width:100%;max-width:calc(100% + (100vw - 47rem)/2)}}
table{border-collapse:collapse;width:100%;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{padding:.4rem 0 .4rem .9rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
th:first-child{padding-left:0;text-align:left}
th{font-weight:400}
thead th{color:var(--quiet);border-bottom-color:var(--quiet);vertical-align:bottom}
small{display:block;color:var(--quiet)}
summary{margin:1rem 0 .4rem;cursor:pointer;font-weight:600}
blockquote{margin:0 0 1rem;padding-left:1rem;border-left:3px solid var(--line)}
.pair{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,17rem),1fr))}
.edit{max-height:30rem;overflow:auto;padding:.75rem .9rem;background:var(--soft);border-radius:.4rem;
font-size:.9375rem;line-height:1.5;white-space:pre-wrap;overflow-wrap:anywhere}
@media(max-width:34rem){
main{padding:1.5rem 1rem 3rem}table{font-size:.75rem}th,td{padding-left:.3rem}th{white-space:normal}}
"""

# Pictures

# matplotlib draws in these colours; the page's style sheet, which knows light from dark, puts its own in their place.
INK, QUIET, ACCENT, LINE, PAPER = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {INK: "--ink", QUIET: "--quiet", ACCENT: "--accent", LINE: "--line", PAPER: "--page"}


def picture(draw: Callable[[Axes], None], inches: tuple[float, float], alternative: str) -> str:
    """Draw an SVG element of the page, the same bytes for the same drawing; `alternative` tells it in words."""
    with matplotlib.rc_context({"svg.hashsalt": "selfedit", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=inches, layout="constrained")
        figure.patch.set_visible(False)
        draw(figure.add_subplot())
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return _inline(drawn.getvalue(), alternative)


def _inline(svg: str, alternative: str) -> str:
    """Make matplotlib's document an element of the page: no metadata, no namespaces, the page's colours and width."""
    body = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</defs>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', body)
    assert box is not None
    for drawn, variable in _VARIABLES.items():
        body = body.replace(drawn, f"var({variable})")
    return f'<svg {box[0]} role="img" aria-label="{escape(alternative)}">{body[body.index(">") + 1 :]}'
