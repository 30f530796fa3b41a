"""The families that pup-grid is taught: neighbours of the examined ones, none of which is one of them.

What practice at test time can add depends on what the model brings along. Taught the examined families themselves, it
would read their rule off the demonstrations and have nothing to learn; taught nothing alike, it would learn nothing in
a few dozen steps. So it is taught their neighbours, of three sorts:

- a family that knows a direction, in every other direction: cells that fall up and to both sides, never down. These are
  all the rules that an examined one becomes on turned, mirrored and transposed grids where it does not stay what it is;
- other rules of the same sorts: diagonal outlines, coloured corners, the least frequent colour, copies 2 by 2;
- two of the small rules above in turn, so that there are more rules than can be learnt by heart.

    task = draw_task(rng, rng.choice(NEIGHBOURS))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

from selfedit.tasks.arc import to_task
from selfedit.tasks.arc_augment import SYMMETRIES, Augmenter
from selfedit.tasks.arc_grids import Grid, Pair, enlarge, recolour, shift, size_of, tile, transpose, turn
from selfedit.tasks.arc_world import EVERY, FAMILIES, LARGEST, SPLITS, UPRIGHT, Family, Rule, draw_pair, split_of
from selfedit.types import Task

_LEAST = 3  # demonstrations, as many as arc_world shows, or one more


def _turned(family: Family, symmetry: Augmenter) -> Family:
    """The rule as it is on grids that were turned, mirrored or transposed."""

    def draw(rng: Random) -> Rule:
        rule = family.draw(rng)
        return lambda grid: symmetry.undo(rule(symmetry.do(grid)))

    return replace(family, name=f"{family.name}, {symmetry.name}", keeps=(), draw=draw)


def _pointwise(new: Callable[[Grid, int, int], int]) -> Rule:
    def rule(grid: Grid) -> Grid:
        height, width = size_of(grid)
        return tuple(bytes(new(grid, y, x) for x in range(width)) for y in range(height))

    return rule


def _around(grid: Grid, y: int, x: int, places: tuple[tuple[int, int], ...]) -> list[int]:
    height, width = size_of(grid)
    return [grid[y + v][x + u] for v, u in places if 0 <= y + v < height and 0 <= x + u < width]


_DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))
_STRAIGHT = ((-1, 0), (1, 0), (0, -1), (0, 1))


def _paint(rng: Random) -> Rule:
    """All colours but 0 become one."""
    colour = rng.randint(1, 9)
    return lambda grid: recolour(grid, b"\0" + bytes([colour]) * 255)


def _negative(rng: Random) -> Rule:
    colour = rng.randint(1, 9)
    return lambda grid: recolour(grid, bytes([colour]) + bytes(255))


def _exchange(rng: Random) -> Rule:
    """Six colours change places in a ring, the others stay."""
    ring = bytes(rng.sample(range(1, 10), 6))
    table = bytes.maketrans(ring, ring[1:] + ring[:1])
    return lambda grid: recolour(grid, table)


def _halo(rng: Random) -> Rule:
    """What touches a coloured cell at a corner is coloured."""
    colour = rng.randint(1, 9)
    return _pointwise(lambda grid, y, x: grid[y][x] or (colour if any(_around(grid, y, x, _DIAGONAL)) else 0))


def _corners(rng: Random) -> Rule:
    colour = rng.randint(1, 9)

    def new(grid: Grid, y: int, x: int) -> int:
        height, width = size_of(grid)
        return colour if y in (0, height - 1) and x in (0, width - 1) else grid[y][x]

    return _pointwise(new)


def _inside(rng: Random) -> Rule:
    """All but the border is coloured."""
    colour = rng.randint(1, 9)

    def new(grid: Grid, y: int, x: int) -> int:
        height, width = size_of(grid)
        return colour if 0 < y < height - 1 and 0 < x < width - 1 else grid[y][x]

    return _pointwise(new)


def _only_lone(rng: Random) -> Rule:
    return _pointwise(lambda grid, y, x: 0 if grid[y][x] in _around(grid, y, x, _STRAIGHT) else grid[y][x])


def _crosses(rng: Random) -> Rule:
    """What has a coloured cell in its row and one in its column is coloured."""
    colour = rng.randint(1, 9)
    return _pointwise(lambda grid, y, x: grid[y][x] or (colour if any(grid[y]) and any(row[x] for row in grid) else 0))


def _least_frequent(rng: Random) -> Rule:
    """Fill the grid with its least frequent colour; where two are equally rare, leave it."""

    def rule(grid: Grid) -> Grid:
        counts = Counter(cell for row in grid for cell in row if cell).most_common()[::-1]
        if len(counts) < 2 or counts[0][1] == counts[1][1]:
            return grid
        return tuple(bytes([counts[0][0]]) * len(row) for row in grid)

    return rule


def _without_empty(rng: Random) -> Rule:
    """Rows and columns without a coloured cell go, wherever they are."""

    def rule(grid: Grid) -> Grid:
        rows = tuple(row for row in grid if any(row))
        columns = tuple(column for column in transpose(rows) if any(column)) if rows else ()
        return transpose(columns) if columns else grid

    return rule


def _peel(rng: Random) -> Rule:
    return lambda grid: tuple(row[1:-1] for row in grid[1:-1]) if min(size_of(grid)) > 2 else grid


def _wider(rng: Random) -> Rule:
    return lambda grid: enlarge(grid, 1, 2)


def _higher(rng: Random) -> Rule:
    return lambda grid: enlarge(grid, 2, 1)


def _four(rng: Random) -> Rule:
    return lambda grid: tile(grid, 2, 2)


def _half_turn(rng: Random) -> Rule:
    return lambda grid: turn(grid, 2)


def _transposed(rng: Random) -> Rule:
    return transpose


def _slide(rng: Random) -> Rule:
    return lambda grid: shift(grid, 1, 1)


TURNED = tuple(
    _turned(family, symmetry) for family in FAMILIES for symmetry in SYMMETRIES if symmetry.name not in family.keeps
)
COLOURING = (
    Family("paint", EVERY, False, _paint),
    Family("negative", EVERY, False, _negative),
    Family("exchange", EVERY, False, _exchange),
    Family("halo", EVERY, False, _halo),
    Family("corners", EVERY, False, _corners),
    Family("inside", EVERY, False, _inside),
    Family("only-lone", EVERY, True, _only_lone, colours=2),
    Family("crosses", EVERY, False, _crosses),
)
OTHERS = (
    Family("least-frequent", EVERY, True, _least_frequent),
    Family("without-empty", EVERY, True, _without_empty),
    Family("peel", EVERY, True, _peel),
    Family("wider", UPRIGHT, True, _wider, largest=3),
    Family("higher", UPRIGHT, True, _higher, largest=3),
    Family("four-copies", EVERY, True, _four, largest=3),
    Family("half-turn", EVERY, True, _half_turn),
    Family("transposed", ("rotate 180", "transpose"), True, _transposed),
    Family("slide", ("transpose",), True, _slide),
)
NEIGHBOURS = (*TURNED, *COLOURING, *OTHERS)


def _in_turn(rng: Random) -> Rule:
    """A direction and a colouring: two directions in turn could be an examined family, as two mirrors are a turn."""
    directions = [family for family in TURNED if family.largest == LARGEST]
    first, second = rng.choice(directions).draw(rng), rng.choice(COLOURING).draw(rng)
    return lambda grid: second(first(grid))


TWO_RULES = Family("two-rules", (), False, _in_turn)


def draw_task(rng: Random, family: Family) -> Task:
    """Draw a task of a family, each of whose grids the split "train" alone may ask about.

    So no grid that is asked about in an exam is in training, as an input, even as a demonstration.
    """
    rule = family.draw(rng)
    pairs: dict[Grid, Pair] = {}
    for _ in range(rng.randint(_LEAST, _LEAST + 1) + 1):
        pair = draw_pair(family, rule, rng, lambda grid: grid not in pairs and split_of(grid) == "train")
        pairs[pair.input] = pair
    id = f"{rng.choice(SPLITS)}-{rng.randrange(100)}-{rng.randrange(1000):04d}"  # the form of the ids in an exam
    *shown, asked = pairs.values()
    return to_task(id, shown, [asked], {"kind": family.name, "split": "train"})
