"""The method visibly learns on a CPU, and what should stop it does stop it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from selfedit import experiment
from selfedit.config import load_recipe
from selfedit.engine.local import LocalBackend
from selfedit.report.record import Report
from selfedit.tasks.exams import answer_prompt
from selfedit.tasks.knowledge import Knowledge
from selfedit.types import Adapter, Failure, Recipe, Rollout, Task, TrainJob

pytestmark = pytest.mark.e2e

SMALL = ["eval_tasks=24", "outer.tasks=16", "sample.edits=5"]


def small(*overrides: str) -> Recipe:
    return load_recipe("demo", [*SMALL, *overrides])


def accuracies(report: Report) -> dict[str, float]:
    found = {arm.name: arm.accuracy for arm in report.arms}
    return {name: value for name, value in found.items() if value is not None}


def assert_learns(report: Report) -> None:
    """The claims of the demo, with room for a smaller run."""
    found = accuracies(report)
    assert found["base"] <= 0.05, "the base knows what it cannot know"
    assert found["round-0"] >= found["base"] + 0.05, "self-edits taught nothing"
    assert found["round-2"] >= found["round-0"] + 0.04, "reinforcement made the writer no better"


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return experiment.run_experiment(small(), tmp_path_factory.mktemp("run"), "cpu")


def test_the_method_learns_and_rl_makes_it_learn_better(learnt: Report) -> None:
    assert_learns(learnt)
    assert all(arm.n_failed == 0 for arm in learnt.arms)


def test_nothing_is_learnt_when_the_update_is_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = LocalBackend.train

    def still(self: LocalBackend, jobs: Sequence[TrainJob]) -> list[Adapter | Failure]:
        frozen = [replace(job, settings=replace(job.settings, learning_rate=1e-12, epochs=1)) for job in jobs]
        return train(self, frozen)

    monkeypatch.setattr(LocalBackend, "train", still)
    with pytest.raises(AssertionError, match="taught nothing"):
        assert_learns(experiment.run_experiment(small("outer.tasks=2", "sample.edits=2"), tmp_path, "cpu"))


def test_rl_does_not_help_when_rewards_are_shuffled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selfedit.loop import arms
    from selfedit.loop.algorithms import ALGORITHMS, shuffled

    rest_em = ALGORITHMS["rest_em"]
    monkeypatch.setattr(arms, "_algorithm", lambda recipe: shuffled(lambda g: rest_em(g, recipe.outer.select), seed=1))
    with pytest.raises(AssertionError, match="no better"):
        assert_learns(experiment.run_experiment(small(), tmp_path, "cpu"))


def test_an_exam_with_the_passage_in_view_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_book(self: Knowledge, task: Task) -> list[str]:
        return [answer_prompt(q.question, task.title, task.context) for q in task.questions]

    monkeypatch.setattr(Knowledge, "exam", open_book)
    with pytest.raises(AssertionError, match="cannot know"):
        assert_learns(experiment.run_experiment(small("outer.tasks=2", "sample.edits=2"), tmp_path, "cpu"))
