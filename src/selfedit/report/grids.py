"""Grids as pictures: a PNG for a report, coloured blocks for the terminal.

    write_png(Path("task.png"), [[Tile("input", shown), Tile("output", made)], [Tile("asked", grid), Tile("?", None)]])
    console.print(blocks([Tile("expected", gold), Tile("answered", parsed)]))

The ten colours differ in lightness, too, so that they are told apart in grey print and by the colour-blind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from rich.columns import Columns
from rich.console import Group
from rich.text import Text

COLOURS = (
    "#0b0b0f",
    "#1f5fc4",
    "#e0402f",
    "#2aa34a",
    "#f5d327",
    "#ababab",
    "#d446b0",
    "#f58a1f",
    "#83cdf2",
    "#7d2033",
)

_INCHES = 1.6  # a side of the largest grid
_NOTHING = "no grid"


@dataclass(frozen=True, slots=True)
class Tile:
    """A grid with a caption. None stands for an answer that was no grid."""

    caption: str
    grid: Sequence[Sequence[int]] | None


def write_png(path: Path, tiles: Sequence[Sequence[Tile]], title: str = "") -> Path:
    """Draw rows of grids and return the file. All cells have one size, so that what is larger looks larger."""
    width = max(len(row) for row in tiles)
    largest = max((_side(tile) for row in tiles for tile in row), default=1)
    figure = Figure(figsize=(_INCHES * width, (_INCHES + 0.25) * len(tiles) + 0.3), layout="constrained", dpi=150)
    figure.suptitle(title, fontsize=9)
    axes = figure.subplots(len(tiles), width, squeeze=False)
    for row, axes_of_row in zip(tiles, axes, strict=True):
        for place, axis in enumerate(axes_of_row):
            _draw(axis, row[place] if place < len(row) else None, largest)
    figure.savefig(path, format="png", metadata={"Software": None})
    return path


def blocks(tiles: Sequence[Tile]) -> Columns:
    """Lay grids side by side for a terminal, two columns of characters a cell."""
    return Columns([_block(tile) for tile in tiles], padding=(0, 2))


def _side(tile: Tile) -> int:
    return max(len(tile.grid), len(tile.grid[0])) if tile.grid else 1


def _draw(axis: Axes, tile: Tile | None, largest: int) -> None:
    axis.set_axis_off()
    if tile is None:
        return
    axis.set_title(tile.caption, fontsize=7, pad=2)
    axis.set_aspect("equal")
    axis.set_xlim(0, largest)
    axis.set_ylim(largest, 0)
    if tile.grid is None:
        axis.text(largest / 2, 1, _NOTHING, fontsize=7, ha="center", va="center")
        return
    cells = [list(row) for row in tile.grid]
    left = (largest - len(cells[0])) / 2
    axis.pcolormesh(
        [left + x for x in range(len(cells[0]) + 1)],
        list(range(len(cells) + 1)),
        cells,
        cmap=ListedColormap(COLOURS),
        vmin=-0.5,
        vmax=9.5,
        edgecolors="#ffffff",
        linewidth=0.4,
    )


def _block(tile: Tile) -> Group:
    if tile.grid is None:
        return Group(Text(tile.caption), Text(_NOTHING, style="italic"))
    lines = [Text.assemble(*(("  ", f"on {COLOURS[cell]}") for cell in row)) for row in tile.grid]
    return Group(Text(tile.caption), *lines)
