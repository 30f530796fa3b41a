"""What forgetting costs at equal gain, read off curves. Pure.

A way to train is a curve: one `Point` for each amount of training, from the untrained writer on, which has gained and
forgotten nothing. Gain does not grow evenly: a curve is said to reach a gain where it first gets there, and its cost is
read off the straight line between the two points around that. A way that never gets there has no cost: None.

Axis suffixes: S seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from selfedit.report.stats import BySeed, by_seed
from selfedit.types import mean_measured


@dataclass(frozen=True, slots=True)
class Point:
    """A writer after an `amount` of training: its `gain` and its `costs` by name, None where unmeasured."""

    amount: int
    gain: float | None
    costs: Mapping[str, float | None]


Curve = Sequence[Point]


def cost_at(curve: Curve, gain: float, cost: str) -> float | None:
    """Return what a curve has cost where it first reaches `gain`; None where it never does, or it is not known.

    The cost is linear in the gain between neighbours: c = c0 + (gain - g0) / (g1 - g0) * (c1 - c0).
    """
    g0, c0 = 0.0, 0.0
    if gain <= g0:
        return c0
    for point in sorted(curve, key=lambda point: point.amount):
        g1, c1 = point.gain, point.costs.get(cost)
        if g1 is None or c1 is None:
            return None
        if g1 >= gain:
            return c0 + (gain - g0) / (g1 - g0) * (c1 - c0)
        g0, c0 = g1, c1
    return None


def best_gain(curve: Curve) -> float | None:
    """Return the most that a curve gains; None of nothing."""
    gains = [point.gain for point in curve if point.gain is not None]
    return max(gains) if gains else None


def mean_curve(curves_S: Sequence[Curve]) -> list[Point]:
    """Average the seeds' curves amount by amount."""
    of_amount: dict[int, list[Point]] = {}
    for point in (point for curve in curves_S for point in curve):
        of_amount.setdefault(point.amount, []).append(point)
    return [_mean(amount, points) for amount, points in sorted(of_amount.items())]


def _mean(amount: int, points: Sequence[Point]) -> Point:
    names = dict.fromkeys(name for point in points for name in point.costs)
    costs = {name: mean_measured([point.costs.get(name) for point in points]) for name in names}
    return Point(amount, mean_measured([point.gain for point in points]), costs)


def jackknife(of_seeds: Callable[[Sequence[int]], float | None], n: int) -> BySeed:
    """Estimate something that is computed from all of `n` seeds at once, with a 95 % interval (Tukey 1958).

    The pseudo-values n·θ - (n - 1)·θ without s are averaged as one number for each seed. None as a whole where θ
    cannot be computed with all of the seeds, or without one of them.
    """
    whole = of_seeds(range(n))
    without = [of_seeds([s for s in range(n) if s != left_out]) for left_out in range(n)]
    if whole is None or n < 2 or any(each is None for each in without):
        return BySeed((None,) * n, None, None)
    found = by_seed([n * whole - (n - 1) * each for each in without if each is not None])
    return BySeed(found.values, whole, found.ci95 and _around(whole, found))


def _around(whole: float, found: BySeed) -> tuple[float, float]:
    assert found.ci95 and found.mean is not None
    reach = found.ci95[1] - found.mean
    return whole - reach, whole + reach
