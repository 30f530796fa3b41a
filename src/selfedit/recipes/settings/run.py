"""Let a writer choose the settings of each update, and see whether that is worth more than fixed ones.

In arXiv 2506.10943 a self-edit on a task of grids chooses learning rate and epochs of its update, one on a passage does
not. Here it does: its last line chooses both off a menu (`Recipe.menu`). A writer that was taught the form of that line
with choices dealt at random (`warm.py`) is reinforced by what its self-edits are worth, settings and all. Beside it

    round-0           the same writer before: settings at random
    shuffled-reward   reinforced with the rewards dealt to the wrong self-edits
    fixed, round-k    a writer that chooses nothing, reinforced with as many inner loops, at the recipe's settings
    X at best         the very self-edits of arm X, each trained with the one choice that does best for all

The best choice is the one with the highest mean reward over training passages of all seeds: on self-edits of the
unreinforced writer, of which some are tried with all choices, and those of the first round with the one that each drew.
"round-k - round-k at best" is then what choosing for each passage is worth against the best fixed choice, on the same
texts.

    selfedit run world-settings

In the folder: `warm` holds what the writers begin with, `chosen` and `fixed` are experiments in arms, `tried` has the
updates at one choice for all, `result.json` the tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from selfedit.engine.base import open_backend
from selfedit.errors import ConfigError
from selfedit.experiment.plans import Plan, domain_of, make_plans
from selfedit.experiment.results import report_on
from selfedit.experiment.run import Progress, run_experiment
from selfedit.experiment.writers import open_writers
from selfedit.judges import open_grader
from selfedit.loop.inner import plan, run_trials
from selfedit.recipe import Recipe
from selfedit.recipes.settings.report import Tried, best_of, summarise, table
from selfedit.recipes.settings.warm import Choice, choices, teach
from selfedit.report.render import write_report
from selfedit.runs import open_run, read_trials, write_atomic
from selfedit.types import MenuSettings, Sample, Task

GRID = 6  # training passages a seed on which every choice is tried
FIRST = "train-1"


def run(recipe: Recipe, out: Path, device: str, progress: Progress, grid: int = GRID) -> Iterator[str]:
    """Run what is missing in `out`; yield the tables of a report on all seeds.

    Raises `ConfigError` for a recipe that cannot be compared so, and what experiments in arms raise.
    """
    _check(recipe)
    warm = out / "warm" / "seed-{seed}"
    for n in range(recipe.seed, recipe.seed + recipe.seeds):
        teach(replace(recipe, seed=n, seeds=1), Path(str(warm).replace("{seed}", str(n))), device)
    chosen = replace(recipe, program="", writer=replace(recipe.writer, adapter=str(warm)))
    fixed = replace(recipe, program="", menu=MenuSettings(), arms=("rounds",))
    plans = [make_plans(each, out / name)[0] for name, each in (("chosen", chosen), ("fixed", fixed))]
    total = sum(plan.n_trials for both in plans for plan in both)
    n_chosen = sum(plan.n_trials for plan in plans[0])
    _run_missing(chosen, plans[0], device, lambda done: progress(done, total))
    _run_missing(fixed, plans[1], device, lambda done: progress(n_chosen + done, total))
    seeds = [Seed(a, b, out / "tried" / f"seed-{a.recipe.seed}") for a, b in zip(*plans, strict=True)]
    offered, last = choices(recipe.menu), f"round-{recipe.outer.rounds}"
    for seed in seeds:
        seed.attempt([(FIRST, choice) for choice in offered], device, grid)
    best = best_of([seed.tried() for seed in seeds], offered)
    for seed in seeds:
        seed.attempt([(arm, best) for arm in ("round-0", last, f"fixed {last}")], device, grid)
    result = summarise([seed.tried() for seed in seeds], offered, best, recipe.outer.rounds)
    write_atomic(out / "result.json", json.dumps(asdict(result), indent=2) + "\n")
    yield from table(result)


def _check(recipe: Recipe) -> None:
    """Raise `ConfigError` where the comparison would mean nothing."""
    if not recipe.menu.is_offered or not recipe.outer.rounds or recipe.outer.learner != "base":
        raise ConfigError(
            f'{recipe.name!r} needs a menu, a round or more and outer.learner="base", since what a writer wrote is '
            "learnt again with other settings"
        )
    if {"rounds", "shuffled-reward"} != set(recipe.arms):
        raise ConfigError(f'arms is {list(recipe.arms)}; {recipe.name!r} compares ["rounds", "shuffled-reward"]')
    plain = Recipe()
    for key in ("domain", "data", "together", "writer", "vary"):
        if getattr(recipe, key) != getattr(plain, key):
            raise ConfigError(
                f"{key} is {getattr(recipe, key)!r}, which {recipe.name!r} cannot make use of; leave it out"
            )


def _run_missing(recipe: Recipe, plans: Sequence[Plan], device: str, on_done: Callable[[int], None]) -> None:
    """Run an experiment from the first seed on that is not finished: to resume one trains its writers again. Write the
    report on all of it. `on_done` hears how many inner loops are done."""
    finished = [len(read_trials(plan.folder)) >= plan.n_trials for plan in plans]
    n = finished.index(False) if False in finished else len(plans)
    before = sum(plan.n_trials for plan in plans[:n])
    if n < len(plans):
        rest = replace(recipe, seed=recipe.seed + n, seeds=recipe.seeds - n)
        run_experiment(rest, plans[0].above, device, lambda done, total: on_done(before + done))
    on_done(sum(plan.n_trials for plan in plans))
    write_report(plans[0].above, report_on(plans))


@dataclass(frozen=True, slots=True)
class Seed:
    """One seed: its two experiments, and the folder of what was learnt again at one choice for all."""

    chosen: Plan
    fixed: Plan
    folder: Path

    def tried(self) -> Tried:
        """Read off all ledgers what was tried."""
        return Tried(
            read_trials(self.chosen.folder),
            read_trials(self.fixed.folder),
            read_trials(self.folder),
            {task.id: task for task in [*self.chosen.train, *self.chosen.unseen]},
            domain_of(self.chosen.recipe),
            domain_of(self.fixed.recipe),
        )

    def attempt(self, wanted: Sequence[tuple[str, Choice]], device: str, grid: int) -> None:
        """Learn the self-edits of each arm again, the first on each passage, with one choice for all of them."""
        recipe = self.chosen.recipe
        engine = open_backend("local", recipe.model, device)
        named = open_writers(recipe, engine, device).recipe  # the hash is to know whose texts these are
        grade = open_grader(recipe.exam.grader, recipe.judge, self.folder)
        with open_run(self.folder, named, engine.base) as run:
            for arm, choice in wanted:
                tasks, samples = self._texts(arm, grid)
                written = [[_under(sample, choice)] for sample in samples]
                units = plan(tasks, written, f"{arm} at {choice.name}", 1, recipe.seed)
                for trial in run_trials(units, domain_of(recipe), None, engine, grade, recipe.exam, run.trials()):
                    run.append(trial)

    def _texts(self, arm: str, grid: int) -> tuple[list[Task], list[Sample]]:
        """The passages of an arm with the first self-edit on each, where one could be written."""
        of = self.fixed if arm.startswith("fixed ") else self.chosen
        tasks = of.train[: min(grid, of.recipe.outer.tasks)] if arm == FIRST else of.unseen
        ledger = read_trials(of.folder)
        found = [(task, ledger[f"{arm.removeprefix('fixed ')}/{task.id}/0/0"].sample) for task in tasks]
        both = [(task, sample) for task, sample in found if sample]
        return [task for task, _ in both], [sample for _, sample in both]


def _under(sample: Sample, choice: Choice) -> Sample:
    """The same self-edit with another choice: as text alone, since nobody has drawn these tokens."""
    return Sample(sample.prompt, (), (), (), choice.under(sample.text), sample.stop)
