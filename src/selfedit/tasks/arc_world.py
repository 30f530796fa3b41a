"""Endless fresh tasks of small grids, for a model too small for ARC: sixteen families of rules, no grid above 6 by 6.

A task is a family, the colours that its rule leaves open, and pairs of grids made with it. The families are chosen for
what augmentations do to them. A rule that treats all directions alike ("fill the background") is the same rule on
turned and mirrored copies of its demonstrations, so practising on those is more of the right thing; one that knows a
direction ("everything falls down") is another rule on most of them. `Family.keeps` names the symmetries under which the
rule stays what it is, `keeps_colours` says the same of other colours, and a test proves both on drawn grids. So the
right choice of augmentations differs from task to task, and a writer has something to learn.

    task, = fresh_tasks("eval", 1, seed=0)
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from selfedit.tasks.arc import to_task
from selfedit.tasks.arc_grids import Grid, Pair, enlarge, flip, recolour, shift, size_of, tile, transpose, turn
from selfedit.tasks.world import seeded
from selfedit.types import Task

Rule = Callable[[Grid], Grid]

SPLITS = ("train", "eval", "examples")
LARGEST = 6  # cells a side, outputs included

_DEMONSTRATIONS = (3, 4)
_SMALLEST = 2
_PLACES = [(-1, 0), (1, 0), (0, -1), (0, 1)]  # of the four neighbours

EVERY = ("rotate 90", "rotate 180", "rotate 270", "flip 0", "flip 1", "transpose")
UPRIGHT = ("rotate 180", "flip 0", "flip 1")


@dataclass(frozen=True, slots=True)
class Family:
    """Rules of one sort. `draw` leaves nothing open; inputs have at most `largest` cells a side and `colours` colours
    besides 0. `keeps` are names of `arc_augment.SYMMETRIES`."""

    name: str
    keeps: tuple[str, ...]
    keeps_colours: bool
    draw: Callable[[Random], Rule]
    largest: int = LARGEST
    colours: int = 3


# ── The rules ──


def _cells(grid: Grid, new: Callable[[int, int], int]) -> Grid:
    height, width = size_of(grid)
    return tuple(bytes(new(y, x) for x in range(width)) for y in range(height))


def _beside(grid: Grid, y: int, x: int) -> list[int]:
    height, width = size_of(grid)
    places = [(y + down, x + right) for down, right in _PLACES]
    return [grid[v][u] for v, u in places if 0 <= v < height and 0 <= u < width]


def _fill(rng: Random) -> Rule:
    table = bytes.maketrans(b"\0", bytes([rng.randint(1, 9)]))
    return lambda grid: recolour(grid, table)


def _swap(rng: Random) -> Rule:
    """Swap colours in four pairs, so that nearly any grid shows the rule; 0 and one other colour stay."""
    order = bytes(rng.sample(range(1, 10), 8))
    table = bytes.maketrans(order, order[4:] + order[:4])
    return lambda grid: recolour(grid, table)


def _outline(rng: Random) -> Rule:
    colour = rng.randint(1, 9)
    return lambda grid: _cells(grid, lambda y, x: grid[y][x] or (colour if any(_beside(grid, y, x)) else 0))


def _border(rng: Random) -> Rule:
    colour = rng.randint(1, 9)

    def rule(grid: Grid) -> Grid:
        height, width = size_of(grid)
        return _cells(grid, lambda y, x: grid[y][x] if 0 < y < height - 1 and 0 < x < width - 1 else colour)

    return rule


def _without_lone(rng: Random) -> Rule:
    return lambda grid: _cells(grid, lambda y, x: grid[y][x] if grid[y][x] in _beside(grid, y, x) else 0)


def _most_frequent(rng: Random) -> Rule:
    """Fill the grid with its most frequent colour; where two are equally frequent, leave it: both would do."""

    def rule(grid: Grid) -> Grid:
        counts = Counter(cell for row in grid for cell in row if cell).most_common(2)
        if not counts or (len(counts) > 1 and counts[0][1] == counts[1][1]):
            return grid
        return _cells(grid, lambda y, x: counts[0][0])

    return rule


def _crop(rng: Random) -> Rule:
    def rule(grid: Grid) -> Grid:
        rows = [y for y, row in enumerate(grid) if any(row)]
        columns = [x for x, column in enumerate(transpose(grid)) if any(column)]
        if not rows:
            return grid
        return tuple(row[columns[0] : columns[-1] + 1] for row in grid[rows[0] : rows[-1] + 1])

    return rule


def _resolution(rng: Random) -> Rule:
    return lambda grid: enlarge(grid, 2, 2)


def _fall(rng: Random) -> Rule:
    def rule(grid: Grid) -> Grid:
        columns = [bytes(column).replace(b"\0", b"") for column in transpose(grid)]
        return transpose(tuple(column.rjust(len(grid), b"\0") for column in columns))

    return rule


def _trails(rng: Random) -> Rule:
    """Let every coloured cell leave a trail to the right, up to the next one."""

    def row_of(row: bytes) -> bytes:
        trail, cells = 0, bytearray()
        for cell in row:
            trail = cell or trail
            cells.append(trail)
        return bytes(cells)

    return lambda grid: tuple(map(row_of, grid))


def _move(rng: Random) -> Rule:
    return lambda grid: shift(grid, 0, 1)


def _mirror(rng: Random) -> Rule:
    return lambda grid: flip(grid, 1)


def _quarter(rng: Random) -> Rule:
    return lambda grid: turn(grid, 1)


def _beside_itself(rng: Random) -> Rule:
    return lambda grid: tile(grid, 1, 2)


def _reflection(rng: Random) -> Rule:
    return lambda grid: grid + flip(grid, 0)


def _first_row(rng: Random) -> Rule:
    return lambda grid: grid[:1]


FAMILIES = (
    Family("fill", EVERY, False, _fill),
    Family("swap", EVERY, False, _swap),
    Family("outline", EVERY, False, _outline),
    Family("border", EVERY, False, _border),
    Family("without-lone", EVERY, True, _without_lone, colours=2),
    Family("most-frequent", EVERY, True, _most_frequent),
    Family("crop", EVERY, True, _crop),
    Family("resolution", EVERY, True, _resolution, largest=3),
    Family("fall", ("flip 1",), True, _fall),
    Family("trails", ("flip 0",), True, _trails),
    Family("move", ("flip 0",), True, _move),
    Family("mirror", UPRIGHT, True, _mirror),
    Family("quarter", ("rotate 90", "rotate 180", "rotate 270"), True, _quarter),
    Family("beside-itself", UPRIGHT, True, _beside_itself, largest=3),
    Family("reflection", ("flip 1",), True, _reflection, largest=3),
    Family("first-row", ("flip 1",), True, _first_row),
)


# ── The tasks ──


def draw_grid(family: Family, rng: Random) -> Grid:
    """Draw an input: a third to two thirds of its cells coloured, in few colours."""
    height, width = (rng.randint(_SMALLEST, family.largest) for _ in range(2))
    colours = rng.sample(range(1, 10), rng.randint(1, family.colours))
    share = rng.uniform(1 / 3, 2 / 3)
    return tuple(bytes(rng.choice(colours) if rng.random() < share else 0 for _ in range(width)) for _ in range(height))


def fresh_tasks(split: str, n: int, seed: int, families: Sequence[Family] = FAMILIES) -> list[Task]:
    """Return `n` fresh tasks, the families in turn; a longer list begins with the shorter one.

    No grid that a split asks about is asked about in another, whatever the seeds. Raises `ValueError` for a split that
    is not one of `SPLITS`.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    return [_fresh(split, seed, index, families[index % len(families)]) for index in range(n)]


def _fresh(split: str, seed: int, index: int, family: Family) -> Task:
    rng = seeded("grids", split, seed, index)
    rule = family.draw(rng)
    shown: dict[Grid, Pair] = {}
    for _ in range(rng.choice(_DEMONSTRATIONS)):
        pair = draw_pair(family, rule, rng, lambda grid: grid not in shown)
        shown[pair.input] = pair
    asked = draw_pair(family, rule, rng, lambda grid: grid not in shown and split_of(grid) == split)
    meta: dict[str, Any] = {"kind": family.name, "split": split}
    return to_task(f"{split}-{seed}-{index:04d}", list(shown.values()), [asked], meta)


def draw_pair(family: Family, rule: Rule, rng: Random, is_free: Callable[[Grid], bool]) -> Pair:
    """Draw a pair that shows its rule: the output is not the input."""
    while True:
        grid = draw_grid(family, rng)
        if is_free(grid) and (output := rule(grid)) != grid:
            return Pair(grid, output)


def split_of(grid: Grid) -> str:
    """Say which split alone may ask about a grid."""
    return SPLITS[hashlib.sha256(repr(grid).encode()).digest()[0] % len(SPLITS)]
