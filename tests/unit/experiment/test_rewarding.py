from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfedit.errors import ConfigError, InputError, RunError
from selfedit.experiment import rewarding
from selfedit.experiment.plans import Plan, domain_of
from selfedit.experiment.rewarding import Rewarding, plan_practice
from selfedit.loop.inner import Unit, run_trials
from selfedit.recipe import Recipe
from selfedit.runs import read_header, read_trials
from selfedit.tasks.graders import load_grader
from selfedit.types import (
    Adapter,
    ExamSettings,
    Failure,
    OuterSettings,
    Question,
    RaceSettings,
    Task,
    TrainJob,
    WriterSettings,
)
from tests.unit.conftest import FakeEngine, Fault, make_tasks, plain

RECIPE = Recipe(
    model="fake",
    format="implications",
    outer=OuterSettings(rounds=2, tasks=2, repeats=2, learner="writer"),
    eval_tasks=2,
)
PLAN = Plan(replace(RECIPE, outer=replace(RECIPE.outer, learner="base")), Path(), make_tasks(4), make_tasks(2, "U"))
TASKS = [*PLAN.train, *PLAN.unseen]


class Batches(FakeEngine):
    """A fake engine that remembers how many jobs came at once."""

    def train(self, jobs: Sequence[TrainJob]) -> list[Adapter | Failure]:
        self.sizes = [*getattr(self, "sizes", []), len(jobs)]
        return super().train(jobs)


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> Batches:
    engine = Batches(TASKS)
    monkeypatch.setattr(rewarding, "open_backend", lambda name, model, device: engine)
    return engine


def facts(task: Task, n: int) -> str:
    return ".\n".join(task.context.split(". ")[:n])


EDITS = [(task.id, facts(task, n)) for task in TASKS[:3] for n in (1, 3)]


def rewards(edits: Sequence[tuple[str, str]], **given: Any) -> list[float | None]:
    return [rewarded.reward for rewarded in Rewarding(PLAN, **given).reward(edits)]


def test_an_edit_is_worth_what_the_adapter_that_learnt_it_knows() -> None:
    assert rewards(EDITS) == [0.25, 0.75] * 3


def test_a_batch_reaches_the_engine_at_once_with_all_its_repeats(engine: Batches) -> None:
    rewards(EDITS)
    assert engine.sizes == [len(EDITS) * 2]
    assert all(job.under is None for job in engine.trained)


def test_rewards_are_those_of_the_inner_loop_for_the_same_samples(tmp_path: Path) -> None:
    found = rewards(EDITS, folder=tmp_path)
    held = read_trials(tmp_path)
    assert len(held) == 2 * len(EDITS) and len({trial.seed for trial in held.values()}) == len(held)
    tasks = {task.id: task for task in TASKS}
    units = [
        Unit(t.key, tasks[t.task_id], t.edit, t.repeat, t.seed, (t.sample,))
        for t in held.values()
        if t.sample is not None
    ]
    domain, grade = domain_of(RECIPE), load_grader(RECIPE.exam.grader)
    again = list(run_trials(units, domain, None, FakeEngine(TASKS), grade, RECIPE.exam))
    assert [plain(trial) for trial in again] == [plain(trial) for trial in held.values()]
    assert found == [trial.reward for trial in again[::2]]


def test_a_reward_depends_neither_on_place_nor_on_company(engine: Batches, tmp_path: Path) -> None:
    rewards(EDITS, folder=tmp_path / "forth")
    rewards(EDITS[:0:-1], folder=tmp_path / "back")
    forth, back = (read_trials(tmp_path / name) for name in ("forth", "back"))
    assert back and all((trial.seed, trial.adapter) == (forth[k].seed, forth[k].adapter) for k, trial in back.items())


def test_a_reward_that_needs_more_than_marks_has_it_measured() -> None:
    recipe = replace(PLAN.recipe, outer=replace(PLAN.recipe.outer, reward="logprob"))
    assert [each.reward for each in Rewarding(replace(PLAN, recipe=recipe)).reward(EDITS)] == [-1.0] * len(EDITS)


def test_another_seed_trains_another_adapter(tmp_path: Path) -> None:
    other = replace(PLAN, recipe=replace(PLAN.recipe, seed=1))
    Rewarding(PLAN, folder=tmp_path / "0").reward(EDITS)
    Rewarding(other, folder=tmp_path / "1").reward(EDITS)
    zero, one = (read_trials(tmp_path / name) for name in "01")
    assert zero.keys() == one.keys() and all(one[key].seed != trial.seed for key, trial in zero.items())


def test_a_text_that_comes_again_is_not_tried_again(engine: Batches) -> None:
    held = Rewarding(PLAN)
    first = held.reward([*EDITS, EDITS[0]])
    assert engine.sizes == [12] and first[0] == first[-1]
    assert held.reward(EDITS) == first[:-1]
    assert engine.sizes == [12]


def test_a_run_taken_up_again_from_its_folder_tries_only_what_is_new(engine: Batches, tmp_path: Path) -> None:
    first = rewards(EDITS[:4], folder=tmp_path)
    assert rewards([("T0", facts(TASKS[0], 2)), *EDITS[:4]], folder=tmp_path) == [0.5, *first]
    assert engine.sizes == [8, 2]
    edits = {(t.task_id, t.edit, t.sample.text) for t in read_trials(tmp_path).values() if t.sample}
    assert len(edits) == len({(task, edit) for task, edit, _ in edits}) == 5


def test_the_folder_says_what_was_done_and_has_one_writer(tmp_path: Path) -> None:
    held = Rewarding(PLAN, folder=tmp_path)
    header = read_header(tmp_path)
    assert header and header.recipe["outer"]["learner"] == "base"
    with pytest.raises(RunError, match="is being written by process"):
        Rewarding(PLAN, folder=tmp_path)
    del held
    Rewarding(PLAN, folder=tmp_path)


def test_an_unusable_edit_is_a_real_zero() -> None:
    bad, good = Rewarding(PLAN).reward([("T0", "…"), ("T0", facts(TASKS[0], 2))])
    assert (bad.reward, bad.is_unusable) == (0.0, True)
    assert (good.reward, good.is_unusable, good.failure) == (0.5, False, None)


@pytest.mark.parametrize("at", ["train", "answer", "encode"])
def test_what_could_not_be_measured_is_none_and_tried_again_when_it_comes_again(
    engine: Batches, tmp_path: Path, at: str
) -> None:
    held = Rewarding(PLAN, folder=tmp_path)
    engine.faults = [Fault(at, "of T1", RuntimeError("out of memory"))]
    found = held.reward(EDITS)
    assert [rewarded.reward for rewarded in found] == [0.25, 0.75, None, None, 0.25, 0.75]
    assert found[2].failure and "out of memory" in found[2].failure.message and not found[2].is_unusable
    engine.faults = []
    assert [rewarded.reward for rewarded in held.reward(EDITS)] == [0.25, 0.75] * 3
    assert [trial.reward for trial in read_trials(tmp_path).values()].count(None) == 0


def test_a_task_that_the_recipe_does_not_have_is_named() -> None:
    with pytest.raises(InputError, match="there is no task 'T9' among the 6 of this recipe"):
        Rewarding(PLAN).reward([("T9", "text")])


def test_practice_has_the_tasks_of_all_rounds_and_the_learner_is_the_base() -> None:
    recipe = replace(RECIPE, seeds=3, arms=("base",), writer=WriterSettings(model="another"))
    plan = plan_practice(recipe)
    assert (len({task.id for task in plan.train}), len(plan.unseen)) == (4, 2)
    assert (plan.recipe.outer.learner, plan.recipe.writer) == ("base", WriterSettings())
    assert plan_practice(recipe) == plan


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (replace(RECIPE, vary={"format": ["rewrite", "self-qa"]}), "'format' varies in this recipe"),
        (replace(RECIPE, exam=ExamSettings(questions="self-made")), "are for selfedit's own rounds"),
        (replace(RECIPE, outer=OuterSettings(reward="learnt")), "are for selfedit's own rounds"),
        (replace(RECIPE, outer=OuterSettings(reward="rubric")), "are for selfedit's own rounds"),
        (replace(RECIPE, outer=OuterSettings(reward="forbidden")), "needs questions on what must not be learnt"),
        (replace(RECIPE, outer=OuterSettings(reward="retention")), "needs questions that 'fake' can answer"),
        (replace(RECIPE, outer=OuterSettings(reward="gian")), "unknown reward 'gian'; did you mean 'gain'"),
        (replace(RECIPE, domain="documents"), "add data=PATH"),
        (
            replace(RECIPE, outer=OuterSettings(race=RaceSettings("learnt"))),
            "in selfedit's own rounds alone; leave out",
        ),
    ],
)
def test_a_recipe_that_a_trainer_cannot_run_is_refused(recipe: Recipe, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan_practice(recipe)


def test_tasks_that_could_reward_nothing_are_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    given = replace(TASKS[1], questions=(Question("What?", "That", role="given"),))
    monkeypatch.setattr(rewarding, "make_plan", lambda *_: replace(PLAN, train=[TASKS[0], given]))
    with pytest.raises(InputError, match=r"1 tasks have no exam question \(such as 'T1'\)"):
        plan_practice(RECIPE)


def test_a_judge_needs_a_folder_for_its_verdicts() -> None:
    judged = replace(PLAN, recipe=replace(PLAN.recipe, exam=ExamSettings(grader="judge")))
    with pytest.raises(ConfigError, match="name a folder for them"):
        Rewarding(judged)
