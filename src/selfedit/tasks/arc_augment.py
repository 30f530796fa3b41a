"""What a self-edit for grids is made of: augmentations, and the training sets that they give (arXiv 2506.10943 §3.2).

A task shows a few pairs of grids, so the only examinations to practise on are those of its own demonstrations: leave
one out, or two, and ask for the output of one of them. Every such set comes in every augmentation that the self-edit
switches on, and once more with its demonstrations in another order and, if any augmentation is on, in other colours.

What exactly is counted follows the published code of test-time training (arXiv 2411.07279), in words of our own:

- each set left out, of n demonstrations: n with one missing, n (n - 1) with two; of two demonstrations the latter show
  none at all, and are kept;
- a set in which a grid would have more than 30 cells a side is dropped, as a whole; equal sets count once, before the
  copies are made and after;
- colour 0 stays what it is, the others become colours that the set does not use, so that a copy is never the set
  itself; only where there are too few of those, some go to colours of the set;
- the copies' orders are numpy's `RandomState(seed).permutation`, whose stream is frozen: it shows in the counts that
  with seed 0 one of three pairs changes places, and three of twelve.

That gives the published number in 701 of 704 cases. The other three are one less, where two copies in other colours
happen to be equal: which copies those are is up to the order of the draws.

Departures: the published code shifts an input and its output by different amounts, which breaks the rule that they are
to show; here grids of one size are shifted alike. And it draws the copies in the order of a Python set of hashed
bytes, which is another in every process; here sets keep the order in which they are made: a seed gives the same sets.

Each augmenter has an `undo` with undo(do(grid)) == grid.

    sets = practice(demonstrations, {"basic", "chain"}, seed=0)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import combinations
from typing import NamedTuple

from numpy.random import RandomState

from selfedit.tasks.arc_grids import (
    LARGEST,
    Grid,
    Pair,
    colours_of,
    enlarge,
    flip,
    recolour,
    shift,
    size_of,
    tile,
    transpose,
    turn,
)

TOOLS = ("basic", "size", "chain", "repeat")
MOST_SETS = 250

_FARTHEST = 4  # cells: a translation moves by fewer

Move = Callable[[Grid], Grid]


@dataclass(frozen=True, slots=True)
class Augmenter:
    """A change of a grid, and what takes it back."""

    name: str
    do: Move
    undo: Move


class PracticeSet(NamedTuple):
    """Demonstrations, and the pair whose output is asked for."""

    shown: tuple[Pair, ...]
    asked: Pair

    def grids(self) -> list[Grid]:
        """Return all grids of the set."""
        return [grid for pair in (*self.shown, self.asked) for grid in pair]

    def each(self, move: Move) -> PracticeSet:
        """Apply a change to all grids of the set."""
        return PracticeSet(tuple(_moved(pair, move) for pair in self.shown), _moved(self.asked, move))


def _moved(pair: Pair, move: Move) -> Pair:
    return Pair(move(pair.input), move(pair.output))


# ── The augmenters ──


def _half(grid: Grid, axis: int, is_second: bool) -> Grid:
    """Take a grid's upper or lower half (axis 0), left or right half (axis 1)."""
    height, width = size_of(grid)
    if axis == 0:
        return grid[height // 2 :] if is_second else grid[: height // 2]
    return tuple(row[width // 2 :] if is_second else row[: width // 2] for row in grid)


def _reflect(grid: Grid, axis: int, is_second: bool) -> Grid:
    """Put a grid and its mirror image side by side; `is_second`: the image comes first."""
    parts = (flip(grid, axis), grid) if is_second else (grid, flip(grid, axis))
    return parts[0] + parts[1] if axis == 0 else tuple(a + b for a, b in zip(*parts, strict=True))


def _reflection(axis: int, is_second: bool) -> Augmenter:
    name = f"reflect {axis}{' image first' if is_second else ''}"
    return Augmenter(
        name, partial(_reflect, axis=axis, is_second=is_second), partial(_half, axis=axis, is_second=is_second)
    )


def _shrink(grid: Grid, height: int, width: int) -> Grid:
    return tuple(row[::width] for row in grid[::height])


def _crop(grid: Grid, down: int, across: int) -> Grid:
    height, width = size_of(grid)
    return tuple(row[: width // across] for row in grid[: height // down])


def _enlarging(name: str, height: int, width: int) -> Augmenter:
    return Augmenter(name, partial(enlarge, height=height, width=width), partial(_shrink, height=height, width=width))


def _tiling(name: str, down: int, across: int) -> Augmenter:
    return Augmenter(name, partial(tile, down=down, across=across), partial(_crop, down=down, across=across))


def _in_turn(grid: Grid, first: Move, second: Move) -> Grid:
    return second(first(grid))


def chained(first: Augmenter, second: Augmenter) -> Augmenter:
    """One change after another."""
    return Augmenter(
        f"{first.name}, {second.name}",
        partial(_in_turn, first=first.do, second=second.do),
        partial(_in_turn, first=second.undo, second=first.undo),
    )


def translation(down: int, right: int) -> Augmenter:
    """Move by `down` and `right` cells, round the edges."""
    return Augmenter(
        f"translate {down} {right}",
        partial(shift, down=down, right=right),
        partial(shift, down=-down, right=-right),
    )


SYMMETRIES = (
    Augmenter("rotate 90", partial(turn, quarters=1), partial(turn, quarters=3)),
    Augmenter("rotate 180", partial(turn, quarters=2), partial(turn, quarters=2)),
    Augmenter("rotate 270", partial(turn, quarters=3), partial(turn, quarters=1)),
    Augmenter("flip 0", partial(flip, axis=0), partial(flip, axis=0)),
    Augmenter("flip 1", partial(flip, axis=1), partial(flip, axis=1)),
    Augmenter("transpose", transpose, transpose),
)
_REFLECTIONS = tuple(_reflection(axis, is_second) for is_second in (True, False) for axis in (0, 1))
_RESOLUTION = _enlarging("resolution", 2, 2)

AUGMENTERS: dict[str, tuple[Augmenter, ...]] = {
    "basic": (*SYMMETRIES, *_REFLECTIONS),  # and a translation, which every set has its own of
    "size": (_RESOLUTION, _enlarging("height", 2, 1), _enlarging("width", 1, 2)),
    "chain": tuple(chained(symmetry, _RESOLUTION) for symmetry in SYMMETRIES),
    "repeat": (_tiling("tile down", 2, 1), _tiling("tile across", 1, 2), _tiling("tile both", 2, 2)),
}


# ── The sets ──


def practice(demonstrations: Sequence[Pair], tools: Collection[str], seed: int) -> list[PracticeSet]:
    """Return the sets that leave one demonstration out and those that leave out two, the same for the same seed.

    `tools` are names of `AUGMENTERS`. Of more than `MOST_SETS`, that many are drawn.
    """
    sets = [each for missing in (1, 2) for each in practice_sets(demonstrations, tools, missing, seed)]
    if len(sets) <= MOST_SETS:
        return sets
    return [sets[i] for i in RandomState(seed).permutation(len(sets))[:MOST_SETS]]


def practice_sets(demonstrations: Sequence[Pair], tools: Collection[str], missing: int, seed: int) -> list[PracticeSet]:
    """Return all sets that leave `missing` demonstrations out, however many: augmented, in other orders and colours."""
    plain = leave_out(demonstrations, missing)
    sets = list(dict.fromkeys([*_augmented(plain, tools, seed), *plain]))
    rng = RandomState(seed)
    copies = [_reordered(_in_other_colours(each, rng) if tools else each, rng) for each in sets]
    return list(dict.fromkeys([*copies, *sets]))


def leave_out(demonstrations: Sequence[Pair], missing: int) -> list[PracticeSet]:
    """Ask for each demonstration in turn, shown all others but `missing` - 1 of them, in all ways to choose those."""
    return [
        PracticeSet(tuple(pair for i, pair in enumerate(demonstrations) if i not in (asked, *unseen)), pair_asked)
        for asked, pair_asked in enumerate(demonstrations)
        for unseen in combinations([i for i in range(len(demonstrations)) if i != asked], missing - 1)
    ]


def _augmented(plain: Sequence[PracticeSet], tools: Collection[str], seed: int) -> Iterable[PracticeSet]:
    for tool in TOOLS:
        if tool in tools:
            moves = [augmenter.do for augmenter in AUGMENTERS[tool]]
            moves += [partial(_translated, seed=seed)] if tool == "basic" else []
            for move in map(cache, moves):  # a grid is in many sets
                yield from (done for each in plain if _fits(done := each.each(move)))


def _fits(practice_set: PracticeSet) -> bool:
    return max(max(size_of(grid)) for grid in practice_set.grids()) <= LARGEST


def _translated(grid: Grid, seed: int) -> Grid:
    """Move a grid by what `seed` draws for its size: grids of one size alike, one of a single row not up or down."""
    rng = RandomState(seed)
    down, right = (rng.randint(0, min(_FARTHEST, side)) for side in size_of(grid))
    return shift(grid, down, right)


def colour_table(colours: Collection[int], rng: RandomState) -> bytes:
    """Draw a table for `recolour` that takes all colours but 0 to others, first to those that are not among them.

    It is one to one: no two colours become the same.
    """
    used = sorted(set(colours) - {0})
    free = [colour for colour in range(1, 10) if colour not in used]
    targets = [*rng.permutation(free).tolist(), *rng.permutation(used).tolist()]
    taken = targets[: len(used)]
    left = [colour for colour in range(1, 10) if colour not in taken]
    return bytes.maketrans(bytes(used + free), bytes(taken + left))


def inverse_table(table: bytes) -> bytes:
    """Return the table that takes the colours back."""
    return bytes.maketrans(table, bytes(range(256)))


def _in_other_colours(practice_set: PracticeSet, rng: RandomState) -> PracticeSet:
    table = colour_table(colours_of(practice_set.grids()), rng)
    return practice_set.each(partial(recolour, table=table))


def _reordered(practice_set: PracticeSet, rng: RandomState) -> PracticeSet:
    order = rng.permutation(len(practice_set.shown))
    return PracticeSet(tuple(practice_set.shown[i] for i in order), practice_set.asked)
