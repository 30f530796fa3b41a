from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from selfedit.experiment.run import run_experiment
from selfedit.experiment.spread_results import spread_comparisons
from selfedit.loop.weak import held, paths_in
from selfedit.recipe import Recipe
from selfedit.report.record import Report
from selfedit.report.render import as_html, headline
from selfedit.runs import read_drawn, read_exams, read_trials
from selfedit.types import ExamSettings, OuterSettings, SampleSettings, Task
from tests.unit.conftest import NOUNS, make_task
from tests.unit.examining import ExaminingEngine, open_examiners, unasked, write_notes

TASKS = [make_task(f"T{i}", (*NOUNS, "tower", "well")) for i in range(6)]
RECIPE = Recipe(
    name="weak",
    model="pup",
    format="implications",
    sample=SampleSettings(edits=1),
    exam=ExamSettings(questions="self-made", draws=1),
    outer=OuterSettings(rounds=2, tasks=3, learner="base"),
    eval_tasks=6,
    seeds=2,
    arms=("base", "even", "weak"),
)
ARMS = ["base", "first-pass", "even-1", "even-2", "weak-1", "weak-2"]


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> list[ExaminingEngine]:
    return open_examiners(monkeypatch, TASKS)


def ran(folder: Path, tasks: Sequence[Task], **changes: object) -> Report:
    notes = write_notes(folder / "notes", tasks)
    recipe = replace(RECIPE, data=str(notes), domain="documents", **changes)  # type: ignore[arg-type]
    return run_experiment(recipe, folder / "run", "cpu")


def test_given_questions_report_in_every_arm_beside_the_hidden_halves(tmp_path: Path) -> None:
    report = ran(tmp_path, TASKS, seeds=1)
    assert [arm.name for arm in report.arms] == ARMS
    assert {arm.n_questions for arm in report.arms} == {6 * 6}
    hidden = {entry.arm.name: entry.arm for entry in report.kinds if entry.kind == "hidden"}
    assert list(hidden) == ARMS[1:]
    assert {arm.n_questions for arm in hidden.values()} == {6 * 3}, "half of the exam of six"
    folder = tmp_path / "run" / "seed-0"
    exams, by_hand = read_exams(folder), []
    for first, *_ in paths_in(
        read_trials(folder), [replace(task, id=key) for task, key in zip(TASKS, exams, strict=True)]
    ):
        asked = exams[first.task_id].questions
        marks = [s.value or 0 for s, q in zip(first.after_Q, asked, strict=False) if q.role == "hidden"]
        by_hand.append(sum(marks) / len(marks) if held([first]).trial else 0.0)
    assert hidden["first-pass"].accuracy == pytest.approx(sum(by_hand) / len(by_hand))


def test_without_given_questions_the_hidden_halves_report(tmp_path: Path) -> None:
    report = ran(tmp_path, unasked(TASKS), seeds=1)
    assert [arm.name for arm in report.arms] == ARMS
    assert {arm.n_questions for arm in report.arms} == {6 * 3}
    assert {pair.n for pair in report.paired} == {6}


def test_both_ways_are_compared_after_every_round_by_passage_and_by_seed(tmp_path: Path) -> None:
    report = ran(tmp_path, TASKS)
    pairs = {(pair.a, pair.b): pair for pair in report.paired}
    for kind in ("", ", hidden", ", any right"):
        assert (f"even-1{kind}", f"weak-1{kind}") in pairs
        last = pairs[f"even-2{kind}", f"weak-2{kind}"]
        assert last.by_seed and len(last.by_seed.values) == 2
    assert (report.paired[0].a, report.paired[0].b) == ("even-2", "weak-2")
    assert "weak-2" in headline(report)
    assert pairs["base", "first-pass"].n == 6


def test_the_share_with_a_right_answer_counts_passages(tmp_path: Path) -> None:
    report = ran(tmp_path, TASKS, seeds=1)
    some = {entry.arm.name: entry.arm for entry in report.kinds if entry.kind == "any right"}
    assert {arm.n_questions for arm in some.values()} == {6}
    assert some["even-2"].accuracy and round(some["even-2"].accuracy * 6, 9).is_integer()
    accuracy = {arm.name: arm.accuracy or 0.0 for arm in report.arms}
    assert all((arm.accuracy or 0) >= accuracy[name] for name, arm in some.items())


def test_the_report_says_what_each_way_has_cost(tmp_path: Path) -> None:
    report = ran(tmp_path, TASKS, seeds=1, arms=("weak",))
    told = {note.partition(":")[0]: note for note in report.notes}
    assert [told[name].split()[1] for name in ("first-pass", "weak-1", "weak-2")] == ["6", "9", "12"]
    drawn = read_drawn(tmp_path / "run" / "seed-0")
    first = sum(len(samples[0].tokens) for key, samples in drawn.items() if key.startswith("study-0/"))
    assert f"self-edits of {first:,} tokens" in told["first-pass"] and told["first-pass"].endswith(f"{first:,} tokens.")
    learnt = [key.split("/")[1:3] for key in read_trials(tmp_path / "run" / "seed-0") if key.startswith("study/")]
    trained = sum(len(drawn[f"study-{j}/{task}"][0].tokens) for task, drafts in learnt for j in drafts.split("+"))
    assert told["weak-2"].endswith(f"{trained:,} tokens.") and trained > first
    assert "as nothing was wrong" not in as_html(report)


def test_a_way_that_ended_early_stands_for_later_rounds_and_says_so(tmp_path: Path) -> None:
    report = ran(tmp_path, TASKS, sample=SampleSettings(edits=16), seeds=1, arms=("weak",))
    assert [arm.name for arm in report.arms] == ["first-pass", "weak-1", "weak-2"]
    assert len({arm.accuracy for arm in report.arms}) == 1
    assert any(note.startswith("weak, seed 0: no round was run, as nothing was wrong") for note in report.notes)


def test_every_variant_has_its_ways(tmp_path: Path) -> None:
    report = ran(tmp_path, TASKS, seeds=1, vary={"exam": {"draws": [1, 2]}})
    assert {"weak-2 1", "weak-2 2", "first-pass 2"} <= {arm.name for arm in report.arms}
    assert ("even-2 2, hidden", "weak-2 2, hidden") in [(pair.a, pair.b) for pair in report.paired]


def test_one_way_alone_is_compared_with_where_it_began() -> None:
    assert list(spread_comparisons(["first-pass", "weak-1", "weak-2"])) == [("first-pass", "weak-2")]
    assert list(spread_comparisons([])) == []
