from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

import pytest
from numpy.random import RandomState

from selfedit.tasks.arc import demonstrations_of
from selfedit.tasks.arc_augment import SYMMETRIES, colour_table
from selfedit.tasks.arc_grids import Grid, colours_of, parse_grid, recolour, size_of, to_grid
from selfedit.tasks.arc_world import FAMILIES, LARGEST, SPLITS, Family, draw_grid, fresh_tasks

DRAWS = 60
NAMES = [family.name for family in FAMILIES]


def drawn(family: Family) -> list[Grid]:
    rng = Random(1)
    return [draw_grid(family, rng) for _ in range(DRAWS)]


@pytest.mark.parametrize("family", FAMILIES, ids=NAMES)
def test_a_rule_stays_what_it_is_under_the_symmetries_that_its_family_keeps_and_no_other(family: Family) -> None:
    rule = family.draw(Random(0))
    kept = [
        symmetry.name
        for symmetry in SYMMETRIES
        if all(rule(symmetry.do(grid)) == symmetry.do(rule(grid)) for grid in drawn(family))
    ]
    assert sorted(kept) == sorted(family.keeps)


@pytest.mark.parametrize("family", FAMILIES, ids=NAMES)
def test_a_rule_cares_for_colours_where_its_family_says_so(family: Family) -> None:
    rule = family.draw(Random(0))
    rng = RandomState(0)
    moves = [partial(recolour, table=colour_table({*range(10)}, rng)) for _ in range(5)]
    kept = all(rule(move(grid)) == move(rule(grid)) for move in moves for grid in drawn(family))
    assert kept == family.keeps_colours


def test_the_families_differ_in_what_they_keep() -> None:
    assert len(set(NAMES)) == len(FAMILIES) >= 12
    everything = {symmetry.name for symmetry in SYMMETRIES}
    assert sum(set(family.keeps) == everything for family in FAMILIES) >= 4
    assert sum(len(family.keeps) <= 1 for family in FAMILIES) >= 4
    assert {family.keeps_colours for family in FAMILIES} == {True, False}


RULES: dict[str, tuple[list[list[int]], Callable[[int], list[list[int]]]]] = {
    "outline": ([[0, 0, 0], [0, 1, 0], [0, 0, 0]], lambda c: [[0, c, 0], [c, 1, c], [0, c, 0]]),
    "border": ([[1, 1, 1], [0, 2, 0], [1, 1, 1]], lambda c: [[c, c, c], [c, 2, c], [c, c, c]]),
    "without-lone": ([[1, 1, 2], [0, 2, 1]], lambda c: [[1, 1, 0], [0, 0, 0]]),
    "most-frequent": ([[1, 1, 2], [0, 0, 0]], lambda c: [[1, 1, 1], [1, 1, 1]]),
    "crop": ([[0, 0, 0], [0, 1, 0], [0, 0, 2]], lambda c: [[1, 0], [0, 2]]),
    "resolution": ([[1, 2]], lambda c: [[1, 1, 2, 2], [1, 1, 2, 2]]),
    "fall": ([[1, 2], [0, 3], [0, 0]], lambda c: [[0, 0], [0, 2], [1, 3]]),
    "trails": ([[0, 1, 0], [2, 0, 3]], lambda c: [[0, 1, 1], [2, 2, 3]]),
    "move": ([[1, 2, 3]], lambda c: [[3, 1, 2]]),
    "mirror": ([[1, 2, 3]], lambda c: [[3, 2, 1]]),
    "quarter": ([[1, 2, 3]], lambda c: [[3], [2], [1]]),
    "beside-itself": ([[1, 2]], lambda c: [[1, 2, 1, 2]]),
    "reflection": ([[1, 2], [3, 4]], lambda c: [[1, 2], [3, 4], [3, 4], [1, 2]]),
    "first-row": ([[1, 2], [3, 4]], lambda c: [[1, 2]]),
    "fill": ([[1, 0]], lambda c: [[1, c]]),
}


@pytest.mark.parametrize("name", RULES)
def test_rules_do_what_they_are_called(name: str) -> None:
    family = FAMILIES[NAMES.index(name)]
    before, after = RULES[name]
    made = family.draw(Random(0))(to_grid(before))
    colour = max(colours_of([made]) - colours_of([to_grid(before)]), default=0)
    assert made == to_grid(after(colour))


def test_swapping_twice_changes_nothing_and_once_changes_eight_colours() -> None:
    rule = FAMILIES[NAMES.index("swap")].draw(Random(0))
    grid = to_grid([list(range(10))])
    assert rule(rule(grid)) == grid and rule(grid)[0][0] == 0
    assert sum(a != b for a, b in zip(rule(grid)[0], grid[0], strict=True)) == 8


def test_rules_stand_a_grid_without_colours() -> None:
    black = to_grid([[0, 0], [0, 0]])
    assert all(size_of(family.draw(Random(0))(black)) for family in FAMILIES)


def test_tasks_are_small_show_their_rule_and_ask_for_what_is_not_shown() -> None:
    for task in fresh_tasks("train", 4 * len(FAMILIES), seed=0):
        shown = demonstrations_of(task)
        asked = [parse_grid(task.questions[0].question), parse_grid(task.questions[0].answer)]
        assert len(shown) in (3, 4) and len(task.questions) == 1
        assert all(max(size_of(grid)) <= LARGEST for grid in [*asked, *(g for pair in shown for g in pair)])
        assert all(pair.input != pair.output for pair in shown) and asked[0] != asked[1]
        assert len({pair.input for pair in shown} | {asked[0]}) == len(shown) + 1


def test_families_come_in_turn_and_are_the_tasks_kinds() -> None:
    tasks = fresh_tasks("train", len(FAMILIES) + 1, seed=0)
    assert [task.meta["kind"] for task in tasks] == [*NAMES, NAMES[0]]
    assert [task.questions[0].kind for task in tasks] == [*NAMES, NAMES[0]]
    assert [task.meta["kind"] for task in fresh_tasks("train", 3, 0, FAMILIES[8:9])] == ["fall"] * 3


def test_tasks_are_the_same_for_the_same_seed_and_a_longer_list_begins_with_the_shorter() -> None:
    assert fresh_tasks("eval", 20, seed=5)[:8] == fresh_tasks("eval", 8, seed=5)
    assert fresh_tasks("eval", 8, seed=5) != fresh_tasks("eval", 8, seed=6)


def test_no_grid_that_one_split_asks_about_is_asked_about_in_another_whatever_the_seeds() -> None:
    asked = [{task.questions[0].question for s in range(4) for task in fresh_tasks(split, 200, s)} for split in SPLITS]
    assert all(len(each) > 700 for each in asked)
    assert not asked[0] & asked[1] and not asked[0] & asked[2] and not asked[1] & asked[2]


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown split 'test'; known: train, eval, examples"):
        fresh_tasks("test", 1, seed=0)
