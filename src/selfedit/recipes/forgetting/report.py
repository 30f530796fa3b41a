"""What each way to train a writer gained and forgot: computed from the run folders of all seeds.

Ways are compared at equal gain. Each seed has too few passages for its own curve to be smooth, so the comparison is
made twice: for each seed by itself, where both ways reach the gain, and on the mean curve of all seeds, whose interval
comes from leaving out one seed after the other. Beside it stands what forgetting goes with: over all writers of a seed,
how it ranks them as their drift on the task does (Kendall's τ).

    for line in table(summarise(out, ways, unseen)): ...

Axis suffixes: S seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from selfedit.recipes.forgetting.curves import Curve, Point, cost_at, jackknife, mean_curve
from selfedit.recipes.forgetting.measure import MEASURES
from selfedit.report.stats import BySeed, Interval, by_seed, interval, paired, rank_agreement
from selfedit.runs import Metric, read_metrics, read_trials
from selfedit.types import Task, Trial, mean_measured

UNTRAINED = "round-0"
MEASURED = "taught"  # the folder that holds the measures of all writers
GAINS = (0.025, 0.05, 0.075)  # at which ways are compared
COSTS = ("fading/recall", "lost/recall", "lost/asking", "kl/formats/forward", "kl/plain/forward", "kl/task/forward")
SHOWN = ("fading/recall", "lost/recall", "kl/task/forward")  # in the terminal
FORGOTTEN = ("fading/recall", "lost/recall", "kl/plain/forward")
PREDICTORS = ("kl/task/forward", "kl/task/reverse", "gain")


@dataclass(frozen=True, slots=True)
class Way:
    """A way to train: in which `folder` of the run its trials are, under which `stage` for each of its `amounts`."""

    name: str
    folder: str
    stage: str
    amounts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A writer of one seed: its `accuracy` on unseen passages, its `gain` over the untrained one, its measures."""

    seed: str
    way: str
    amount: int
    accuracy: float | None
    gain: float | None
    measures: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Mean:
    """A way after an amount of training, over all seeds."""

    way: str
    amount: int
    accuracy: Interval
    gain: BySeed
    measures: Mapping[str, BySeed]


@dataclass(frozen=True, slots=True)
class Difference:
    """What way `b` costs more than way `a` at the same `gain`: on the mean curve, and in each seed (None where one of
    them does not get there)."""

    a: str
    b: str
    gain: float
    cost: str
    at_a: float | None
    at_b: float | None
    pooled: BySeed
    by_seed: BySeed


@dataclass(frozen=True, slots=True)
class Agreement:
    """How alike `predictor` and what was `forgotten` rank the writers of a seed: Kendall's τ, one for each seed."""

    predictor: str
    forgotten: str
    tau: BySeed


@dataclass(frozen=True, slots=True)
class Result:
    """What a run says; `seconds` of processor time."""

    untrained: Interval
    rows: tuple[Row, ...]
    means: tuple[Mean, ...]
    differences: tuple[Difference, ...]
    agreements: tuple[Agreement, ...]
    seconds: float


def is_there(folder: Path, unseen_P: Sequence[Task], rounds: int) -> bool:
    """Say whether an experiment's folder holds all that is read of it: its writers, and their trials on each task."""
    trials = read_trials(folder)
    stages = [UNTRAINED, *(f"round-{index}" for index in range(1, rounds + 1))]
    return all((folder / "writers" / stage).exists() for stage in stages[1:]) and all(
        f"{stage}/{task.id}/0/0" in trials for stage in stages for task in unseen_P
    )


def summarise(out: Path, ways: Sequence[Way], unseen: Mapping[str, Sequence[str]]) -> Result:
    """Compute the result of all seeds from their run folders; `unseen` names the seeds, and the tasks of each."""
    found = {
        (way.folder, seed): [trial for trial in read_trials(out / way.folder / seed).values() if trial.task_id in ids]
        for way in ways
        for seed, ids in unseen.items()
    }
    metrics = {seed: read_metrics(out / MEASURED / seed) for seed in unseen}
    rows = [
        _row(way, amount, seed, found[ways[0].folder, seed], found[way.folder, seed], metrics[seed])
        for seed in unseen
        for way in ways
        for amount in way.amounts
    ]
    means = [_mean(way, amount, rows, found) for way in ways for amount in way.amounts]
    differences = [
        _difference(one.name, other.name, gain, cost, rows, list(unseen))
        for gain in GAINS
        for one, other in combinations(ways, 2)
        for cost in COSTS
    ]
    agreements = [_agreement(predictor, cost, rows, list(unseen)) for predictor in PREDICTORS for cost in FORGOTTEN]
    untrained = interval({k: v for seed in unseen for k, v in _marks(found[ways[0].folder, seed], UNTRAINED).items()})
    seconds = sum(m.value for each in metrics.values() for m in each if m.name == "time/processor_s")
    return Result(untrained, tuple(rows), tuple(means), tuple(differences), tuple(agreements), seconds)


def _row(
    way: Way, amount: int, seed: str, first: Sequence[Trial], trials: Sequence[Trial], metrics: Sequence[Metric]
) -> Row:
    noted = {(metric.name, metric.step): metric.value for metric in metrics}
    before, after = _marks(first, UNTRAINED), _marks(trials, way.stage.format(amount))
    measures = {name: noted.get((f"{way.name}/{name}", amount)) for name in MEASURES}
    accuracy = mean_measured([value for values in after.values() for value in values])
    return Row(seed, way.name, amount, accuracy, paired(before, after).difference, measures)


def _marks(trials: Sequence[Trial], stage: str) -> dict[str, list[float | None]]:
    return {trial.task_id: [trial.reward] for trial in trials if trial.key.partition("/")[0] == stage}


def _mean(way: Way, amount: int, rows: Sequence[Row], found: Mapping[tuple[str, str], Sequence[Trial]]) -> Mean:
    of_it = [row for row in rows if (row.way, row.amount) == (way.name, amount)]
    marks: dict[str, list[float | None]] = {}
    for (folder, _), trials in found.items():
        marks |= _marks(trials, way.stage.format(amount)) if folder == way.folder else {}
    measures = {name: by_seed([row.measures[name] for row in of_it]) for name in MEASURES}
    return Mean(way.name, amount, interval(marks), by_seed([row.gain for row in of_it]), measures)


def _curve(way: str, seed: str, rows: Sequence[Row]) -> Curve:
    return [Point(row.amount, row.gain, row.measures) for row in rows if (row.way, row.seed) == (way, seed)]


def _difference(a: str, b: str, gain: float, cost: str, rows: Sequence[Row], seeds: Sequence[str]) -> Difference:
    curves_S = [(_curve(a, seed, rows), _curve(b, seed, rows)) for seed in seeds]

    def on_mean(way: int, chosen: Sequence[int]) -> float | None:
        return cost_at(mean_curve([curves_S[s][way] for s in chosen]), gain, cost)

    def pooled(chosen: Sequence[int]) -> float | None:
        return _minus(on_mean(1, chosen), on_mean(0, chosen))

    of_seed = [_minus(cost_at(other, gain, cost), cost_at(one, gain, cost)) for one, other in curves_S]
    whole = range(len(seeds))
    return Difference(
        a, b, gain, cost, on_mean(0, whole), on_mean(1, whole), jackknife(pooled, len(seeds)), by_seed(of_seed)
    )


def _agreement(predictor: str, forgotten: str, rows: Sequence[Row], seeds: Sequence[str]) -> Agreement:
    return Agreement(predictor, forgotten, by_seed([_tau(predictor, forgotten, rows, seed) for seed in seeds]))


def _tau(predictor: str, forgotten: str, rows: Sequence[Row], seed: str) -> float | None:
    found = [
        (row.gain if predictor == "gain" else row.measures[predictor], row.measures[forgotten])
        for row in rows
        if row.seed == seed
    ]
    both = [(a, b) for a, b in found if a is not None and b is not None]
    return rank_agreement([a for a, _ in both], [b for _, b in both]) if both else None


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def table(result: Result) -> Iterator[str]:
    """Lay a result out in lines for a terminal."""
    n = len(result.rows) // len(result.means)
    yield f"untrained writer: {_span(result.untrained.mean, result.untrained.ci95)} % on {result.untrained.n} passages"
    yield f"mean of {n} seeds (95 % by seed); gain in points, KL in nats a token, lost in %, fading in nats"
    columns = {
        "KL task": "kl/task/forward",
        "reverse": "kl/task/reverse",
        "KL formats": "kl/formats/forward",
        "KL plain": "kl/plain/forward",
        "reading": "lost/reading",
        "recall": "lost/recall",
        "asking": "lost/asking",
        "fading": "fading/recall",
    }
    yield f"{'way':<16} {'amount':>6} {'gain':>22} {' '.join(f'{name:>10}' for name in columns)}"
    for mean in result.means:
        cells = " ".join(f"{_number(mean.measures[name].mean, _scale(name)):>10}" for name in columns.values())
        yield f"{mean.way:<16} {mean.amount:>6} {_span(mean.gain.mean, mean.gain.ci95):>22} {cells}"
    yield ""
    yield "at equal gain: the costs of both on the mean curves, what the first costs more, the same seed by seed"
    for d in result.differences:
        if d.cost in SHOWN and d.at_a is not None and d.at_b is not None:
            scale = _scale(d.cost)
            at = f"{_number(d.at_b, scale)} and {_number(d.at_a, scale)}"
            pooled = _span(d.pooled.mean, d.pooled.ci95, scale)
            seeds = " ".join(_number(value, scale) for value in d.by_seed.values)
            name = f"{d.b} - {d.a}"
            yield f"+{100 * d.gain:g} points: {name:<28} {d.cost:<16} {at:<16} {pooled:<26} seeds: {seeds}"
    for gain in GAINS:
        short = [way for way, most in _most(result).items() if most is None or most < gain]
        yield f"+{100 * gain:g} points on the mean curve: not reached by {', '.join(short) or 'none'}"
    yield ""
    yield "how alike the writers of a seed are ranked (Kendall's tau, mean of seeds, 95 % by seed)"
    for each in result.agreements:
        yield f"{each.predictor:<18} and {each.forgotten:<20} {_span(each.tau.mean, each.tau.ci95, 1)}"
    yield f"{result.seconds / 60:.0f} minutes of one core"


def _most(result: Result) -> dict[str, float | None]:
    """Return how much each way gains at most, on average over seeds."""
    most: dict[str, float | None] = {}
    for mean in result.means:
        gains = [gain for gain in (most.get(mean.way), mean.gain.mean) if gain is not None]
        most[mean.way] = max(gains) if gains else None
    return most


def _scale(cost: str) -> float:
    """Shares are shown in percent, nats as they are."""
    return 100 if cost.startswith("lost") else 1


def _number(value: float | None, scale: float = 100) -> str:
    return "-" if value is None else f"{scale * value:.{1 if scale == 100 else 3}f}"


def _span(mean: float | None, ci95: tuple[float, float] | None, scale: float = 100) -> str:
    if mean is None or ci95 is None:
        return _number(mean, scale)
    return f"{_number(mean, scale)} ({_number(ci95[0], scale)} to {_number(ci95[1], scale)})"
