from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfedit.errors import InputError
from selfedit.loop.arms import experiment
from selfedit.loop.exams import fix_exams, write_exams
from selfedit.loop.outer import Event, Known, Lab, Round, Wrote
from selfedit.recipe import Recipe
from selfedit.tasks.base import Grader
from selfedit.tasks.graders import load_grader, normalise
from selfedit.tasks.knowledge import over_documents
from selfedit.types import (
    Adapter,
    Exam,
    ExamSettings,
    Failure,
    OuterSettings,
    Question,
    SampleSettings,
    Score,
    Task,
    TrainSettings,
    Trial,
    mean_rewarded,
)
from tests.unit.conftest import Fault, make_tasks, plain
from tests.unit.examining import ExaminingEngine, is_exam_job, unasked

TRAIN, UNSEEN = make_tasks(4), make_tasks(2, prefix="U")
DOMAIN = over_documents(TRAIN, "implications", TrainSettings())
RECIPE = Recipe(
    format="implications",
    seed=3,
    sample=SampleSettings(edits=3),
    exam=ExamSettings(questions="self-made", draws=2),
    outer=OuterSettings(rounds=2, tasks=2, select="best-of-n"),
    arms=("base", "rounds"),
)


def engine_of(**properties: object) -> ExaminingEngine:
    return ExaminingEngine([*TRAIN, *UNSEEN], **properties)  # type: ignore[arg-type]


def lab(engine: ExaminingEngine, grade: Grader | None = None) -> Lab:
    return Lab(DOMAIN, engine, grade or load_grader("exact"), RECIPE.sample, RECIPE.exam, RECIPE.seed)


def run(
    engine: ExaminingEngine,
    train: Sequence[Task] | None = None,
    unseen: Sequence[Task] = UNSEEN,
    known: Known | None = None,
    grade: Grader | None = None,
) -> list[Event]:
    train = unasked(TRAIN) if train is None else train
    return list(experiment(RECIPE, train, unseen, lab(engine, grade), known or Known()))


def trials(events: Sequence[Event]) -> list[Trial]:
    return [plain(event) for event in events if isinstance(event, Trial)]


def exams(events: Sequence[Event]) -> dict[str, Exam]:
    return {event.task_id: event for event in events if isinstance(event, Exam)}


def written(engine: ExaminingEngine, tasks: Sequence[Task]) -> list[Exam]:
    return write_exams(unasked(tasks), DOMAIN, engine, load_grader("exact"), RECIPE.exam, RECIPE.sample, RECIPE.seed)


# ── what is written ──


def test_an_exam_is_written_tried_and_halved_for_each_task() -> None:
    (exam, _) = written(engine_of(), TRAIN[:2])
    assert [(q.question, q.answer) for q in exam.questions] == [(q.question, q.answer) for q in TRAIN[0].questions]
    assert [q.role for q in exam.questions] == ["exam", "hidden", "exam", "hidden"]
    assert (exam.n_written, exam.n_repeated) == (8, 4)


def test_what_the_passage_does_not_say_and_what_is_known_without_it_is_no_question() -> None:
    known = TRAIN[0].questions[1]
    (exam,) = written(engine_of(heard=[known.answer], wrong=True), TRAIN[:1])
    assert known.question not in {q.question for q in exam.questions}
    assert (len(exam.questions), exam.n_known, exam.n_wrong) == (3, 1, 1)


def test_the_learner_is_asked_without_the_passage_and_the_base_with_it() -> None:
    engine = engine_of()
    engine.held["x"] = ("river of T0",)
    learner = Adapter("x", engine.base, None, 1)
    write_exams(unasked(TRAIN[:1]), DOMAIN, engine, load_grader("exact"), RECIPE.exam, RECIPE.sample, 0, learner)
    in_view, closed = engine.answered
    assert (in_view.adapter, closed.adapter) == (None, learner)
    assert all(TRAIN[0].context in prompt for prompt in in_view.prompts)
    assert not any(TRAIN[0].context in prompt for prompt in closed.prompts)


def test_an_exam_depends_on_its_task_and_the_seed_alone() -> None:
    jobs = []
    for tasks in (TRAIN, TRAIN[1:2]):
        engine = engine_of()
        written(engine, tasks)
        jobs.append({job.prompt: job for job in engine.sampled})
    alone, beside = jobs[1], jobs[0]
    assert alone.items() <= beside.items()
    assert len({job.seed for job in beside.values()}) == len(TRAIN)


def test_an_exam_that_could_not_be_drawn_is_a_failure_and_takes_no_other_with_it() -> None:
    engine = engine_of(faults=[Fault("sample", "Title T1\n", MemoryError("full"))])
    first, second, third = written(engine, TRAIN[:3])
    assert first.questions
    assert third.questions
    assert second.questions == ()
    assert second.failure is not None
    assert second.failure.stage == "propose"


# ── when it is written ──


def test_every_exam_is_fixed_before_the_first_self_edit_is_drawn() -> None:
    engine = engine_of()
    events = run(engine, unseen=unasked(UNSEEN))
    places = [i for i, event in enumerate(events) if isinstance(event, Exam)]
    others = [i for i, event in enumerate(events) if isinstance(event, Wrote | Trial | Round)]
    assert set(exams(events)) == {task.id for task in (*TRAIN, *UNSEEN)}
    assert max(places) < min(others)
    asked = [is_exam_job(job) for job in engine.sampled]
    assert asked == sorted(asked, reverse=True)
    assert [job.adapter for job in engine.sampled if is_exam_job(job)] == [None] * len(exams(events))


def test_only_the_writers_tasks_are_examined_by_the_model_where_others_have_questions() -> None:
    events = run(engine_of())
    assert set(exams(events)) == {task.id for task in TRAIN}
    unseen = [t for t in trials(events) if t.task_id.startswith("U")]
    assert {len(t.after_Q) for t in unseen} == {4}


def test_a_run_with_given_questions_writes_no_exam() -> None:
    engine = engine_of()
    recipe = replace(RECIPE, exam=ExamSettings())
    events = list(experiment(recipe, TRAIN, UNSEEN, lab(engine), Known()))
    assert exams(events) == {}
    assert not any(map(is_exam_job, engine.sampled))


def test_given_questions_ride_along_and_are_no_reward() -> None:
    tasks = [replace(task, questions=(Question("Unknown?", "never"),)) for task in TRAIN]
    alone, beside = run(engine_of()), run(engine_of(), train=tasks)
    assert [len(t.after_Q) for t in trials(beside) if t.key.startswith("train")] == [5] * 12
    assert [(t.key, t.reward, t.baseline) for t in trials(alone)] == [
        (t.key, t.reward, t.baseline) for t in trials(beside)
    ]


# ── resuming ──


def test_a_resumed_run_asks_the_recorded_exam() -> None:
    whole = run(engine_of())
    for kept in (2, 4, 9):
        known = Known()
        for event in whole[:kept]:
            known.note(event)
        other = engine_of(wrong=True)
        rest = run(other, known=known)
        assert len([job for job in other.sampled if is_exam_job(job)]) == max(0, 4 - kept)
        assert {**exams(whole[:kept])}.items() <= known.exams.items()
        if kept >= 4:
            assert trials(whole) == trials([*whole[:kept], *rest])


def test_an_exam_that_failed_is_written_again_until_there_is_a_trial() -> None:
    failed = {"T0": Exam("T0", failure=Failure("propose", "X", "x"))}
    (trial, *_) = trials(run(engine_of()))
    assert Known.resumed({}, {}, failed).exams == {}
    assert Known.resumed({trial.key: trial}, {}, failed).exams == failed


# ── what is rewarded ──


def judge(hidden: float) -> Grader:
    exact = load_grader("exact")

    def grade(questions: Sequence[Question], answers: Sequence[str]) -> list[Score]:
        found = exact(questions, answers)
        return [Score(hidden, s.answer) if q.role == "hidden" else s for q, s in zip(questions, found, strict=True)]

    return grade


def test_the_hidden_half_changes_no_reward_and_no_writer() -> None:
    low, high = (run(engine_of(), grade=judge(value)) for value in (0.0, 1.0))
    assert [(t.key, t.reward, t.baseline) for t in trials(low)] == [(t.key, t.reward, t.baseline) for t in trials(high)]
    assert [e for e in low if isinstance(e, Round)] == [e for e in high if isinstance(e, Round)]
    assert trials(low) != trials(high), "the marks themselves are kept"


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(["exam", "hidden", "given"]), st.floats(0, 1), st.floats(0, 1)), max_size=8))
def test_a_reward_is_the_mean_of_the_visible_marks_alone(rows: list[tuple[str, float, float]]) -> None:
    questions = [Question("?", "!", role=role) for role, _, _ in rows]  # type: ignore[arg-type]
    a = [Score(mark, "") for _, mark, _ in rows]
    b = [Score(mark if role == "exam" else other, "") for role, mark, other in rows]
    assert mean_rewarded(questions, a) == mean_rewarded(questions, b)


def test_copied_lines_are_dropped_and_counted() -> None:
    copies = [f"Question 1: {q.question}" for q in TRAIN[0].questions[:2]]
    engine = engine_of(copied=[*copies, "Answer: anything"])
    events = run(engine)
    counts = {(t.task_id, t.key.split("/")[0]): t.measures.get("copied_lines") for t in trials(events)}
    assert counts["T0", "train-1"] == 2
    assert counts["T1", "train-1"] is None
    keys = ["".join(normalise(q.question)) for q in TRAIN[0].questions]
    of_t0 = [
        text
        for job in engine.trained
        for text in ["\n".join("".join(map(chr, datum.tokens)) for datum in job.data)]
        if "Title T0" in text and "List what follows" not in text
    ]
    assert of_t0
    assert not any(key in "".join(normalise(text)) for text in of_t0 for key in keys)


# ── nothing survives ──


def test_a_task_without_an_exam_has_no_reward_and_is_never_a_zero() -> None:
    known = [q.answer for q in TRAIN[0].questions]
    events = run(engine_of(heard=known))
    of_t0 = [t for t in trials(events) if t.task_id == "T0"]
    assert exams(events)["T0"].questions == ()
    assert [(t.reward, t.baseline, t.failure) for t in of_t0] == [(None, None, None)] * 3
    assert any(t.reward for t in trials(events) if t.task_id == "T1")


@pytest.mark.parametrize("is_unseen", [False, True])
def test_a_run_in_which_no_task_has_an_exam_stops_before_anything_is_trained(is_unseen: bool) -> None:
    known = [q.answer for task in (UNSEEN if is_unseen else TRAIN) for q in task.questions]
    engine = engine_of(heard=known)
    n = 2 if is_unseen else 4
    with pytest.raises(InputError, match=rf"0 of {n} texts have an exam .* {8 * n // 2} rightly without it"):
        run(engine, unseen=unasked(UNSEEN))
    assert engine.trained == []
    assert all(map(is_exam_job, engine.sampled))


def test_exams_are_given_as_they_come_and_the_tasks_with_them() -> None:
    stage = fix_exams(unasked(TRAIN), lab(engine_of()), Known())
    seen: list[Exam] = []
    while True:
        try:
            seen.append(next(stage))
        except StopIteration as done:
            assert [task.questions for task in done.value] == [exam.questions for exam in seen]
            break
    assert len(seen) == 4
