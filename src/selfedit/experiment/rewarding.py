"""Rewarding: the inner loop for self-edits that somebody else's trainer drew.

Such a trainer owns the writer: it samples, compares and reinforces. What it lacks is what this method rewards: an
adapter trained on each self-edit and examined closed-book. The learner is always the frozen base of the recipe, as with
`learner = "base"`; how the writer is reinforced is not the recipe's to say.

    plan = plan_practice(load_recipe("demo"))
    rewarding = Rewarding(plan, "cpu")
    rewarded, = rewarding.reward([(plan.train[0].id, "Mira founded Otrar.")])

A reward depends on the task, the text and the recipe's seed alone, up to rounding: not on the step, on the place in the
batch, or on what else is there. So a text that comes again, in a group that has become of one mind or in a run that is
taken up again from its folder, is not tried again. Only what could not be measured is.

Axis suffixes: N self-edits, R repeats (seeds) of an edit.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from selfedit.config import varied_key
from selfedit.engine.base import open_backend
from selfedit.errors import ConfigError, InputError
from selfedit.experiment.material import read_material
from selfedit.experiment.plans import Plan, domain_of, make_plan
from selfedit.experiment.terms import check_questions, check_reward, in_header, with_reward
from selfedit.judges import check_grader, open_grader
from selfedit.loop.inner import Unit, is_bad_edit, seed_of
from selfedit.loop.outer import Known, Lab, try_units
from selfedit.loop.rewards import kind_of, worth_of
from selfedit.recipe import Recipe
from selfedit.runs import open_run
from selfedit.types import Failure, Sample, Trial, WriterSettings

LABEL = "edit"


@dataclass(frozen=True, slots=True)
class Rewarded:
    """What a self-edit is worth, None where it could not be measured, and the first failure on the way."""

    reward: float | None
    failure: Failure | None

    @property
    def is_unusable(self) -> bool:
        """Say whether the reward is the real 0 of a text that could not be used."""
        return is_bad_edit(self.failure)


def plan_practice(recipe: Recipe) -> Plan:
    """Draw the tasks to practise on, those of all the recipe's rounds, and its unseen ones, for its first seed.

    Raises `ConfigError` for a recipe that a trainer cannot run, `InputError` for data that cannot be used, are too few,
    or hold a task without an exam, for which nothing could be rewarded.
    """
    if key := varied_key(recipe):
        raise ConfigError(f"{key!r} varies in this recipe, and a trainer runs one; add vary={{}} and set {key}")
    kind = kind_of(recipe.outer)
    if recipe.exam.questions == "self-made" or kind.learns or not kind.trains:
        raise ConfigError(
            "exams that the model writes itself, and rewards that are learnt or read off a text, are for selfedit's "
            'own rounds; for another trainer set exam.questions="given" and another outer.reward'
        )
    if recipe.outer.race.by:
        raise ConfigError("self-edits race for inner loops in selfedit's own rounds alone; leave out outer.race")
    check_reward(recipe)
    outer = replace(recipe.outer, learner="base")
    ours = replace(recipe, outer=outer, writer=WriterSettings(), arms=("rounds",), seeds=1)
    named, material = read_material(ours)
    plan = make_plan(named, Path(), material)
    unasked = [task.id for task in [*plan.train, *plan.unseen] if not any(q.role == "exam" for q in task.questions)]
    if unasked:
        raise InputError(
            f"{len(unasked)} tasks have no exam question (such as {unasked[0]!r}), so that no self-edit on them could "
            "be rewarded; give them questions, or leave them out"
        )
    check_questions(plan.recipe, plan.train)
    return plan


class Rewarding:
    """A frozen learner that tries self-edits. With a `folder`, every trial is in its ledger before the next begins."""

    def __init__(self, plan: Plan, device: str = "auto", folder: Path | None = None) -> None:
        """Load the learner.

        Raises `ConfigError` for an unknown grader, or a judge without a folder for its verdicts; `ModelError` for an
        unusable model; `RunError` for a folder that holds another run or cannot be written.
        """
        recipe = plan.recipe
        if recipe.exam.asks_judge and folder is None:
            raise ConfigError("a judge's verdicts are kept, since each costs; name a folder for them: folder=PATH")
        check_grader(recipe.exam.grader, recipe.judge)
        engine = open_backend("local", recipe.model, device)
        self._run = open_run(folder, in_header(recipe), engine.base) if folder else None
        if self._run:
            weakref.finalize(self, self._run.close)
        grade = open_grader(recipe.exam.grader, recipe.judge, folder or Path())
        settings = recipe.sample, recipe.exam, recipe.seed
        self._lab = with_reward(Lab(domain_of(recipe), engine, grade, *settings), recipe)
        self._repeats = recipe.outer.repeats
        self._tasks = {task.id: task for task in [*plan.train, *plan.unseen]}
        trials = self._run.trials() if self._run else {}
        self._measured = _measured(trials)
        self._edits: dict[str, dict[str, int]] = {}
        for trial in trials.values():
            if trial.sample:
                self._edits.setdefault(trial.task_id, {})[_digest(trial.sample.text)] = trial.edit

    def reward(self, edits_N: Sequence[tuple[str, str]]) -> list[Rewarded]:
        """Try the texts, each beside the id of its task, all in one go; return what each is worth, [N].

        Raises `InputError` for a task that the plan does not have.
        """
        units_NR = [self._units(task_id, text) for task_id, text in edits_N]
        new = {unit.key: unit for units_R in units_NR for unit in units_R if unit.key not in self._measured}
        tried = {trial.key: trial for trial in self._try(list(new.values()))}
        self._measured |= _measured(tried)
        return [self._rewarded(units_R, self._measured | tried) for units_R in units_NR]

    def _units(self, task_id: str, text: str) -> list[Unit]:
        if task_id not in self._tasks:
            raise InputError(
                f"there is no task {task_id!r} among the {len(self._tasks)} of this recipe; make prompts and rewards "
                "from the same recipe, with the same seed"
            )
        task, digest = self._tasks[task_id], _digest(text)
        edits = self._edits.setdefault(task_id, {})
        edit = edits.setdefault(digest, len(edits))
        samples = (Sample(self._lab.domain.prompt(task), (), (), (), text, "eos"),)
        keys = [f"{LABEL}/{task_id}/{digest}/{repeat}" for repeat in range(self._repeats)]
        return [Unit(key, task, edit, i, seed_of(self._lab.seed, key), samples) for i, key in enumerate(keys)]

    def _try(self, units: Sequence[Unit]) -> Iterator[Trial]:
        for event in try_units(units, self._lab, None, Known()):
            if isinstance(event, Trial):
                if self._run:
                    self._run.append(event)
                yield event

    def _rewarded(self, units_R: Sequence[Unit], trials: Mapping[str, Trial]) -> Rewarded:
        trials_R = [trials[unit.key] for unit in units_R]
        outcome = worth_of(self._lab.reward, units_R[0].task, trials_R)
        if isinstance(outcome, Failure):
            return Rewarded(None, outcome)
        return Rewarded(outcome.reward, next((trial.failure for trial in trials_R if trial.failure), None))


def _measured(trials: Mapping[str, Trial]) -> dict[str, Trial]:
    """Leave out the trials that are to be run again."""
    return Known.resumed(trials, {}).trials


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
