"""Runs that a judge marks: what its failures cost, and that going on makes up for them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfedit import workspace
from selfedit.config import load_recipe
from selfedit.errors import ModelError
from selfedit.experiment import run as experiment
from selfedit.experiment.plans import make_plan
from selfedit.experiment.run import run_experiment
from selfedit.judges import VERDICTS
from selfedit.recipe import Recipe
from selfedit.report.record import Report
from selfedit.runs import read_trials
from selfedit.sources.documents import Documents
from selfedit.types import ExamSettings, JudgeSettings, OuterSettings, SampleSettings, Trial
from selfedit.workspace import Workspace
from tests.unit.conftest import FakeEngine, make_task, plain
from tests.unit.serving import Reply, Service, chat, refusal

RECIPE = Recipe(
    model="fake",
    domain="world",
    format="implications",
    seeds=2,
    sample=SampleSettings(edits=2),
    exam=ExamSettings("judge"),
    outer=OuterSettings(rounds=1, tasks=2, select="best-of-n"),
    eval_tasks=3,
    arms=("base", "passage", "rounds"),
)


def exact(body: dict[str, Any]) -> Reply:
    """Judge as the grader "exact" would; list the models where that is what is asked."""
    if "messages" not in body:
        return 200, {"object": "list", "data": [{"id": "m", "object": "model"}]}
    gold, student = (
        json.loads(body["messages"][0]["content"].partition(f"\n{label}: ")[2].partition("\n")[0]).strip(" .").lower()
        for label in ("right answer", "student")
    )
    return 200, chat("yes" if gold == student else "no")


class Dying:
    """A judge whose server breaks off after `n` verdicts."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self, body: dict[str, Any]) -> Reply:
        self.left -= "messages" in body
        return exact(body) if self.left >= 0 else (503, refusal("no memory"))


@pytest.fixture
def recipe(service: Service, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe whose judge is on this machine and whose model is a fake one."""

    def open_fake(name: str, model: str, device: str) -> FakeEngine:
        plans = [make_plan(replace(RECIPE, seed=seed, eval_tasks=9), Path()) for seed in range(2)]
        return FakeEngine([task for plan in plans for task in [*plan.train, *plan.unseen]])

    monkeypatch.setattr(experiment, "open_backend", open_fake)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr("os.fsync", lambda file: None)
    service.reply = exact
    return replace(RECIPE, judge=JudgeSettings("m", service.url, retries=0, concurrency=2))


def ledger(out: Path) -> dict[str, Trial]:
    folders = sorted(folder for folder in out.iterdir() if folder.is_dir())
    return {f"{folder.name}/{key}": plain(t) for folder in folders for key, t in read_trials(folder).items()}


def marks(trials: dict[str, Trial]) -> dict[str, list[float | None]]:
    return {key: [s.value for s in (*trial.before_Q, *trial.after_Q)] for key, trial in trials.items()}


def verdicts_asked(service: Service) -> int:
    return sum("messages" in body for body in service.asked)


def test_a_judge_that_marks_as_a_rule_does_gives_the_marks_of_the_rule(recipe: Recipe, tmp_path: Path) -> None:
    run_experiment(recipe, tmp_path / "judge", "cpu")
    run_experiment(replace(recipe, exam=ExamSettings("exact"), judge=JudgeSettings()), tmp_path / "rule", "cpu")
    judged = ledger(tmp_path / "judge")
    assert marks(judged) == marks(ledger(tmp_path / "rule"))
    assert len({trial.reward for trial in judged.values()}) > 2


@pytest.mark.parametrize("n", [1, 20])
def test_what_a_dead_judge_left_unmarked_is_measured_when_the_run_goes_on(
    recipe: Recipe, service: Service, tmp_path: Path, n: int
) -> None:
    run_experiment(recipe, tmp_path / "whole", "cpu")
    whole, n_whole = ledger(tmp_path / "whole"), verdicts_asked(service)
    service.reply = Dying(n)
    first = run_experiment(replace(recipe, arms=("base", "passage")), tmp_path / "out", "cpu")
    broken = ledger(tmp_path / "out")
    lost = [trial for trial in broken.values() if trial.reward is None]
    assert lost
    for trial in lost:
        assert [score.value for score in trial.after_Q] == [None] * len(trial.after_Q)
        assert trial.failure and (trial.failure.stage, trial.failure.kind) == ("grade", "Unmarked")
        assert "no memory" in trial.failure.message
    assert all(marks(broken)[key] == marks(whole)[key] for key, trial in broken.items() if not trial.failure)
    assert sum(arm.n_failed for arm in first.arms) == sum(len(trial.after_Q) for trial in lost)
    assert any("trials were not measured (grade, Unmarked: " in note for note in first.notes)

    service.reply = exact
    service.asked.clear()
    report = run_experiment(recipe, tmp_path / "out", "cpu")
    assert ledger(tmp_path / "out") == whole, "as if the judge had always been there"
    assert sum(arm.n_failed for arm in report.arms) == 0
    assert verdicts_asked(service) == n_whole - n, "what was paid for is not paid for again"


def test_a_baseline_that_was_lost_is_measured_when_the_run_goes_on(
    recipe: Recipe, service: Service, tmp_path: Path
) -> None:
    one = replace(recipe, seeds=1, arms=("passage",), eval_tasks=1)
    run_experiment(one, tmp_path / "whole", "cpu")
    asked: list[str] = []

    def fails_at_first(body: dict[str, Any]) -> Reply:
        asked.append(str(body))
        return (503, refusal("loading")) if "messages" in body and len(asked) < 4 else exact(body)

    service.reply = fails_at_first
    (tmp_path / "whole" / VERDICTS).unlink()
    run_experiment(one, tmp_path / "out", "cpu")
    (trial,) = ledger(tmp_path / "out").values()
    assert trial.reward is not None
    assert [score.value for score in trial.before_Q] == [None] * len(trial.before_Q)
    run_experiment(one, tmp_path / "out", "cpu")
    assert ledger(tmp_path / "out") == ledger(tmp_path / "whole")


def test_a_reply_that_cannot_be_read_is_left_out_counted_and_named(
    recipe: Recipe, service: Service, tmp_path: Path
) -> None:
    named: list[str] = []

    def unsure_once(body: dict[str, Any]) -> Reply:
        if "messages" in body and (not named or named[0] == str(body["messages"])):
            named.append(str(body["messages"]))
            return 200, chat("Hard to say.")
        return exact(body)

    service.reply = unsure_once
    report = run_experiment(replace(recipe, arms=("base",)), tmp_path, "cpu")
    (arm,) = report.arms
    n = arm.n_questions
    assert (arm.n_passages, arm.n_failed) == (6, 1)
    assert all(trial.failure is None for trial in ledger(tmp_path).values())
    assert f"base: 1 of {n + 1} answers have no mark (the first: reply unreadable: 'Hard to say.')." in report.notes


def test_all_seeds_and_variants_share_their_verdicts(recipe: Recipe, service: Service, tmp_path: Path) -> None:
    varied = replace(recipe, arms=("base",), vary={"inner": {"epochs": [1, 2]}})
    run_experiment(varied, tmp_path, "cpu")
    assert (tmp_path / VERDICTS).exists()
    n_questions = sum(len(t.after_Q) for key, t in ledger(tmp_path / "1").items())
    assert verdicts_asked(service) <= n_questions


def test_nothing_is_run_where_the_judge_does_not_answer(recipe: Recipe, tmp_path: Path) -> None:
    gone = replace(recipe, judge=JudgeSettings("m", "http://127.0.0.1:9/v1"))
    for each in (gone, replace(gone, exam=ExamSettings("exact"), vary={"exam": {"grader": ["exact", "judge"]}})):
        with pytest.raises(ModelError, match=r"no server answers at http://127\.0\.0\.1:9/v1"):
            run_experiment(each, tmp_path / "out", "cpu")
    assert not (tmp_path / "out").exists()


def test_a_lesson_is_marked_by_a_judge_and_not_begun_without_it(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.reply = exact
    tasks = [make_task(name) for name in ("Ada", "Bor")]
    engine = FakeEngine(tasks)
    monkeypatch.setattr(workspace, "open_backend", lambda name, model, device: engine)
    recipe = Recipe(format="implications", sample=SampleSettings(edits=3))
    judged = replace(recipe, exam=ExamSettings("judge"), judge=JudgeSettings("m", service.url))
    gone = replace(judged, judge=JudgeSettings("m", "http://127.0.0.1:9/v1"))
    with pytest.raises(ModelError, match="no server answers"):
        Workspace(tmp_path / "judge").learn(Documents(tuple(tasks), ()), gone)
    assert not engine.sampled
    by_rule = Workspace(tmp_path / "rule").learn(Documents(tuple(tasks), ()), recipe)
    by_judge = Workspace(tmp_path / "judge").learn(Documents(tuple(tasks), ()), judged)
    assert by_judge.gain == by_rule.gain
    assert (by_judge.gain.difference or 0) > 0
    assert (tmp_path / "judge" / VERDICTS).exists()


@pytest.mark.e2e
def test_the_embedded_model_is_marked_by_a_judge_that_dies_and_comes_back(service: Service, tmp_path: Path) -> None:
    said = [
        "n=2",
        "seeds=1",
        "arms=['base','passage']",
        "inner.epochs=1",
        "outer.rounds=0",
        "exam.grader=judge",
        "judge.model=m",
        f"judge.url={service.url}",
        "judge.retries=0",
    ]

    def run(folder: str, reply: Any) -> tuple[Report, dict[str, Trial]]:
        service.reply = reply
        return run_experiment(load_recipe("demo", said), tmp_path / folder, "cpu"), ledger(tmp_path / folder)

    _, whole = run("whole", exact)
    untrained = [score.answer for key, trial in whole.items() if "/base/" in key for score in trial.after_Q]
    _, broken = run("out", Dying(len(untrained)))
    assert {trial.reward is None for key, trial in broken.items() if "/base/" in key} == {False}
    assert {trial.reward is None for key, trial in broken.items() if "/passage/" in key} == {True}
    report, mended = run("out", exact)
    assert marks(mended) == marks(whole)
    assert [arm.n_failed for arm in report.arms] == [0, 0]
