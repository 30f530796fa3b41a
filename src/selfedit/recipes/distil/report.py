"""What each way to update learnt, forgot and cost: computed from the ledgers of all seeds.

The passage is what is resampled (`report.stats`), and the seeds' passages are one sample; beside it stands Student's t
on one number for each seed. "kl" is the drift on text that the model draws itself, in nats a token, and "known" the
share of questions on what it was trained with that it still answers (`loop.probes`).

    for line in table(summarise(folders, arms)): ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfedit.report.stats import BySeed, Interval, Marks, Paired, by_seed, interval, paired
from selfedit.runs import read_trials
from selfedit.types import Trial, mean_measured

BASE = "base"
PAIRS = (
    ("passage", "implications"),
    ("implications", "implications, soft"),
    ("answers", "answers, soft"),
    ("answers, soft", "on-policy, forward"),
    ("on-policy, reverse", "on-policy, forward"),
    ("answers, soft", "soft, then on-policy"),
    ("on-policy, forward", "soft, then on-policy"),
    ("implications", "answers, soft"),
    ("implications", "on-policy, forward"),
    ("implications", "soft, then on-policy"),
    ("answers, soft", "answers, soft, half rate"),
    ("answers, soft, half rate", "soft, then on-policy"),
    ("answers, soft, half rate", "on-policy, forward"),
    ("answers, soft, half rate", "soft, then on-policy, half rate"),
    ("implications", "answers, soft, half rate"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """An arm: the accuracy in [0, 1] over passages and seed by seed, what was forgotten, labels and seconds of
    processor time an update. `n_unusable` self-edits held nothing to learn from, which is an accuracy of 0."""

    name: str
    accuracy: Interval
    by_seed: BySeed
    kl: Interval
    known: Interval
    labels: float | None
    seconds: float | None
    n_unusable: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Arm `b` less arm `a` on the same passages: in accuracy, and in what was forgotten."""

    a: str
    b: str
    accuracy: Paired
    by_seed: BySeed
    kl: Paired
    known: Paired


@dataclass(frozen=True, slots=True)
class Result:
    """What a run says. Of the base there is the accuracy alone: nothing is forgotten where nothing is learnt."""

    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]


def summarise(folders: Sequence[Path], arms: Sequence[str]) -> Result:
    """Compute the result of all seeds from their run folders."""
    trials_S = [list(read_trials(folder).values()) for folder in folders]
    differences = tuple(_difference(a, b, trials_S) for a, b in PAIRS if {a, b} <= set(arms))
    return Result((_base(arms[0], trials_S), *(_row(arm, trials_S) for arm in arms)), differences)


def table(result: Result) -> Iterator[str]:
    """Lay a result out in lines for a terminal."""
    yield f"{'arm':<32} {'right, %':<22} {'kl, nats':<24} {'still known, %':<22} labels  seconds  passages"
    for row in result.rows:
        labels, seconds = ("-" if each is None else f"{each:.{d}f}" for each, d in ((row.labels, 0), (row.seconds, 1)))
        forgot = f"{_shown(row.kl, 1, 3):<24} {_shown(row.known, 100, 1):<22}"
        cost = f"{labels:>6}  {seconds:>7}  {row.accuracy.n:>8}"
        yield f"{row.name:<32} {_shown(row.accuracy, 100, 1):<22} {forgot} {cost}"
    yield ""
    yield f"{'difference, paired':<58} {'points':<22} {'by seed':<22} {'kl, nats':<26} still known, points"
    for each in result.differences:
        spans = (
            f"{_shown(each.accuracy, 100, 1):<22} {_span(each.by_seed.ci95, 100, 1):<22} "
            f"{_shown(each.kl, 1, 3):<26} {_shown(each.known, 100, 1)}"
        )
        yield f"{f'{each.b} - {each.a}':<58} {spans}"
    bad = sum(row.n_unusable for row in result.rows)
    yield f"{bad} updates had nothing to learn from, and count as 0"


def _row(arm: str, trials_S: Sequence[Sequence[Trial]]) -> Row:
    of_S = [_of(arm, trials) for trials in trials_S]
    of_N = [trial for trials in of_S for trial in trials]
    return Row(
        arm,
        interval(_values(of_N, "reward")),
        by_seed([mean_measured([trial.reward for trial in trials]) for trials in of_S]),
        interval(_values(of_N, "kl")),
        interval(_values(of_N, "known")),
        mean_measured([trial.measures.get("labels") for trial in of_N]),
        mean_measured([trial.cost.get("train_s") for trial in of_N]),
        sum(trial.failure is not None and trial.adapter is None for trial in of_N),
    )


def _base(arm: str, trials_S: Sequence[Sequence[Trial]]) -> Row:
    of_S = [_of(arm, trials) for trials in trials_S]
    marks = interval({trial.task_id: [trial.baseline] for trials in of_S for trial in trials})
    seeds = by_seed([mean_measured([trial.baseline for trial in trials]) for trials in of_S])
    return Row(BASE, marks, seeds, interval({}), interval({}), None, None, 0)


def _difference(a: str, b: str, trials_S: Sequence[Sequence[Trial]]) -> Difference:
    def between(what: str, trials: Sequence[Trial]) -> Paired:
        return paired(_values(_of(a, trials), what), _values(_of(b, trials), what))

    all_N = [trial for trials in trials_S for trial in trials]
    seeds = by_seed([between("reward", trials).difference for trials in trials_S])
    return Difference(a, b, between("reward", all_N), seeds, between("kl", all_N), between("known", all_N))


def _of(arm: str, trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.key.rpartition("/")[0] == arm]


def _values(trials: Sequence[Trial], what: str) -> Marks:
    """Collect one value a passage: the mark, or a measure."""
    return {each.task_id: [each.reward if what == "reward" else each.measures.get(what)] for each in trials}


def _shown(found: Interval | Paired, scale: float, digits: int) -> str:
    value = found.mean if isinstance(found, Interval) else found.difference
    sign = "" if isinstance(found, Interval) else "+"
    return "-" if value is None else f"{scale * value:{sign}.{digits}f} {_span(found.ci95, scale, digits)}"


def _span(ci95: tuple[float, float] | None, scale: float, digits: int) -> str:
    return "" if ci95 is None else f"({scale * ci95[0]:.{digits}f} to {scale * ci95[1]:.{digits}f})"
