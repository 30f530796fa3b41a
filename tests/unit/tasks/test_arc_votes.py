from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfedit.tasks.arc_grids import Grid, Pair, colours_of, flip, to_grid
from selfedit.tasks.arc_votes import seen_pair, views, vote
from tests.unit.tasks.test_arc_grids import grids

GRID = to_grid([[1, 0, 2], [3, 3, 0]])
OTHER = to_grid([[5]])
WIDE = to_grid([[1, 2, 3, 4]])


@given(shown=grids(), answered=grids(), seed=st.integers(0, 99))
def test_every_view_is_taken_back_exactly_whatever_is_answered(shown: Grid, answered: Grid, seed: int) -> None:
    for view in views(colours_of([shown]), seed):
        assert view.undo(view.do(shown)) == shown
        assert view.do(view.undo(answered)) == answered


def test_there_are_seven_views_and_each_in_other_colours() -> None:
    found = views(colours_of([GRID]), seed=0)
    assert len(found) == 14 and found[0].do(GRID) == GRID
    assert len({view.do(GRID) for view in found}) == 14
    assert [colours_of([view.do(GRID)]) & {1, 2, 3} for view in found[7:]] == [set()] * 7
    assert [view.do(GRID) for view in views({0, 1, 2, 3}, seed=0)] == [view.do(GRID) for view in found]
    assert [view.do(GRID) for view in views({0, 1, 2, 3}, seed=1)] != [view.do(GRID) for view in found]


def test_a_rule_without_directions_gets_every_vote() -> None:
    found = views(colours_of([GRID]), seed=0)
    doubled = [tuple(row + row for row in view.do(to_grid([[4]]))) for view in found]
    assert vote(found, doubled)[0] == to_grid([[4, 4]])
    assert vote(found, [view.do(GRID) for view in found]) == [GRID]


def test_the_grid_with_most_votes_comes_first_and_the_earlier_view_among_equals() -> None:
    found = views({1}, seed=0)[:4]
    sees = [view.do(GRID) for view in found]
    wrong = [view.do(OTHER) for view in found]
    assert vote(found, [wrong[0], sees[1], sees[2], None]) == [GRID, OTHER]
    assert vote(found, [wrong[0], sees[1], sees[2], wrong[3]]) == [OTHER, GRID]
    assert vote(found, [sees[0], wrong[1], wrong[2], sees[3]]) == [GRID, OTHER]


def test_what_is_no_grid_has_no_vote() -> None:
    found = views({1}, seed=0)
    assert vote(found, [None] * 14) == []
    with pytest.raises(ValueError, match="shorter"):
        vote(found, [None])


def test_a_pair_is_seen_as_a_whole() -> None:
    view = next(view for view in views({1}, seed=0) if view.name == "flip 1")
    assert seen_pair(view, Pair(GRID, WIDE)) == Pair(flip(GRID, 1), flip(WIDE, 1))
