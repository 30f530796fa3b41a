from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from selfedit import workspace
from selfedit.errors import ConfigError, InputError, RunError
from selfedit.recipe import Recipe
from selfedit.runs import read_exams, read_trials
from selfedit.sources.documents import Documents
from selfedit.tasks.exams import halve
from selfedit.types import Exam, MenuSettings, OuterSettings, Question, SampleSettings, Task, Trial
from selfedit.workspace import Lesson, Workspace, default_recipe, read_documents, read_state, write_examples
from tests.unit.conftest import NOUNS, FakeEngine, Fault, make_task, plain
from tests.unit.examining import ExaminingEngine, is_exam_job

MORE = (*NOUNS, "tower", "market")
TASKS = [make_task(name, MORE) for name in ("Ada", "Bor", "Cil")]
LATER = [make_task("Dun", MORE)]
RECIPE = Recipe(format="implications", sample=SampleSettings(edits=3), outer=OuterSettings(repeats=2))
N_TRIALS = 3 * 3 * 2

Opened = Callable[..., tuple[Workspace, FakeEngine]]


def documents(tasks: Sequence[Task] = TASKS) -> Documents:
    return Documents(tuple(tasks), ())


def without_questions(tasks: Sequence[Task] = TASKS) -> Documents:
    return documents([replace(task, questions=()) for task in tasks])


@pytest.fixture
def open_at(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Open a workspace with a fake engine of the given properties, as a new process would."""
    monkeypatch.setattr("os.fsync", lambda file: None)

    def open_fake(
        folder: Path, model: str | None = None, kind: type[FakeEngine] = FakeEngine, **properties: object
    ) -> tuple[Workspace, FakeEngine]:
        engine = kind([*TASKS, *LATER], **properties)  # type: ignore[arg-type]
        monkeypatch.setattr(workspace, "open_backend", lambda name, model, device: engine)
        return Workspace(folder, model), engine

    return open_fake


def ledger(lesson_folder: Path) -> dict[str, Trial]:
    (run,) = (lesson_folder / "runs").iterdir()
    return {key: plain(trial) for key, trial in read_trials(run).items()}


def said(lesson: Lesson) -> Lesson:
    """A lesson without where it lies."""
    return replace(lesson, folder=Path())


def texts(engine: FakeEngine) -> list[str]:
    """What the last adapter was trained on."""
    return ["".join(map(chr, datum.tokens)) for datum in engine.trained[-1].data]


# ── one lesson ──


def test_a_lesson_says_what_it_brought_and_is_kept(tmp_path: Path, open_at: Opened) -> None:
    home, _ = open_at(tmp_path)
    lesson = home.learn(documents(), RECIPE)
    assert (lesson.n_documents, lesson.n_edits, lesson.n_unusable, lesson.n_failed) == (3, 9, 0, 0)
    assert (lesson.before.accuracy, lesson.gain.n) == (0, 3)
    assert lesson.gain.difference == lesson.after.accuracy
    assert (lesson.after.accuracy or 0) > 0
    assert lesson.after.n_questions == 3 * 3
    assert lesson.folder == tmp_path / "adapters" / lesson.adapter.id
    assert lesson.folder.is_dir()
    state = read_state(tmp_path)
    assert state is not None
    assert (state.model, state.base, state.adapter) == ("pup", "fake@0123456789ab", lesson.adapter.id)


def test_a_lesson_cannot_follow_what_every_self_edit_chooses(tmp_path: Path, open_at: Opened) -> None:
    home, _ = open_at(tmp_path)
    with pytest.raises(ConfigError, match="one update on all that was written"):
        home.learn(documents(), replace(RECIPE, menu=MenuSettings((1e-3,), (2, 8))))


def test_what_was_learnt_is_answered_by_the_next_process(tmp_path: Path, open_at: Opened) -> None:
    home, engine = open_at(tmp_path)
    home.learn(documents(), RECIPE)
    questions = [q for task in TASKS for q in task.questions]
    known = [q for q in questions if any(q.answer in text and ". " not in text for text in texts(engine))]
    again, _ = open_at(tmp_path)
    assert 0 < len(known) < len(questions)
    for question in questions:
        assert again.ask(question.question) == (question.answer if question in known else "unknown")
        assert again.ask(question.question, without=True) == "unknown"


def test_the_half_that_chooses_and_the_half_that_examines_share_no_question(tmp_path: Path, open_at: Opened) -> None:
    home, engine = open_at(tmp_path)
    lesson = home.learn(documents(), RECIPE)
    final = [job for job in engine.answered if job.adapter == lesson.adapter]
    tried = [job for job in engine.answered if job.adapter not in (None, lesson.adapter)]
    choosing = {prompt for job in tried for prompt in job.prompts}
    examining = {prompt for job in final for prompt in job.prompts}
    assert len(tried) == N_TRIALS
    assert len(final) == 3
    assert len(choosing) == len(examining) == 9
    assert not choosing & examining


def test_a_question_that_is_asked_twice_is_in_one_half_only(tmp_path: Path, open_at: Opened) -> None:
    home, engine = open_at(tmp_path)
    first, *rest = TASKS[0].questions
    twice = Question(f" {first.question.lower()} ", first.answer)
    lesson = home.learn(documents([replace(TASKS[0], questions=(first, twice, *rest))]), RECIPE)
    tried = [job for job in engine.answered if job.adapter not in (None, lesson.adapter)]
    assert not any(first.question.lower() in prompt.lower() for job in tried for prompt in job.prompts)
    assert lesson.after.n_questions == 3


def test_a_single_question_examines_and_chooses_nothing(tmp_path: Path, open_at: Opened) -> None:
    home, engine = open_at(tmp_path)
    lesson = home.learn(documents([replace(TASKS[0], questions=TASKS[0].questions[:1])]), RECIPE)
    assert lesson.gain.n == 1
    assert [len(job.prompts) for job in engine.answered] == [1, 1]


def test_without_questions_nothing_is_claimed_and_every_candidate_is_learnt(tmp_path: Path, open_at: Opened) -> None:
    home, engine = open_at(tmp_path)
    lesson = home.learn(without_questions(), RECIPE)
    assert (lesson.gain.difference, lesson.gain.ci95, lesson.gain.n) == (None, None, 0)
    assert lesson.after.accuracy is None
    assert lesson.n_failed == 0
    assert engine.answered == []
    written = {trial.sample for trial in ledger(tmp_path).values() if trial.sample}
    lines = [line for sample in written for line in sample.text.split("\n")]
    assert len(texts(engine)) == len(lines) + 9, "each candidate's lines and the passage with each, once"


# ── an exam of the model's own ──


def test_without_questions_the_model_writes_an_exam_of_which_one_half_chooses_and_the_other_examines(
    tmp_path: Path, open_at: Opened
) -> None:
    home, engine = open_at(tmp_path, kind=ExaminingEngine)
    lesson = home.learn(without_questions(), RECIPE)
    assert (lesson.gain.n, lesson.before.accuracy, lesson.after.n_questions) == (3, 0, 9)
    assert (lesson.gain.difference or 0) > 0
    hidden = [q for exam in exams(tmp_path).values() for q in exam.questions if q.role == "hidden"]
    visible = [q for exam in exams(tmp_path).values() for q in exam.questions if q.role == "exam"]
    assert (len(hidden), len(visible)) == (9, 9)
    final = [prompt for job in engine.answered if job.adapter == lesson.adapter for prompt in job.prompts]
    assert [[q.question in prompt for q in hidden].count(True) for prompt in final] == [1] * 9
    assert "3 documents came without questions: 3 of 3 texts have an exam" in lesson.notes[0]


def test_the_visible_half_alone_chooses_what_is_learnt(tmp_path: Path, open_at: Opened) -> None:
    home, _ = open_at(tmp_path, kind=ExaminingEngine)
    home.learn(without_questions(), RECIPE)
    roles = {f"{key}#0": [q.role for q in exam.questions] for key, exam in exams(tmp_path).items()}
    for trial in ledger(tmp_path).values():
        visible = [s.value for s, role in zip(trial.after_Q, roles[trial.task_id], strict=True) if role == "exam"]
        assert trial.reward == pytest.approx(sum(value or 0 for value in visible) / len(visible))


def test_documents_with_questions_keep_theirs_beside_those_without(tmp_path: Path, open_at: Opened) -> None:
    home, _ = open_at(tmp_path, kind=ExaminingEngine)
    lesson = home.learn(documents([TASKS[0], replace(TASKS[1], questions=())]), RECIPE)
    assert list(exams(tmp_path)) == [TASKS[1].id]
    assert (lesson.gain.n, lesson.after.n_questions) == (2, 6)
    assert lesson.notes[0].startswith("1 document came without questions")


def test_no_note_is_made_where_all_documents_have_questions(tmp_path: Path, open_at: Opened) -> None:
    home, engine = open_at(tmp_path, kind=ExaminingEngine)
    assert home.learn(documents(), RECIPE).notes == ()
    assert not any(map(is_exam_job, engine.sampled))


def test_two_pieces_of_a_document_that_tell_one_fact_have_it_in_one_half(tmp_path: Path, open_at: Opened) -> None:
    fact = Question("What is the river of Ada?", "riverAda")
    own = [Exam("a", halve([fact, Question("Which bell?", "bell")])), Exam("b", halve([Question("Bell?", "x"), fact]))]
    first, second = workspace._whole_exam(own)
    assert first.questions[0].role == second.questions[1].role
    assert [len(exam.questions) for exam in (first, second)] == [2, 2]


def test_a_lesson_taken_up_again_asks_the_exam_that_was_recorded(tmp_path: Path, open_at: Opened) -> None:
    home, engine = open_at(tmp_path / "whole", kind=ExaminingEngine)
    whole = home.learn(without_questions(), RECIPE)
    home, engine = open_at(tmp_path / "killed", kind=ExaminingEngine, faults=[Fault("train", "", OSError("pulled"))])
    with pytest.raises(OSError, match="pulled"):
        home.learn(without_questions(), RECIPE)
    home, engine = open_at(tmp_path / "killed", kind=ExaminingEngine, wrong=True)
    assert said(home.learn(without_questions(), RECIPE)) == said(whole)
    assert not any(map(is_exam_job, engine.sampled))


def exams(lesson_folder: Path) -> dict[str, Exam]:
    (run,) = (lesson_folder / "runs").iterdir()
    return {key.removesuffix("#0"): exam for key, exam in read_exams(run).items()}


# ── choosing ──


def test_the_candidate_with_the_best_mean_over_its_repeats_is_learnt(
    tmp_path: Path, open_at: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, engine = open_at(tmp_path)
    kept: list[Trial] = []
    train = Workspace._train

    def reward(self: Workspace, pieces: Sequence[Task], trials: Sequence[Trial], *rest: object) -> object:
        marks = {(0, 0): 1.0, (0, 1): 0.0, (1, 0): 0.75, (1, 1): 0.5, (2, 0): None, (2, 1): 0.5}
        kept[:] = [replace(trial, reward=marks[trial.edit, trial.repeat]) for trial in trials]
        return train(self, pieces, kept, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Workspace, "_train", reward)
    home.learn(documents(TASKS[:1]), RECIPE)
    best = next(trial.sample for trial in kept if trial.edit == 1)
    assert best is not None
    assert texts(engine)[:-1] == [f"Title Ada\n{line}" for line in best.text.split("\n")]


def test_where_nothing_usable_was_written_the_bare_text_is_learnt(tmp_path: Path, open_at: Opened) -> None:
    home, engine = open_at(tmp_path, spoilt=[("Title Bor", draw) for draw in range(3)] + [("Title Cil", 0)])
    lesson = home.learn(documents(), RECIPE)
    assert (lesson.n_edits, lesson.n_unusable, lesson.n_failed) == (9, 4, 0)
    assert [text for text in texts(engine) if "Bor" in text] == [f"Title Bor\n{TASKS[1].context}"]


def test_where_nothing_usable_was_written_and_nothing_is_asked_the_bare_text_is_learnt(
    tmp_path: Path, open_at: Opened
) -> None:
    home, engine = open_at(tmp_path, spoilt=[("Title Ada", draw) for draw in range(3)])
    lesson = home.learn(without_questions(TASKS[:1]), RECIPE)
    assert (lesson.n_unusable, lesson.n_failed) == (3, 0)
    assert texts(engine) == [f"Title Ada\n{TASKS[0].context}"]


def test_an_inner_loop_that_failed_is_counted_and_does_not_choose(tmp_path: Path, open_at: Opened) -> None:
    home, engine = open_at(tmp_path, faults=[Fault("sample", "Passage:\nTitle Ada\n")])
    lesson = home.learn(documents(), RECIPE)
    assert (lesson.n_edits, lesson.n_unusable, lesson.n_failed) == (9, 0, 6)
    assert [text for text in texts(engine) if "Ada" in text] == [f"Title Ada\n{TASKS[0].context}"]


def test_candidates_whose_exams_failed_are_all_learnt(tmp_path: Path, open_at: Opened) -> None:
    home, engine = open_at(tmp_path, faults=[Fault("answer", "of Ada?")])
    lesson = home.learn(documents(), RECIPE)
    assert lesson.n_failed == 6
    assert (lesson.gain.n, lesson.after.n_failed) == (2, 3)
    assert texts(engine).count(f"Title Ada\n{TASKS[0].context}") == 3


# ── documents longer than the model's context ──


def test_a_long_document_is_learnt_in_pieces_each_under_its_title(tmp_path: Path, open_at: Opened) -> None:
    home, engine = open_at(tmp_path, context=200)
    lesson = home.learn(documents(TASKS[:1]), RECIPE)
    pieces = {trial.task_id for trial in ledger(tmp_path).values()}
    assert pieces == {"Ada#0", "Ada#1", "Ada#2"}
    assert (lesson.n_documents, lesson.n_edits) == (1, 9)
    seen = [job.prompt.split("Passage:\n")[1].split("\n\n")[0] for job in engine.sampled]
    assert all(len(piece) <= 100 for piece in seen)
    assert " ".join(piece.removeprefix("Title Ada\n") for piece in seen) == TASKS[0].context
    assert all("Topic: Title Ada\n" in prompt for job in engine.answered for prompt in job.prompts)


def test_a_piece_under_a_heading_is_examined_under_the_documents_title(tmp_path: Path, open_at: Opened) -> None:
    home, engine = open_at(tmp_path, context=200)
    sentences = TASKS[0].context.split(". ")
    text = "".join(f"## Part {i}\n\n{sentence}.\n\n" for i, sentence in enumerate(sentences))
    home.learn(documents([replace(TASKS[0], context=text)]), RECIPE)
    assert all("Title Ada — Part " in job.prompt for job in engine.sampled)
    assert all("Topic: Title Ada\n" in prompt for job in engine.answered for prompt in job.prompts)


def test_code_is_learnt_function_by_function_though_it_would_fit(tmp_path: Path, open_at: Opened) -> None:
    home, engine = open_at(tmp_path)
    code = replace(TASKS[0], context="import a\n\ndef f(): ...\n\ndef g(): ...", meta={"language": "python"})
    home.learn(documents([code]), RECIPE)
    seen = [job.prompt.split("Passage:\n")[1].split("\n\n")[0] for job in engine.sampled]
    assert seen == ["Title Ada\nimport a", "Title Ada — f\ndef f(): ...", "Title Ada — g\ndef g(): ..."]


def test_padding_is_not_taken_for_length(tmp_path: Path, open_at: Opened) -> None:
    home, engine = open_at(tmp_path)
    padded = replace(RECIPE, inner=replace(RECIPE.inner, pad_to=2048))
    home.learn(documents(TASKS[:1]), padded)
    assert [trial.task_id for trial in ledger(tmp_path).values()] == ["Ada#0"] * 6
    assert {len(datum.tokens) for datum in engine.trained[-1].data} == {2048}


def test_a_document_that_cannot_be_cut_is_refused_before_anything_is_run(tmp_path: Path, open_at: Opened) -> None:
    home, engine = open_at(tmp_path, context=60)
    with pytest.raises(InputError, match="too long to be learned"):
        home.learn(documents(), RECIPE)
    assert engine.sampled == []
    assert not (tmp_path / "runs").exists()


# ── lesson after lesson ──


def test_a_second_lesson_goes_on_top_of_the_first(tmp_path: Path, open_at: Opened) -> None:
    first = open_at(tmp_path)[0].learn(documents(), RECIPE)
    home, engine = open_at(tmp_path)
    second = home.learn(documents(LATER), RECIPE)
    under = {job.under.id if job.under else None for job in engine.trained}
    assert under == {first.adapter.id}
    assert [job.adapter.id if job.adapter else None for job in engine.sampled] == [first.adapter.id]
    assert second.adapter.id != first.adapter.id
    again, _ = open_at(tmp_path)
    known = [q for task in (*TASKS, *LATER) for q in task.questions if again.ask(q.question) == q.answer]
    assert {q.question.split(" of ")[1] for q in known} >= {"Dun?", "Ada?"}


def test_the_gain_of_a_second_lesson_is_over_what_the_first_left(tmp_path: Path, open_at: Opened) -> None:
    first = open_at(tmp_path)[0].learn(documents(), RECIPE)
    second = open_at(tmp_path)[0].learn(documents(), RECIPE)
    assert second.before.accuracy == first.after.accuracy
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_a_lesson_can_go_on_in_the_same_workspace_object(tmp_path: Path, open_at: Opened) -> None:
    home, engine = open_at(tmp_path)
    first = home.learn(documents(), RECIPE)
    home.learn(documents(LATER), RECIPE)
    assert engine.trained[-1].under is not None
    assert engine.trained[-1].under.id == first.adapter.id


# ── what is refused ──


def test_nothing_can_be_asked_before_something_was_learnt(tmp_path: Path, open_at: Opened) -> None:
    home, _ = open_at(tmp_path / "new")
    with pytest.raises(RunError, match=r"nothing has been learnt in .*new yet; begin with `selfedit learn FOLDER`"):
        home.ask("Who?")
    assert home.ask("Who?", without=True) == "unknown"
    assert not (tmp_path / "new").exists()


def test_a_question_that_cannot_be_answered_is_the_users_to_mend(tmp_path: Path, open_at: Opened) -> None:
    open_at(tmp_path)[0].learn(documents(), RECIPE)
    home, _ = open_at(tmp_path, faults=[Fault("answer", "Who")])
    with pytest.raises(InputError, match="the question cannot be answered: told to fail"):
        home.ask("Who?")


def test_a_workspace_of_another_model_is_refused(tmp_path: Path, open_at: Opened) -> None:
    open_at(tmp_path, "some/model")[0].learn(documents(), RECIPE)
    with pytest.raises(RunError, match="holds what 'some/model' has learnt, not 'pup'; give another --workspace"):
        open_at(tmp_path, "pup")
    assert open_at(tmp_path)[0].state.model == "some/model"
    assert open_at(tmp_path, "some/model")[0].state.adapter is not None


def test_a_workspace_opens_the_model_that_it_was_begun_with(
    tmp_path: Path, open_at: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def open_fake(name: str, model: str, device: str) -> FakeEngine:
        opened.append(model)
        return FakeEngine()

    open_at(tmp_path, "some/model")[0].learn(documents(TASKS[:1]), RECIPE)
    monkeypatch.setattr(workspace, "open_backend", open_fake)
    Workspace(tmp_path)
    Workspace(tmp_path / "new")
    Workspace(tmp_path / "other", "other/model")
    assert opened == ["some/model", "pup", "other/model"]


def test_a_workspace_of_another_version_of_the_model_is_refused(tmp_path: Path, open_at: Opened) -> None:
    open_at(tmp_path)[0].learn(documents(), RECIPE)
    with pytest.raises(RunError, match="was made with fake@0123456789ab, but 'pup' is now fake@ffff"):
        open_at(tmp_path, base="fake@ffff")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"model": "pup"}',
        b'{"model": "pup", "base": "b", "adapter": null, "more": 1}',
        b'{"model": 1, "base": "b", "adapter": null}',
        b'{"model": "pup", "base": "b", "adapter": 3}',
    ],
)
def test_a_damaged_workspace_is_refused_in_one_sentence(tmp_path: Path, open_at: Opened, content: bytes) -> None:
    (tmp_path / "workspace.json").write_bytes(content)
    with pytest.raises(RunError) as raised:
        open_at(tmp_path)
    assert str(raised.value) == f"{tmp_path / 'workspace.json'} is damaged; restore it or give another --workspace"


def test_an_update_that_fails_changes_nothing(tmp_path: Path, open_at: Opened) -> None:
    first = open_at(tmp_path)[0].learn(documents(), RECIPE)
    before = (tmp_path / "workspace.json").read_bytes()
    home, engine = open_at(tmp_path)
    engine.faults = [Fault("train", f"Title Dun\n{LATER[0].context}")]
    with pytest.raises(RunError, match="the update failed: told to fail at train; nothing was changed"):
        home.learn(documents(LATER), RECIPE)
    assert (tmp_path / "workspace.json").read_bytes() == before
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == [first.adapter.id]


# ── kill and resume ──


class Killed(BaseException):
    """What a kill is to the process."""


@pytest.mark.parametrize("after", range(N_TRIALS))
def test_a_lesson_killed_between_trials_and_called_again_gives_the_same(
    tmp_path: Path, open_at: Opened, after: int
) -> None:
    def kill(done: int, total: int) -> None:
        assert total == N_TRIALS
        if done > after:
            raise Killed

    whole = open_at(tmp_path / "whole")[0].learn(documents(), RECIPE)
    with pytest.raises(Killed):
        open_at(tmp_path / "killed")[0].learn(documents(), RECIPE, kill)
    assert len(ledger(tmp_path / "killed")) == after + 1
    assert read_state(tmp_path / "killed") is None
    home, engine = open_at(tmp_path / "killed")
    again = home.learn(documents(), RECIPE)
    assert said(again) == said(whole)
    assert ledger(tmp_path / "killed") == ledger(tmp_path / "whole")
    one_wave = N_TRIALS if after + 1 < N_TRIALS else 0
    assert len(engine.trained) == one_wave + 1, "an interrupted wave is run whole, a finished one not at all"
    assert engine.sampled == []
    (run,) = (tmp_path / "killed" / "runs").iterdir()
    assert (run / "trials.jsonl").read_bytes().count(b"\n") == N_TRIALS


@pytest.mark.parametrize("verb", ["train", "answer", "export", "write"])
def test_a_lesson_killed_at_its_end_leaves_the_last_one_answering_and_can_be_ended(
    tmp_path: Path, open_at: Opened, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    for folder in (tmp_path, tmp_path / "whole"):
        open_at(folder)[0].learn(documents(), RECIPE)
    whole = open_at(tmp_path / "whole")[0].learn(documents(LATER), RECIPE)
    state = read_state(tmp_path)
    home, engine = open_at(tmp_path)

    def kill(*given: object) -> None:
        raise Killed

    def arm(done: int, total: int) -> None:
        if done == total and verb != "write":
            monkeypatch.setattr(engine, verb, kill)

    if verb == "write":
        monkeypatch.setattr(workspace, "write_atomic", kill)
    with pytest.raises(Killed):
        home.learn(documents(LATER), RECIPE, arm)
    assert read_state(tmp_path) == state
    monkeypatch.undo()
    assert said(open_at(tmp_path)[0].learn(documents(LATER), RECIPE)) == said(whole)


def test_progress_counts_the_inner_loops(tmp_path: Path, open_at: Opened) -> None:
    heard: list[tuple[int, int]] = []
    open_at(tmp_path)[0].learn(documents(), RECIPE, lambda done, total: heard.append((done, total)))
    assert heard == [(done, N_TRIALS) for done in range(N_TRIALS + 1)]


def test_the_embedded_model_is_taught_by_the_recipe_that_was_made_for_it(tmp_path: Path, open_at: Opened) -> None:
    assert default_recipe(tmp_path, None) == default_recipe(tmp_path, "pup") == "demo"
    assert default_recipe(tmp_path, "some/model") == "clean"
    open_at(tmp_path, "some/model")[0].learn(documents(TASKS[:1]), RECIPE)
    assert default_recipe(tmp_path, None) == "clean"


# ── example documents ──


def test_example_documents_can_be_read_and_hold_the_worlds_questions(tmp_path: Path) -> None:
    write_examples(tmp_path / "notes", 4, seed=1)
    read = read_documents(tmp_path / "notes")
    assert len(read.tasks) == 4
    assert read.skipped == ()
    for task in read.tasks:
        assert len(task.questions) >= 6
        assert task.title in task.context
        assert all(question.answer in task.context for question in task.questions)
    write_examples(tmp_path / "same", 4, seed=1)
    write_examples(tmp_path / "other", 4, seed=2)
    assert read_documents(tmp_path / "same") == read
    assert read_documents(tmp_path / "other") != read


def test_bad_documents_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text("Ada wrote.")
    (tmp_path / "bad.md").write_text("")
    with pytest.raises(InputError, match=r"bad\.md"):
        read_documents(tmp_path)
    read = read_documents(tmp_path, skip_bad=True)
    assert ([task.id for task in read.tasks], len(read.bad)) == (["good.md"], 1)


def test_example_documents_are_not_written_over_something(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError):
        write_examples(tmp_path, 2, seed=0)
    with pytest.raises(InputError):
        write_examples(tmp_path / "mine.txt", 2, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_state_is_plain_json(tmp_path: Path, open_at: Opened) -> None:
    lesson = open_at(tmp_path)[0].learn(documents(), RECIPE)
    assert json.loads((tmp_path / "workspace.json").read_text()) == {
        "model": "pup",
        "base": "fake@0123456789ab",
        "adapter": lesson.adapter.id,
    }


def test_a_data_set_in_one_file_is_read_like_a_folder(tmp_path: Path) -> None:
    row = {"title": "Ada", "context": "Ada lives in Lund.", "questions": [{"question": "Where?", "answer": "Lund"}]}
    path = tmp_path / "notes.jsonl"
    path.write_text(f"{json.dumps(row)}\nnot json\n")
    with pytest.raises(InputError, match="line 2"):
        read_documents(path)
    found = read_documents(path, skip_bad=True)
    assert [task.context for task in found.tasks] == ["Ada lives in Lund."]
    assert len(found.bad) == 1


def test_a_template_of_the_recipes_asks_for_the_self_edits(tmp_path: Path, open_at: Opened) -> None:
    home, engine = open_at(tmp_path)
    home.learn(documents(), replace(RECIPE, template="Note.\nPassage:\n{title}\n{passage}\n\nNote:"))
    assert all(job.prompt.startswith("Note.\nPassage:\nTitle ") for job in engine.sampled)
