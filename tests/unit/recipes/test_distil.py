"""Self-distillation: who sees what, what a teacher is asked for, and that a killed run goes on where it was."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from selfedit.config import load_recipe
from selfedit.engine.base import Backend, SampleJob, open_backend
from selfedit.errors import ConfigError, RunError
from selfedit.experiment.run import load_program
from selfedit.loop.inner import is_bad_edit
from selfedit.loop.outer import Known
from selfedit.recipe import Recipe
from selfedit.recipes.distil import run as program
from selfedit.recipes.distil.run import ARMS, Extent, experiment, run
from selfedit.recipes.distil.teaching import answered, lines, questions_of, taught, turns
from selfedit.runs import read_trials
from selfedit.tasks.base import load_domain
from selfedit.tasks.world import fresh_tasks
from selfedit.types import Adapter, Example, Failure, Question, Sample, Task, TrainJob, TrainSettings, Trial

TINY = ("seed=100", "seeds=1", "eval_tasks=2", "sample.max_tokens=120", "exam.max_tokens=8")
SHORT = Extent(steps=2, rounds=2, k=8)
TASK = Task("t", "Tavo Merin", "She works for Belno Mill.", (Question("Whom does Tavo Merin work for?", "Belno Mill"),))


def sample(text: str) -> Sample:
    return Sample("", (), (), (), text, "eos")


@pytest.fixture(scope="module")
def engine() -> Backend:
    return open_backend("local", "pup", "cpu")


def text_of(engine: Backend, tokens: tuple[int, ...]) -> str:
    return str(engine._checkpoint.tokenizer.decode(tokens))  # type: ignore[attr-defined]


def quiet(done: int, total: int) -> None:
    """Hear how far a run is."""


# ── what is asked ──


def test_a_question_of_the_exam_is_never_asked_whatever_its_case_and_each_other_one_once() -> None:
    text = (
        "whom does Tavo Merin work for\nAnswer: Belno Mill\nQuestion 2: Who pays Tavo Merin?\nAnswer: Belno Mill\n"
        "Question 3: Who pays Tavo Merin?\nAnswer: nobody\nQuestion 4: Where is it?"
    )
    assert questions_of(TASK, sample(text)) == ["Who pays Tavo Merin?"]
    assert questions_of(TASK, sample("This is an interesting passage.")) == []


def test_turns_go_round_everything_and_of_nothing_there_are_none() -> None:
    found = turns("abc", 8, seed=1)
    assert len(found) == 8
    assert sorted(found[:3]) == sorted(found[3:6]) == ["a", "b", "c"]
    assert turns("abc", 8, seed=1) == found != turns("abc", 8, seed=2)
    assert turns([], 8, seed=1) == ()


# ── who sees what ──


def test_the_student_answers_without_the_passage_and_the_teacher_scores_with_it(engine: Backend) -> None:
    ((lesson,),) = answered([TASK], [["Who pays Tavo Merin?"]], engine, [None], seed=0)
    student = text_of(engine, lesson.datum.tokens)
    assert TASK.context not in student
    assert "Who pays Tavo Merin?" in student
    assert f"{TASK.title}\n{TASK.context}" in text_of(engine, lesson.view)
    assert lesson.datum.weights == (0.0,) * lesson.start + (1.0,) * (len(lesson.datum.tokens) - lesson.start)
    assert lesson.end == len(lesson.datum.tokens)


def test_an_answer_of_the_teachers_is_drawn_with_the_passage_in_view(
    engine: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[SampleJob] = []
    draw = type(engine).sample

    def listening(self: Backend, jobs: Sequence[SampleJob]) -> list[list[Sample] | Failure]:
        asked.extend(jobs)
        return draw(self, jobs)

    monkeypatch.setattr(type(engine), "sample", listening)
    bare = engine.encode([Example(TASK.context)], TrainSettings())
    (adapter,) = engine.train([TrainJob(bare, TrainSettings(epochs=1), 0)])
    assert isinstance(adapter, Adapter)
    answered([TASK], [["Who pays Tavo Merin?"]], engine, None, seed=0)
    answered([TASK], [["Who pays Tavo Merin?"]], engine, [adapter], seed=0)
    assert [(TASK.context in job.prompt, job.adapter) for job in asked] == [(True, None), (False, adapter)]
    assert {(job.temperature, job.top_p) for job in asked} == {(1.0, 1.0)}


def test_a_line_is_read_by_the_teacher_after_the_prompt_and_the_bare_passage_by_nobody(engine: Backend) -> None:
    domain = load_domain("world", "implications", TrainSettings())
    edit = domain.parse(TASK, sample("She is paid by Belno Mill.\nShe works."))
    first, second, passage = lines(TASK, edit, domain.prompt(TASK), engine)
    assert text_of(engine, first.datum.tokens[first.start : first.end]) == "She is paid by Belno Mill."
    assert text_of(engine, second.datum.tokens[: second.start]) == "Tavo Merin\n"
    assert text_of(engine, first.view).endswith("Implications:\n")
    assert passage.start == passage.end
    assert set(first.datum.weights) == {1.0}


def test_targets_stand_at_the_students_own_positions(engine: Backend) -> None:
    domain = load_domain("world", "implications", TrainSettings())
    task = fresh_tasks("eval", 1, 100)[0]
    edit = domain.parse(task, sample("She works.\nIt is old."))
    lessons = lines(task, edit, domain.prompt(task), engine)
    for lesson, datum in zip(lessons, taught(lessons, engine, 5), strict=True):
        assert datum.soft
        told = [t for t, tokens in enumerate(datum.soft.tokens) if tokens]
        assert told == list(range(lesson.start, lesson.end))
        assert replace(datum, soft=None) == lesson.datum
    first, of_first = lessons[0], taught(lessons, engine, 5)[0]
    assert of_first.soft
    whole = first.view + first.datum.tokens[first.start : first.end]
    (alone,) = engine.top_logprobs([replace(first.datum, tokens=whole, weights=(1.0,) * len(whole))], 5)
    assert of_first.soft.tokens[first.start : first.end] == alone.tokens[len(first.view) :]
    found, expected = of_first.soft.logprobs[first.start], alone.logprobs[len(first.view)]
    assert found == pytest.approx(expected, abs=1e-4)


def test_with_the_passage_in_view_the_teacher_knows_at_once_what_the_student_does_not(engine: Backend) -> None:
    (task,) = fresh_tasks("eval", 1, 101)
    asked = [question.question for question in task.questions]
    (found,) = answered([task], [asked], engine, None, seed=0)
    seen = taught(found, engine, 1)
    blind = engine.logprobs([lesson.datum for lesson in found])
    sure = [datum.soft.logprobs[lesson.start][0] for lesson, datum in zip(found, seen, strict=True) if datum.soft]
    guess = [row[lesson.start] for lesson, row in zip(found, blind, strict=True)]
    assert sum(map(math.exp, sure)) / len(sure) > 0.9
    assert sum(map(math.exp, guess)) / len(guess) < 0.4


# ── the program ──


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("world-distil", TINY)


@pytest.fixture(scope="module", autouse=True)
def few_probes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "FAMOUS", 2)
        yield


@pytest.fixture(scope="module")
def finished(
    recipe: Recipe, engine: Backend, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str], list[TrainJob]]:
    """A run's folder, what it shows, and what was trained."""
    folder, jobs, train = tmp_path_factory.mktemp("distil"), list[TrainJob](), type(engine).train

    def listening(self: Backend, given: Sequence[TrainJob]) -> list[Adapter | Failure]:
        jobs.extend(given)
        return train(self, given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(engine), "train", listening)
        shown = list(run(recipe, folder, "cpu", quiet, SHORT))
    return folder, shown, jobs


Finished = tuple[Path, list[str], list[TrainJob]]


def without_cost(folder: Path) -> dict[str, Trial]:
    return {key: replace(trial, cost={}) for key, trial in read_trials(folder).items()}


def test_every_arm_is_tried_on_every_passage(finished: Finished) -> None:
    folder, shown, _ = finished
    trials = read_trials(folder / "seed-100")
    assert list(dict.fromkeys(key.rpartition("/")[0] for key in trials)) == list(ARMS)
    assert len(trials) == 2 * len(ARMS)
    for trial in trials.values():
        assert trial.failure is None or trial.failure.stage == "parse"
        if trial.adapter:
            assert trial.measures.keys() == {"labels", "known", "kl"}
    result = json.loads((folder / "distil.json").read_text())
    assert [row["name"] for row in result["rows"]] == ["base", *ARMS]
    assert [line.split()[-1] for line in shown[1 : 2 + len(ARMS)]] == ["2"] * (1 + len(ARMS))  # passages


def test_all_take_as_many_steps_and_on_policy_goes_on_with_its_student_at_a_falling_rate(
    recipe: Recipe, finished: Finished
) -> None:
    folder, _, jobs = finished
    updated = [trial for trial in read_trials(folder / "seed-100").values() if trial.adapter]
    assert sum(len(job.data) for job in jobs) == SHORT.steps * len(updated)
    by_arm = {arm: sum(trial.key.startswith(f"{arm}/") for trial in updated) for arm in ARMS}
    going_on = [arm for arm in ARMS if "on-policy" in arm]
    assert sum(job.start is not None for job in jobs) == sum(by_arm[arm] for arm in going_on) > 0
    whole = recipe.inner.learning_rate
    rates = {(job.start is not None, job.settings.schedule, job.settings.learning_rate / whole) for job in jobs}
    assert rates == {
        (False, "linear", 1.0),
        (False, "constant", 0.75),
        (True, "constant", 0.25),
        (False, "linear", 0.5),
        (True, "constant", 0.125),
    }


def test_a_run_that_was_killed_goes_on_and_ends_as_the_unbroken_one(
    recipe: Recipe, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("passage", "on-policy, reverse")
    monkeypatch.setattr(program, "ARMS", {arm: ARMS[arm] for arm in few})

    def kill(done: int, total: int) -> None:
        if done == 3:  # between two passages of the on-policy arm
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run(recipe, tmp_path, "cpu", kill, SHORT))
    assert len(read_trials(tmp_path / "seed-100")) == 3
    list(run(recipe, tmp_path, "cpu", quiet, SHORT))
    unbroken = without_cost(finished[0] / "seed-100")
    assert without_cost(tmp_path / "seed-100") == {key: t for key, t in unbroken.items() if key.startswith(few)}


def test_what_holds_nothing_to_learn_is_a_real_0(
    recipe: Recipe, engine: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "ARMS", {"answers": ARMS["answers"]})
    monkeypatch.setattr(program, "questions_of", lambda task, sample: [])
    trials = [event for event in experiment(recipe, engine, SHORT, Known()) if isinstance(event, Trial)]
    assert [(trial.reward, trial.adapter) for trial in trials] == [(0.0, None)] * 2
    assert all(is_bad_edit(trial.failure) for trial in trials)


def test_another_extent_is_another_run(recipe: Recipe, finished: Finished) -> None:
    with pytest.raises(RunError, match="choose another folder"):
        list(run(recipe, finished[0], "cpu", quiet, replace(SHORT, k=9)))


@pytest.mark.parametrize("override", ["together=2", "arms=['base']", "vary.format=['rewrite']"])
def test_settings_that_mean_nothing_here_are_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="leave it out"):
        list(run(load_recipe("world-distil", [*TINY, override]), tmp_path, "cpu", quiet, SHORT))


def test_it_is_found_by_the_command_line() -> None:
    assert load_program(load_recipe("world-distil")) is run
