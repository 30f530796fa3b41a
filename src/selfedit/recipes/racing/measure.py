"""What a race saves and what it costs, read from one full measurement: every self-edit with every seed.

A race (`loop.racing`) runs a part of the inner loops of the full measurement, so that all races are in its ledger. They
are run here by the same code, with the ledger in place of the engine. The full choice and a race's see the same R
seeds; what the chosen self-edits are worth is then read from the others, which no choice has seen, or whoever picks the
luckiest would seem to pick the best.

Of 2R seeds, each half chooses while the other judges, in every way to halve them, and each seed of the half comes first
once. All of it is averaged before passages are compared: the interval is over passages.

    selfedit run world-racing

Axis suffixes: P passages, G edits of a passage, R seeds that choose, S ways to split the seeds.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean

from selfedit.errors import ConfigError
from selfedit.experiment.plans import make_plans
from selfedit.experiment.run import Progress, run_experiment
from selfedit.loop.inner import Unit
from selfedit.loop.learnt import FOLDS, Pair, Predict, fit
from selfedit.loop.racing import of_finalists, race
from selfedit.loop.rewards import Reward, accuracy, logprob
from selfedit.recipe import Recipe
from selfedit.report.stats import Interval, interval
from selfedit.runs import read_trials, write_atomic
from selfedit.types import RaceSettings, Task, Trial, mean_measured

Key = tuple[str, int, int]  # passage, edit, seed
Ledger = Mapping[Key, Trial]
Chosen = dict[str, int]  # the edit that was chosen of each passage
FULL, ONE_SEED = "all seeds", "one seed, no race"
RACES = {
    "race by one-seed": RaceSettings("one-seed"),
    "race by logprob": RaceSettings("logprob"),
    "race by learnt": RaceSettings("learnt"),
}
RANDOM = "random pick"


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to choose a self-edit: `loops` of inner loops and their `seconds` a passage; in [0, 1] the share of
    passages where it chooses as all seeds do, the `reward` of its choice with seeds that it has not seen, and the
    `loss` of that against the full choice's, on the same passages."""

    name: str
    loops: float
    seconds: float
    agreement: float
    reward: Interval
    loss: Interval


@dataclass(frozen=True, slots=True)
class Result:
    """All choices between `edits` self-edits of each of `passages` with `repeats` seeds, and how often two full
    measurements with different seeds agree."""

    passages: int
    edits: int
    repeats: int
    again: float
    choices: tuple[Choice, ...]


def run(recipe: Recipe, out: Path, device: str, progress: Progress) -> Iterator[str]:
    """Run what is missing of the full measurement in `out`; yield a table of the choices, `racing.json` in short.

    Raises `ConfigError` for a recipe that is no full measurement.
    """
    if recipe.outer.race.by or recipe.outer.reward != "logprob" or recipe.outer.repeats % 2 or recipe.outer.rounds != 1:
        raise ConfigError(
            'a full measurement is one round without outer.race, with outer.reward="logprob", which measures marks and '
            "log-probabilities alike, and an even number of outer.repeats"
        )
    plain = replace(recipe, program="")
    run_experiment(plain, out, device, progress)
    plans, _ = make_plans(plain, out)
    tasks = {task.id: task for plan in plans for task in plan.train}
    result = read_races(tasks, [trial for plan in plans for trial in read_trials(plan.folder).values()])
    write_atomic(out / "racing.json", json.dumps(asdict(result), indent=2) + "\n")
    yield from table(result)


def read_races(tasks: Mapping[str, Task], trials: Sequence[Trial]) -> Result:
    """Compare the choices on the passages of the first round that were measured whole: every edit with every seed."""
    ledger = {(t.task_id, t.edit, t.repeat): t for t in trials if t.key.startswith("train-1/") and t.sample}
    edits, seeds = 1 + max(edit for _, edit, _ in ledger), 1 + max(repeat for _, _, repeat in ledger)
    whole = [
        id for id in tasks if all((id, edit, repeat) in ledger for edit in range(edits) for repeat in range(seeds))
    ]
    tasks = {id: tasks[id] for id in whole}
    found_S = [_Split(tasks, ledger, edits, order) for order in orders(seeds)]
    names = (FULL, ONE_SEED, *RACES)
    choices = (*(_choice(name, found_S) for name in names), _at_random(found_S))
    full_S = {frozenset(found.seeds): found.chosen(FULL) for found in found_S}
    again = [_agreement(chosen, full_S[frozenset(range(seeds)) - seen]) for seen, chosen in full_S.items()]
    return Result(len(tasks), edits, seeds // 2, fmean(again), choices)


def orders(seeds: int) -> list[tuple[int, ...]]:
    """List every half of the seeds, each beginning with each of its own once, [S][R]."""
    halves = combinations(range(seeds), seeds // 2)
    return [(*half[first:], *half[:first]) for half in halves for first in range(len(half))]


class _Split:
    """The seeds that choose, in their order; the others judge."""

    def __init__(self, tasks: Mapping[str, Task], ledger: Ledger, edits: int, seeds: Sequence[int]) -> None:
        self.tasks, self.ledger, self.edits, self.seeds = tasks, ledger, edits, seeds
        self.judges = sorted({repeat for _, _, repeat in ledger} - set(seeds))
        self.tried = {FULL: self._all(seeds), ONE_SEED: self._all(seeds[:1])}
        self.tried |= {name: self._race(settings) for name, settings in RACES.items()}

    def chosen(self, name: str) -> Chosen:
        """Say which edit of each passage a choice takes: the best of those that ran to the end, the first of equals."""
        trials = self.tried[name]
        reward = of_finalists(accuracy, trials)
        by_edit: dict[tuple[str, int], list[Trial]] = {}
        for trial in trials:
            by_edit.setdefault((trial.task_id, trial.edit), []).append(trial)
        best: dict[str, tuple[float, int]] = {}
        for (task_id, edit), trials_R in sorted(by_edit.items(), key=lambda item: item[0]):
            worth = reward(self.tasks[task_id], trials_R).reward
            if worth is not None and (task_id not in best or worth > best[task_id][0]):
                best[task_id] = worth, edit
        return {task_id: edit for task_id, (_, edit) in best.items()}

    def judged(self, task_id: str, edit: int) -> float | None:
        """Return what an edit is worth with the seeds that have chosen nothing."""
        return mean_measured([self.ledger[task_id, edit, seed].reward for seed in self.judges])

    def _all(self, seeds: Sequence[int]) -> list[Trial]:
        return [self.ledger[id, edit, seed] for id in self.tasks for edit in range(self.edits) for seed in seeds]

    def _race(self, settings: RaceSettings) -> list[Trial]:
        """Run a race from the ledger. What a prediction is made from are other passages, by one seed each."""
        ranking = logprob if settings.by == "logprob" else accuracy
        if settings.by != "learnt":
            return self._run(list(self.tasks), settings.keep, ranking)
        trials: list[Trial] = []
        for fold in range(FOLDS):
            held_out = list(self.tasks)[fold::FOLDS]
            first = [trial for trial in self.tried[ONE_SEED] if trial.task_id not in held_out]
            trials += self._run(held_out, settings.keep, ranking, fit([*self._pairs(first)]))
        return trials

    def _pairs(self, trials: Sequence[Trial]) -> Iterator[Pair]:
        for trial in trials:
            if trial.sample and trial.reward is not None:
                yield Pair(self.tasks[trial.task_id], trial.sample, trial.reward)

    def _run(self, ids: Sequence[str], keep: float, ranking: Reward, predict: Predict | None = None) -> list[Trial]:
        read = {
            self.ledger[id, e, s].key: self.ledger[id, e, s]
            for id in ids
            for e in range(self.edits)
            for s in self.seeds
        }
        units = [_unit(self.tasks[trial.task_id], trial) for trial in read.values()]

        def look_up(heat_N: Sequence[Unit]) -> Generator[None, None, list[Trial]]:
            yield from ()
            return [read[unit.key] for unit in heat_N]

        return _returned(race(units, keep, ranking, look_up, predict))


def _unit(task: Task, trial: Trial) -> Unit:
    assert trial.sample
    return Unit(trial.key, task, trial.edit, trial.repeat, trial.seed, (trial.sample,))


def _returned(running: Generator[None, None, list[Trial]]) -> list[Trial]:
    while True:
        try:
            next(running)
        except StopIteration as end:
            return list(end.value)


def _choice(name: str, found_S: Sequence[_Split]) -> Choice:
    """Describe a choice by its means over all splits, with intervals over passages."""
    chosen_S = [(found, found.chosen(FULL), found.chosen(name)) for found in found_S]
    worth_PS: dict[str, list[float | None]] = {}
    loss_PS: dict[str, list[float | None]] = {}
    for found, full, chosen in chosen_S:
        for id in full.keys() & chosen.keys():
            best, other = found.judged(id, full[id]), found.judged(id, chosen[id])
            worth_PS.setdefault(id, []).append(other)
            loss_PS.setdefault(id, []).append(None if best is None or other is None else best - other)
    tried = [trial for found in found_S for trial in found.tried[name]]
    n = len(found_S) * len(found_S[0].tasks)
    return Choice(
        name,
        len(tried) / n,
        sum(sum(trial.cost.values()) for trial in tried) / n,
        fmean(_agreement(full, chosen) for _, full, chosen in chosen_S),
        interval(worth_PS),
        interval(loss_PS),
    )


def _at_random(found_S: Sequence[_Split]) -> Choice:
    """Take any edit: on average, their mean."""
    worth_PS: dict[str, list[float | None]] = {}
    loss_PS: dict[str, list[float | None]] = {}
    for found in found_S:
        for id, edit in found.chosen(FULL).items():
            best, mean = found.judged(id, edit), mean_measured([found.judged(id, g) for g in range(found.edits)])
            worth_PS.setdefault(id, []).append(mean)
            loss_PS.setdefault(id, []).append(None if best is None or mean is None else best - mean)
    return Choice(RANDOM, 0.0, 0.0, 1 / found_S[0].edits, interval(worth_PS), interval(loss_PS))


def _agreement(a: Chosen, b: Chosen) -> float:
    shared = a.keys() & b.keys()
    return sum(a[id] == b[id] for id in shared) / len(shared)


def table(result: Result) -> Iterator[str]:
    """Lay a result out in lines for a terminal."""
    full = result.choices[0]
    yield f"{result.passages} passages, {result.edits} self-edits each, {result.repeats} seeds to choose by; in percent"
    yield f"{'choice':<20} {'inner loops':<20} {'as all seeds':<14} {'reward, fresh seeds':<24} loss, points"
    for choice in result.choices:
        loops = f"{choice.loops:.2g} of {full.loops:.2g}, {100 * choice.loops / full.loops:.0f} %"
        loss = "" if choice is full else f"{_shown(choice.loss)}"
        yield (
            f"{choice.name:<20} {loops:<20} {100 * choice.agreement:<14.1f} {_shown(choice.reward):<24} {loss}".rstrip()
        )
    yield f"two full measurements with different seeds choose the same in {100 * result.again:.1f} % of the passages"
    yield f"seconds a passage: {', '.join(f'{choice.name} {choice.seconds:.1f}' for choice in result.choices[:-1])}"


def _shown(found: Interval) -> str:
    span = f" ({100 * found.ci95[0]:.1f} to {100 * found.ci95[1]:.1f})" if found.ci95 else ""
    return "-" if found.mean is None else f"{100 * found.mean:.1f}{span}"
