"""Voting: a task asked in several views, the answers taken back and counted (arXiv 2411.07279 §4).

A rule that does not care for directions or for colours gives the same output in every view. So a model is asked about
the task as it is, turned, mirrored and transposed, each also in other colours; every answer is taken back to the task's
own view, and the grid that most of them agree on is the answer. Nobody has to know whether a task's rule is of that
sort: where it is not, the views disagree, and the answer to the task as it is comes first among equals.

    found = views(colours, seed=0)
    prompts = [ask([seen_pair(view, pair) for pair in shown], view.do(asked)) for view in found]
    grids = vote(found, [parse_or_none(answer) for answer in answers])
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial

from numpy.random import RandomState

from selfedit.tasks.arc_augment import SYMMETRIES, Augmenter, chained, colour_table, inverse_table
from selfedit.tasks.arc_grids import Grid, Pair, recolour


def views(colours: Collection[int], seed: int) -> list[Augmenter]:
    """Return ways to look at a task whose grids hold `colours`: as it is, turned and mirrored, each in other colours.

    All of them have an exact `undo`, on any grid that a model may answer with.
    """
    rng = RandomState(seed)
    plain = [Augmenter("as it is", _same, _same), *SYMMETRIES]
    return [*plain, *(chained(view, _recolouring(colour_table(colours, rng))) for view in plain)]


def seen_pair(view: Augmenter, pair: Pair) -> Pair:
    """Show a pair in a view."""
    return Pair(view.do(pair.input), view.do(pair.output))


def vote(seen: Sequence[Augmenter], answers: Sequence[Grid | None]) -> list[Grid]:
    """Take each view's answer back and return the different grids, the one with most votes first.

    None, where an answer was no grid, has no vote; without any vote the list is empty. Among equals the view that was
    asked earlier decides.
    """
    taken_back = [view.undo(answer) for view, answer in zip(seen, answers, strict=True) if answer is not None]
    return [grid for grid, _ in Counter(taken_back).most_common()]


def _same(grid: Grid) -> Grid:
    return grid


def _recolouring(table: bytes) -> Augmenter:
    return Augmenter("recolour", partial(recolour, table=table), partial(recolour, table=inverse_table(table)))
