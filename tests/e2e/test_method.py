"""The method visibly learns on a CPU, and what should stop it does stop it.

One round, to fit in minutes: what two rounds and three seeds bring is measured by `make evidence`, not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from selfedit.config import load_recipe
from selfedit.engine.local import LocalBackend
from selfedit.experiment.run import run_experiment
from selfedit.recipe import Recipe
from selfedit.report.record import Report
from selfedit.tasks.exams import answer_prompt
from selfedit.tasks.knowledge import Knowledge
from selfedit.types import Adapter, Failure, Task, TrainJob

pytestmark = pytest.mark.e2e

ONE_ROUND = ["outer.rounds=1", "outer.tasks=20", "eval_tasks=32", "arms=['base','passage','rounds','shuffled-reward']"]
TINY = ["outer.tasks=2", "sample.edits=2", "eval_tasks=6"]


def recipe(*overrides: str) -> Recipe:
    return load_recipe("demo", [*ONE_ROUND, *overrides])


def accuracies(report: Report) -> dict[str, float]:
    return {arm.name: arm.accuracy for arm in report.arms if arm.accuracy is not None}


def assert_learns(found: dict[str, float]) -> None:
    assert found["base"] <= 0.05, "the base knows what it cannot know"
    assert found["passage"] >= found["base"] + 0.03, "the passage taught nothing"
    assert found["round-0"] >= found["base"] + 0.10, "self-edits taught nothing"
    assert found["round-1"] >= found["shuffled-reward"] + 0.03, "the reward made no difference"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run_experiment(recipe(), tmp_path_factory.mktemp("run"), "cpu")


def test_self_edits_teach_and_rewarded_ones_teach_more(report: Report) -> None:
    assert_learns(accuracies(report))
    assert all(arm.n_failed == 0 and arm.n_passages == 32 for arm in report.arms)


def test_a_writer_whose_rewards_were_shuffled_is_noticed(report: Report) -> None:
    found = accuracies(report)
    with pytest.raises(AssertionError, match="the reward made no difference"):
        assert_learns(found | {"round-1": found["shuffled-reward"]})


def test_an_update_that_is_switched_off_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = LocalBackend.train

    def still(self: LocalBackend, jobs: Sequence[TrainJob]) -> list[Adapter | Failure]:
        frozen = [replace(job, settings=replace(job.settings, learning_rate=1e-12, epochs=1)) for job in jobs]
        return train(self, frozen)

    monkeypatch.setattr(LocalBackend, "train", still)
    with pytest.raises(AssertionError, match="taught nothing"):
        assert_learns(accuracies(run_experiment(recipe(*TINY), tmp_path, "cpu")))


def test_an_exam_with_the_passage_in_view_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_book(self: Knowledge, task: Task) -> list[str]:
        return [answer_prompt(q.question, task.title, task.context) for q in task.questions]

    monkeypatch.setattr(Knowledge, "exam", open_book)
    with pytest.raises(AssertionError, match="cannot know"):
        assert_learns(accuracies(run_experiment(recipe(*TINY), tmp_path, "cpu")))
