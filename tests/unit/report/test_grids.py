from __future__ import annotations

from io import StringIO
from itertools import pairwise
from pathlib import Path

import matplotlib.image
import pytest
from matplotlib.colors import to_rgb
from rich.console import Console

from selfedit.report.grids import COLOURS, Tile, blocks, write_png

GRID = [[0, 1, 2], [3, 4, 5]]


def colours_in(path: Path) -> set[tuple[int, ...]]:
    pixels = matplotlib.image.imread(path)[..., :3].reshape(-1, 3)
    return {tuple(round(float(value) * 255) for value in pixel) for pixel in pixels}


def in_bytes(colour: str) -> tuple[int, ...]:
    return tuple(round(part * 255) for part in to_rgb(colour))


def test_a_picture_holds_the_colours_of_its_grids_and_no_others(tmp_path: Path) -> None:
    path = write_png(tmp_path / "task.png", [[Tile("asked", GRID)], [Tile("answered", [[6]]), Tile("none", None)]])
    found = colours_in(path)
    assert {colour for colour in range(10) if in_bytes(COLOURS[colour]) in found} == {0, 1, 2, 3, 4, 5, 6}


def test_the_same_grids_give_the_same_bytes(tmp_path: Path) -> None:
    pictures = [write_png(tmp_path / name, [[Tile("asked", GRID)]], "t").read_bytes() for name in ("a.png", "b.png")]
    assert pictures[0] == pictures[1]


def test_a_picture_of_nothing_but_an_answer_without_a_grid_is_drawn(tmp_path: Path) -> None:
    assert write_png(tmp_path / "none.png", [[Tile("answered", None)]]).stat().st_size > 0


def test_the_ten_colours_differ_in_lightness() -> None:
    def lightness(colour: str) -> float:
        red, green, blue = to_rgb(colour)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    ordered = sorted(map(lightness, COLOURS))
    assert len(COLOURS) == len(set(COLOURS)) == 10
    assert min(b - a for a, b in pairwise(ordered)) > 0.01


def shown(tiles: list[Tile], width: int = 80) -> str:
    console = Console(file=StringIO(), force_terminal=True, color_system="truecolor", width=width)
    console.print(blocks(tiles))
    written = console.file
    assert isinstance(written, StringIO)
    return written.getvalue()


def test_blocks_are_coloured_rows_under_their_captions() -> None:
    lines = shown([Tile("asked", GRID), Tile("answered", None)]).splitlines()
    assert "asked" in lines[0] and "answered" in lines[0]
    assert "no grid" in lines[1]
    for row, line in zip(GRID, lines[1:], strict=False):
        places = [line.index(";".join(["48;2", *map(str, in_bytes(COLOURS[cell]))])) for cell in row]
        assert places == sorted(places)


@pytest.mark.parametrize("width", [40, 120])
def test_grids_stand_side_by_side_where_there_is_room(width: int) -> None:
    lines = shown([Tile(str(i), [[1] * 12]) for i in range(3)], width).splitlines()
    assert len([line for line in lines if "48;2" in line]) == (1 if width == 120 else 3)
