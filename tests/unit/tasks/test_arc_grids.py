from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfedit.errors import InputError
from selfedit.tasks.arc_grids import (
    Grid,
    colours_of,
    enlarge,
    flip,
    parse_grid,
    recolour,
    rows_of,
    shift,
    size_of,
    tile,
    to_grid,
    transpose,
    turn,
    write_grid,
)

GRID = to_grid([[1, 2, 3], [4, 5, 6]])


@st.composite
def grids(draw: st.DrawFn, largest: int = 8) -> Grid:
    height, width = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    row = st.lists(st.integers(0, 9), min_size=width, max_size=width)
    return to_grid(draw(st.lists(row, min_size=height, max_size=height)))


@given(grid=grids(largest=30))
def test_a_grid_is_read_back_from_its_text_and_from_json(grid: Grid) -> None:
    assert parse_grid(write_grid(grid)) == grid
    assert parse_grid(str(rows_of(grid))) == grid
    assert to_grid(rows_of(grid)) == grid


def test_the_text_is_rows_of_digits_in_brackets() -> None:
    assert write_grid(GRID) == "[[1 2 3]\n [4 5 6]]"
    assert write_grid(to_grid([[7]])) == "[[7]]"


@pytest.mark.parametrize(
    "text",
    [
        "[[1,2,3],[4,5,6]]",
        "[[1, 2, 3],\n [4, 5, 6]]",
        "[ [ 1 2  3 ]\n\n[4 5 6\t] ]",
        "The output is:\n[[1 2 3]\n [4 5 6]]\n\nInput:\n[[9]]",
        "[[1 2 3], [4 5 6],]",
    ],
)
def test_spaces_commas_and_what_stands_around_are_forgiven(text: str) -> None:
    assert parse_grid(text) == GRID


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the grid is missing"),
        ("I cannot tell", "the grid is missing"),
        ("[1 2 3]", "the grid is missing"),
        ("[[1 2 3]\n [4 5", "the grid has no end"),
        ("[[1 2 3]\n [4 5]]", "ragged: row 1 has 3 cells and row 2 has 2"),
        ("[[]]", "the grid is empty"),
        ("[[1 12]]", "holds '12', which is no colour"),
        ("[[1 -1]]", "holds '-1', which is no colour"),
        ("[[1 2.0]]", "holds '2.0', which is no colour"),
        ("[[1 ²]]", "holds '²', which is no colour"),
        ("[[1 red]]", "holds 'red', which is no colour"),
        ("[[123]]", "holds '123', which is no colour"),
        (str([[0] * 31]), "1 by 31 cells, more than 30 by 30"),
        (str([[0]] * 31), "31 by 1 cells, more than 30 by 30"),
    ],
)
def test_what_is_in_the_grid_is_not_forgiven(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_grid(text)


@pytest.mark.parametrize("rows", [[], [[]], [[10]], [[-1]], [[300]], [[1], [1, 2]], [["1"]], [1], [[0] * 31]])
def test_rows_that_are_no_grid_are_refused(rows: list[list[int]]) -> None:
    with pytest.raises(InputError):
        to_grid(rows)


def test_a_turn_is_anticlockwise() -> None:
    assert turn(GRID, 1) == to_grid([[3, 6], [2, 5], [1, 4]])
    assert turn(GRID, 2) == to_grid([[6, 5, 4], [3, 2, 1]])
    assert turn(GRID, 4) == GRID


def test_axes_are_rows_then_columns() -> None:
    assert flip(GRID, 0) == to_grid([[4, 5, 6], [1, 2, 3]])
    assert flip(GRID, 1) == to_grid([[3, 2, 1], [6, 5, 4]])
    assert transpose(GRID) == to_grid([[1, 4], [2, 5], [3, 6]])
    assert enlarge(to_grid([[1, 2]]), 2, 1) == to_grid([[1, 2], [1, 2]])
    assert enlarge(to_grid([[1, 2]]), 1, 2) == to_grid([[1, 1, 2, 2]])
    assert tile(to_grid([[1, 2]]), 2, 1) == to_grid([[1, 2], [1, 2]])
    assert tile(to_grid([[1, 2]]), 1, 2) == to_grid([[1, 2, 1, 2]])
    assert shift(GRID, 1, 0) == to_grid([[4, 5, 6], [1, 2, 3]])
    assert shift(GRID, 0, 1) == to_grid([[3, 1, 2], [6, 4, 5]])


@given(grid=grids())
def test_moves_keep_the_colours_and_sizes_say_what_was_done(grid: Grid) -> None:
    height, width = size_of(grid)
    assert size_of(turn(grid, 1)) == size_of(transpose(grid)) == (width, height)
    assert size_of(enlarge(grid, 2, 3)) == size_of(tile(grid, 2, 3)) == (2 * height, 3 * width)
    for moved in (turn(grid, 3), flip(grid, 0), transpose(grid), enlarge(grid, 2, 2), tile(grid, 2, 1)):
        assert colours_of([moved]) == colours_of([grid])
    assert colours_of([recolour(grid, bytes.maketrans(b"\1", b"\2"))]) == {c + (c == 1) for c in colours_of([grid])}
