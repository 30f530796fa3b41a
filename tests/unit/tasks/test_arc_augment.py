from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import RandomState

from selfedit.tasks.arc_augment import (
    AUGMENTERS,
    MOST_SETS,
    SYMMETRIES,
    TOOLS,
    Augmenter,
    colour_table,
    inverse_table,
    leave_out,
    practice,
    practice_sets,
    translation,
)
from selfedit.tasks.arc_grids import Grid, Pair, colours_of, parse_grid, recolour, size_of, to_grid
from tests.unit.tasks.test_arc_grids import grids

EACH = [augmenter for tool in TOOLS for augmenter in AUGMENTERS[tool]]
GRID = to_grid([[1, 2], [3, 4]])
SIZES = {  # times the height and the width
    "reflect 0": (2, 1),
    "reflect 1": (1, 2),
    "resolution": (2, 2),
    "height": (2, 1),
    "width": (1, 2),
    "tile down": (2, 1),
    "tile across": (1, 2),
    "tile both": (2, 2),
}


def pair(number: int, side: int = 2) -> Pair:
    """Make a pair that is like no other and has no symmetry."""
    digits = [int(digit) for digit in f"{number:0{side * side}d}"]
    grid = to_grid([digits[i : i + side] for i in range(0, side * side, side)])
    return Pair(grid, recolour(grid, bytes(range(256))))


PAIRS = [pair(1203), pair(4065), pair(7810), pair(239)]  # black in another place each; all nine colours


@pytest.mark.parametrize("augmenter", EACH, ids=[augmenter.name for augmenter in EACH])
@given(grid=grids())
def test_undoing_an_augmentation_gives_the_grid_back(augmenter: Augmenter, grid: Grid) -> None:
    moved = augmenter.do(grid)
    assert augmenter.undo(moved) == grid
    assert colours_of([moved]) == colours_of([grid])
    assert len({len(row) for row in moved}) == 1


@given(grid=grids(), down=st.integers(0, 9), right=st.integers(0, 9))
def test_undoing_a_translation_gives_the_grid_back(grid: Grid, down: int, right: int) -> None:
    moved = translation(down, right)
    assert moved.undo(moved.do(grid)) == grid
    assert Counter(b"".join(moved.do(grid))) == Counter(b"".join(grid))


@pytest.mark.parametrize("augmenter", EACH, ids=[augmenter.name for augmenter in EACH])
@given(grid=grids())
def test_augmentations_have_the_size_that_they_name(augmenter: Augmenter, grid: Grid) -> None:
    height, width = size_of(grid)
    first, _, second = augmenter.name.partition(", ")
    if first in ("rotate 90", "rotate 270", "transpose"):
        height, width = width, height
    down, across = SIZES.get(second or first.removesuffix(" image first"), (1, 1))
    assert size_of(augmenter.do(grid)) == (down * height, across * width)


def test_the_tools_are_those_of_the_paper() -> None:
    names = {tool: [augmenter.name for augmenter in AUGMENTERS[tool]] for tool in TOOLS}
    symmetries = ["rotate 90", "rotate 180", "rotate 270", "flip 0", "flip 1", "transpose"]
    assert [augmenter.name for augmenter in SYMMETRIES] == symmetries
    reflections = ["reflect 0 image first", "reflect 1 image first", "reflect 0", "reflect 1"]
    assert names["basic"] == [*symmetries, *reflections]  # and the translation
    assert names["size"] == ["resolution", "height", "width"]
    assert names["chain"] == [f"{name}, resolution" for name in symmetries]
    assert names["repeat"] == ["tile down", "tile across", "tile both"]


def test_a_reflection_stands_before_or_after_the_grid() -> None:
    done = {augmenter.name: augmenter.do(GRID) for augmenter in AUGMENTERS["basic"]}
    assert done["reflect 0"] == to_grid([[1, 2], [3, 4], [3, 4], [1, 2]])
    assert done["reflect 0 image first"] == to_grid([[3, 4], [1, 2], [1, 2], [3, 4]])
    assert done["reflect 1"] == to_grid([[1, 2, 2, 1], [3, 4, 4, 3]])
    assert done["reflect 1 image first"] == to_grid([[2, 1, 1, 2], [4, 3, 3, 4]])


def test_every_demonstration_is_asked_about_with_all_or_all_but_one_of_the_others_shown() -> None:
    one, two = leave_out(PAIRS[:3], 1), leave_out(PAIRS[:3], 2)
    assert [each.asked for each in one] == PAIRS[:3]
    assert [each.shown for each in one] == [(PAIRS[1], PAIRS[2]), (PAIRS[0], PAIRS[2]), (PAIRS[0], PAIRS[1])]
    assert len(two) == 6 and all(len(each.shown) == 1 for each in two)
    assert all(each.asked not in each.shown for each in [*one, *two])
    assert [each.shown for each in leave_out(PAIRS[:2], 2)] == [(), ()]
    assert [each.shown for each in leave_out(PAIRS[:1], 1)] == [()] and leave_out(PAIRS[:1], 2) == []


def test_a_set_is_augmented_as_a_whole() -> None:
    sets = practice_sets(PAIRS, {"chain"}, 1, seed=0)
    assert {size_of(grid) for each in sets for grid in each.grids()} == {(2, 2), (4, 4)}
    assert all(len({size_of(grid) for grid in each.grids()}) == 1 for each in sets)
    turned = next(a for a in AUGMENTERS["chain"] if a.name.startswith("rotate 90"))
    assert leave_out(PAIRS, 1)[0].each(turned.do) in sets


def test_copies_have_other_colours_but_the_same_black_and_the_same_pattern() -> None:
    plain = leave_out(PAIRS, 1)
    sets = practice_sets(PAIRS, {"size"}, 1, seed=0)
    assert len(sets) == 2 * 4 * 4
    copies = [each for each in sets if size_of(each.asked.input) == (2, 2) and each not in plain]
    assert len(copies) == 4
    for copy in copies:
        (source,) = [each for each in plain if _zeros(each.asked.input) == _zeros(copy.asked.input)]
        assert all(pair.input == pair.output for pair in copy.shown)
        assert len(colours_of(copy.grids())) == len(colours_of(source.grids()))


def _zeros(grid: Grid) -> tuple[tuple[bool, ...], ...]:
    return tuple(tuple(cell == 0 for cell in row) for row in grid)


def test_without_augmentations_copies_keep_their_colours() -> None:
    sets = practice_sets(PAIRS, (), 1, seed=0)
    assert {frozenset(colours_of(each.grids())) for each in sets} == {
        frozenset(colours_of(each.grids())) for each in leave_out(PAIRS, 1)
    }
    assert {each.asked for each in sets} == set(PAIRS)


@given(colours=st.sets(st.integers(0, 9)), seed=st.integers(0, 2**32 - 1))
def test_a_colour_table_is_one_to_one_keeps_black_and_prefers_unused_colours(colours: set[int], seed: int) -> None:
    table = colour_table(colours, RandomState(seed))
    used = colours - {0}
    assert sorted(table) == list(range(256)) and table[0] == 0 and table[10:] == bytes(range(10, 256))
    taken = {table[colour] for colour in used}
    assert len(taken - used) == min(len(used), 9 - len(used))
    grid = to_grid([list(range(10))])
    assert recolour(recolour(grid, table), inverse_table(table)) == grid


def test_grids_above_thirty_cells_a_side_drop_their_set_and_no_other() -> None:
    large, small = Pair((bytes(16),) * 16, (bytes([1] * 16),) * 16), PAIRS[0]
    sets = practice_sets([large, small, PAIRS[1]], {"size"}, 2, seed=0)
    assert max(size_of(grid) for each in sets for grid in each.grids()) <= (30, 30)
    doubled = [each for each in sets if size_of(each.asked.input) == (4, 4)]
    assert doubled and all(size_of(pair.input) == (4, 4) for each in doubled for pair in each.shown)
    assert any(size_of(each.asked.input) == (16, 16) for each in sets)


def test_equal_sets_count_once() -> None:
    even = [Pair(parse_grid(f"[[{c} {c}] [{c} {c}]]"), parse_grid(f"[[{c}]]")) for c in (1, 2)]
    plain_and_copies = practice_sets(even, {"basic"}, 1, seed=0)
    sizes = {(size_of(each.asked.input), size_of(each.asked.output)) for each in plain_and_copies}
    assert sizes == {((2, 2), (1, 1)), ((4, 2), (2, 1)), ((2, 4), (1, 2))}
    plain = [each for each in plain_and_copies if colours_of(each.grids()) == {1, 2}]
    assert len(plain) == 2 * len(sizes)
    assert len(plain_and_copies) == len(set(plain_and_copies))


def test_more_than_two_hundred_and_fifty_sets_are_cut_at_random() -> None:
    everything = [each for missing in (1, 2) for each in practice_sets(PAIRS, TOOLS, missing, seed=0)]
    cut = practice(PAIRS, TOOLS, seed=0)
    assert len(everything) > MOST_SETS == len(cut) == len(set(cut))
    assert set(cut) < set(everything)
    kept = [each in set(cut) for each in everything]
    assert any(kept[:100]) and any(kept[-100:])
    assert practice(PAIRS[:2], (), seed=0) == [each for n in (1, 2) for each in practice_sets(PAIRS[:2], (), n, seed=0)]


def test_a_seed_gives_the_same_sets_and_another_seed_others() -> None:
    assert practice(PAIRS, TOOLS, seed=1) == practice(PAIRS, TOOLS, seed=1)
    assert practice(PAIRS, TOOLS, seed=1) != practice(PAIRS, TOOLS, seed=2)
    assert set(practice(PAIRS, {"basic"}, seed=1)) != set(practice(PAIRS, {"basic"}, seed=2))


def test_grids_of_one_size_are_shifted_alike() -> None:
    row = to_grid([[1, 2, 3, 4, 5]])
    sets = practice_sets([Pair(row, row), Pair(row, row)], {"basic"}, 1, seed=3)
    assert all(each.asked.input == each.asked.output for each in sets)
    assert to_grid([[4, 5, 1, 2, 3]]) in {each.asked.input for each in sets} | {to_grid([[3, 4, 5, 1, 2]])}
