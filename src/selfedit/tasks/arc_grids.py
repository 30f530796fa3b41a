"""Grids of colours, and their form as text (ARC, arXiv 1911.01547).

A grid is a tuple of rows and a row is `bytes`, one colour 0 to 9 in each: an immutable value that can be a key, whose
rows can be turned round, recoloured and compared without a loop over the cells. Its text is the one of the paper, rows
as lists of digits:

    [[0 0 7]
     [3 0 0]]

A model's answer is read with any spaces or commas between the digits and whatever stands around the grid; what is in
the grid is not forgiven: a ragged row, a colour above 9, a side above 30.

    parse_grid(write_grid(grid)) == grid
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from selfedit.errors import InputError

Grid = tuple[bytes, ...]

LARGEST = 30  # cells a side

_GRID = re.compile(r"\[\s*(\[[^\[\]]*\](?:[\s,]*\[[^\[\]]*\])*)[\s,]*\]")
_ROW = re.compile(r"\[([^\[\]]*)\]")
_DIGITS = bytes.maketrans(bytes(range(10)), b"0123456789")
_COLOURS = bytes.maketrans(b"0123456789", bytes(range(10)))


class Pair(NamedTuple):
    """An input and the output that the rule makes of it."""

    input: Grid
    output: Grid


def to_grid(rows: Iterable[Iterable[int]]) -> Grid:
    """Make a grid of rows of colours. Raises `InputError` for what is none: see `check_grid`."""
    try:
        return check_grid(tuple(bytes(list(row)) for row in rows))  # bytes(3) would be three zeros
    except (TypeError, ValueError) as error:
        raise InputError("a row of the grid is no list of colours 0 to 9") from error


def check_grid(grid: Grid) -> Grid:
    """Return the grid. Raises `InputError` where it is empty, ragged or too large, or holds what is no colour."""
    widths = [len(row) for row in grid]
    if not widths or not widths[0]:
        raise InputError("the grid is empty")
    if len(set(widths)) > 1:
        odd = next(i for i, width in enumerate(widths) if width != widths[0])
        raise InputError(f"the grid is ragged: row 1 has {widths[0]} cells and row {odd + 1} has {widths[odd]}")
    if max(len(widths), widths[0]) > LARGEST:
        raise InputError(f"the grid has {len(widths)} by {widths[0]} cells, more than {LARGEST} by {LARGEST}")
    worst = max(max(row) for row in grid)
    if worst > 9:
        raise InputError(f"the grid holds {worst}, which is no colour 0 to 9")
    return grid


def size_of(grid: Grid) -> tuple[int, int]:
    """Return height and width, in cells."""
    return len(grid), len(grid[0])


def write_grid(grid: Grid) -> str:
    """Word a grid as rows of digits in brackets."""
    rows = [" ".join(row.translate(_DIGITS).decode("ascii")) for row in grid]
    return "[[" + "]\n [".join(rows) + "]]"


def parse_grid(text: str) -> Grid:
    """Read the first grid in a text. Raises `InputError` where there is none, or it is not a whole one of colours."""
    found = _GRID.search(text)
    if not found:
        what = "has no end" if re.search(r"\[\s*\[", text) else "is missing: no rows in brackets, as in [[0 1] [2 3]]"
        raise InputError(f"the grid {what}")
    return check_grid(tuple(_colours(row) for row in _ROW.findall(found[1])))


def _colours(row: str) -> bytes:
    cells = row.replace(",", " ").split()
    wrong = next((cell for cell in cells if len(cell) > 1 or cell not in "0123456789"), None)
    if wrong is not None:
        raise InputError(f"the grid holds {wrong[:20]!r}, which is no colour 0 to 9")
    return "".join(cells).encode("ascii").translate(_COLOURS)


def turn(grid: Grid, quarters: int) -> Grid:
    """Turn a grid anticlockwise by quarter turns."""
    for _ in range(quarters % 4):
        grid = transpose(grid)[::-1]
    return grid


def transpose(grid: Grid) -> Grid:
    """Make columns of rows."""
    return tuple(map(bytes, zip(*grid, strict=True)))


def flip(grid: Grid, axis: int) -> Grid:
    """Mirror a grid: axis 0 reverses the order of the rows, axis 1 that of the columns."""
    return grid[::-1] if axis == 0 else tuple(row[::-1] for row in grid)


def enlarge(grid: Grid, height: int, width: int) -> Grid:
    """Make every cell `height` cells high and `width` wide."""
    return tuple(wide for row in grid for wide in [_widen(row, width)] * height)


def _widen(row: bytes, width: int) -> bytes:
    wide = bytearray(len(row) * width)
    for place in range(width):
        wide[place::width] = row
    return bytes(wide)


def tile(grid: Grid, down: int, across: int) -> Grid:
    """Lay copies of a grid below and beside each other."""
    return tuple(row * across for row in grid) * down


def shift(grid: Grid, down: int, right: int) -> Grid:
    """Move a grid; what leaves it on one side comes in on the other."""
    height, width = size_of(grid)
    down, right = down % height, right % width
    rows = grid[height - down :] + grid[: height - down]
    return tuple(row[width - right :] + row[: width - right] for row in rows)


def recolour(grid: Grid, table: bytes) -> Grid:
    """Put colour `table[c]` in place of every colour c; `table` has 256 entries, as `bytes.translate` takes it."""
    return tuple(row.translate(table) for row in grid)


def colours_of(grids: Iterable[Grid]) -> set[int]:
    """Return all colours in some grids."""
    return set(b"".join(row for grid in grids for row in grid))


def rows_of(grid: Sequence[bytes]) -> list[list[int]]:
    """Return a grid as JSON knows it."""
    return [list(row) for row in grid]
