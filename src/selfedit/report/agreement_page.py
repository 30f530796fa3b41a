"""How far exams agree, in the words and tables of a report (`report.agreement` computes it).

parts += agreement_html(report.agreements)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.table import Table

from selfedit.report.agreement import Agreement, Choice, Coefficient, Level
from selfedit.report.page import MINUS, NONE, html_table, percent, points, rich_table, section, span

_TITLE = "What self-edits gained, by one exam and by another"
_HEADINGS = ("gain by", "over", "n", "Pearson (95 %)", "Spearman (95 %)")
_CHOICE_TITLE = "The best edit of each passage, chosen by one exam and judged by another"
_WORDS = (
    "<p>Correlations of the gains of the first round's self-edits; the intervals resample passages. Kept: what the "
    "choice gains of what there is to gain by choosing, the best being the other exam's own choice, which flatters "
    "it.</p>"
)


def agreement_tables(found: Sequence[Agreement]) -> list[Table]:
    """Return the correlations and the choices as tables for the terminal; nothing where no exams were compared."""
    if not found:
        return []
    return [rich_table(_TITLE, _HEADINGS, _rows(found)), rich_table(_CHOICE_TITLE, *_choices(found))]


def agreement_html(found: Sequence[Agreement]) -> list[str]:
    """Return the same as a section of the page."""
    if not found:
        return []
    tables = html_table(_HEADINGS, _rows(found)) + html_table(*_choices(found))
    return [section("What the model's own exams are worth", tables + _WORDS)]


def _rows(found: Sequence[Agreement]) -> list[list[str]]:
    return [[f"{each.a}, {each.b}", *_level_cells(level)] for each in found for level in each.levels]


def _level_cells(level: Level) -> list[str]:
    return [level.name, f"{level.n:,}", *(_cell(found, _decimals) for found in (level.pearson, level.spearman))]


def _cell(found: Coefficient, word: Callable[[float | None], str]) -> str:
    return word(found.value) + (f" ({span(found.ci95, word)})" if found.ci95 else "")


def _decimals(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}".replace("-", MINUS)


def _choices(found: Sequence[Agreement]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: a column for each pair of exams."""
    chosen = {f"{each.a}, by {each.b}": each.choice for each in found if each.choice}
    rows = [[name, *(word(choice) for choice in chosen.values())] for name, word in _CHOICE_ROWS.items()]
    return ["chosen by", *chosen], rows


_CHOICE_ROWS: dict[str, Callable[[Choice], str]] = {
    "gain of the chosen, points": lambda choice: points(choice.chosen),
    "of all": lambda choice: points(choice.average),
    "of the best": lambda choice: points(choice.best),
    "kept of what there is, %": lambda choice: _cell(choice.kept, percent),
    "as good as the best, %": lambda choice: _cell(choice.as_good, percent),
    "by chance": lambda choice: percent(choice.by_chance),
    "passages": lambda choice: f"{choice.n:,}",
}
