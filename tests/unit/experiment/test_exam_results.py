from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from selfedit.experiment import run as experiment
from selfedit.experiment.run import run_experiment
from selfedit.recipe import Recipe
from selfedit.report.record import Report
from selfedit.report.render import as_html, as_json, render_table
from selfedit.runs import read_exams, read_trials
from selfedit.types import Exam, ExamSettings, OuterSettings, SampleSettings, Task
from tests.unit.conftest import NOUNS, make_task
from tests.unit.examining import ExaminingEngine, open_examiners, unasked, write_notes

TASKS = [make_task(f"T{i}", (*NOUNS, "tower")) for i in range(9)]  # three visible questions, two hidden ones
RECIPE = Recipe(
    name="own",
    model="pup",
    format="implications",
    sample=SampleSettings(edits=3),
    exam=ExamSettings(questions="self-made", draws=2),
    outer=OuterSettings(rounds=1, tasks=4, select="best-of-n"),
    eval_tasks=3,
    seeds=2,
    arms=("base", "rounds", "in-context"),
)


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> list[ExaminingEngine]:
    return open_examiners(monkeypatch, TASKS)


def ran(folder: Path, tasks: list[Task], **changes: object) -> Report:
    notes = write_notes(folder / "notes", tasks)
    recipe = replace(RECIPE, data=str(notes), domain="documents", **changes)  # type: ignore[arg-type]
    return run_experiment(recipe, folder / "run", "cpu")


def test_a_folder_without_questions_is_reported_by_the_hidden_halves(tmp_path: Path) -> None:
    report = ran(tmp_path, unasked(TASKS), seeds=1)
    accuracy = {arm.name: arm for arm in report.arms}
    assert accuracy["base"].accuracy == 0
    assert accuracy["in-context"].accuracy == 1
    assert (accuracy["round-1"].accuracy or 0) > 0
    assert {arm.n_questions for arm in report.arms} == {2 * 3}, "two of the five questions on each passage"
    folder = tmp_path / "run" / "seed-0"
    exams, by_hand = read_exams(folder), []
    for trial in read_trials(folder).values():
        if trial.key.startswith("round-1/"):
            roles = [q.role for q in exams[trial.task_id].questions]
            marks = [s.value for s, role in zip(trial.after_Q, roles, strict=True) if role == "hidden"]
            by_hand.append(sum(mark or 0 for mark in marks) / len(marks))
    assert accuracy["round-1"].accuracy == pytest.approx(sum(by_hand) / len(by_hand))


def test_visible_and_hidden_halves_are_compared_and_with_given_questions_those_too(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    without, beside = (ran(tmp_path / n, tasks, seeds=1) for n, tasks in (("a", unasked(TASKS)), ("b", TASKS)))
    assert [(found.a, found.b) for found in without.agreements] == [("visible", "hidden")]
    assert [(found.a, found.b) for found in beside.agreements] == [
        ("visible", "hidden"),
        ("visible", "given"),
        ("hidden", "given"),
        ("both halves", "given"),
    ]
    for found in beside.agreements:
        edits, within, passages = found.levels
        assert (edits.n, within.n, passages.n) == (12, 12, 4)
    assert all(found.choice for found in beside.agreements)
    assert '"a": "visible"' in str(as_json(beside)["agreements"]).replace("'", '"')
    assert "What the model's own exams are worth" in as_html(beside)
    assert [str(table.title) for table in render_table(beside)][-1].startswith("The best edit of each passage")


@pytest.mark.parametrize(
    ("vary", "names"),
    [
        ({"exam": {"questions": ["given", "self-made"]}}, {"visible", "hidden", "both halves"}),
        ({"exam": {"draws": [1, 2]}}, {f"{name} {n}" for name in ("visible", "hidden", "both halves") for n in (1, 2)}),
    ],
)
def test_exams_are_named_by_their_variant_where_several_have_some(
    tmp_path: Path, vary: dict[str, object], names: set[str]
) -> None:
    assert {found.a for found in ran(tmp_path, TASKS, seeds=1, vary=vary).agreements} == names


def test_a_run_on_given_questions_compares_no_exams(tmp_path: Path) -> None:
    report = ran(tmp_path, TASKS, exam=ExamSettings())
    assert report.agreements == ()
    assert "agreements" not in as_json(report)
    assert not any("one exam" in str(table.title) for table in render_table(report))
    assert not any("exam that the model wrote" in note for note in report.notes)


def test_what_became_of_the_exams_and_of_copies_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = [q.question for task in TASKS for q in task.questions]
    monkeypatch.setattr(experiment, "open_backend", lambda *names: ExaminingEngine(TASKS, copied=copied))
    notes = ran(tmp_path, unasked(TASKS)).notes
    assert any(note.startswith("14 of 14 texts have an exam") for note in notes)
    n = 2 * (4 * 3 + 2 * 3)
    told = f"{5 * n} lines of self-edits were left out as copies of such a question, in {n} of {n} updates."
    assert told in notes
    assert "Unseen passages without given questions are reported by the hidden halves: 12 questions." in notes


def test_marks_on_two_exams_of_one_passage_are_never_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = iter([TASKS, [replace(task, questions=task.questions[:3]) for task in TASKS]])
    monkeypatch.setattr(experiment, "open_backend", lambda *names: ExaminingEngine(next(order)))
    report = ran(tmp_path, unasked(TASKS[:7]))
    unseen = [
        {trial.task_id for key, trial in read_trials(tmp_path / "run" / f"seed-{s}").items() if key.startswith("base/")}
        for s in (0, 1)
    ]
    assert unseen[0] & unseen[1]
    assert report.arms[0].n_passages == 6


def test_what_must_not_be_learnt_is_reported_apart_from_either_exam(tmp_path: Path) -> None:
    secrets = [{"question": t.questions[0].question, "answer": t.questions[0].answer} for t in TASKS]
    rows = [
        {"id": t.id, "title": t.title, "context": t.context, "questions": [secret | {"role": "forbidden"}]}
        for t, secret in zip(TASKS, secrets, strict=True)
    ]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    recipe = replace(RECIPE, data=str(tmp_path / "data.json"), domain="documents", seeds=1)
    report = run_experiment(recipe, tmp_path / "run", "cpu")
    assert {arm.n_questions for arm in report.arms} == {2 * 3}
    assert any(note.startswith("Share of the questions on what must not be learnt") for note in report.notes)
    exams = read_exams(tmp_path / "run" / "seed-0")
    assert not any(q.question == t.questions[0].question for t in TASKS for q in exams.get(t.id, Exam("")).questions)
    assert [(found.a, found.b) for found in report.agreements] == [("visible", "hidden")]
