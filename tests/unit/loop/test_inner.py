from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace

import pytest

from selfedit.errors import BadEdit
from selfedit.loop.inner import (
    Unit,
    examine_untrained,
    is_bad_edit,
    plan,
    plan_together,
    propose,
    run_trials,
    seed_of,
)
from selfedit.tasks.graders import load_grader
from selfedit.tasks.knowledge import Knowledge, over_documents
from selfedit.types import (
    Adapter,
    Example,
    ExamSettings,
    Failure,
    MenuSettings,
    Question,
    Sample,
    SampleSettings,
    Score,
    SelfEdit,
    Task,
    TrainJob,
    TrainSettings,
    Trial,
)
from tests.unit.conftest import FakeEngine, Fault, make_task, make_tasks, plain

TASKS = make_tasks(4)
BROKEN = TASKS[1].id
EXAM = ExamSettings()
EXACT = load_grader("exact")
DOMAIN = over_documents(TASKS, "implications", TrainSettings())


def units_of(engine: FakeEngine, tasks: Sequence[Task] = TASKS, edits: int = 3, repeats: int = 1) -> list[Unit]:
    written = propose(tasks, DOMAIN, None, engine, SampleSettings(edits=edits), seed=5)
    return plan(tasks, written, "train-1", repeats, 5, edits)


def run(engine: FakeEngine, units: Sequence[Unit], learner: Adapter | None = None) -> list[Trial]:
    return [plain(trial) for trial in run_trials(units, DOMAIN, learner, engine, EXACT, EXAM)]


def of(trials: Sequence[Trial], task_id: str) -> list[Trial]:
    return [trial for trial in trials if trial.task_id == task_id]


def others(trials: Sequence[Trial], task_id: str) -> list[Trial]:
    return [trial for trial in trials if trial.task_id != task_id]


# ── what is planned ──


def test_a_seed_follows_from_its_key_alone_and_fits_a_generator() -> None:
    assert seed_of(0, "train-1/T0/0/0") == seed_of(0, "train-1/T0/0/0") == 1514693380
    seeds = [seed_of(seed, f"k{i}") for seed in (0, 1) for i in range(500)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_keys_are_unique_whatever_the_tasks_are_called() -> None:
    tasks = [replace(make_task("x"), id=name) for name in ("a", "a/0", "a/0/0", "a/1", "1", "", "/")]
    sample = Sample("p", (), (), (), "t", "eos")
    units = plan(tasks, [[sample, sample]] * len(tasks), "train-1", 3, 0)
    assert len({unit.key for unit in units}) == len(units) == len(tasks) * 2 * 3


def test_units_come_in_the_order_of_tasks_edits_and_repeats() -> None:
    units = units_of(FakeEngine(TASKS), TASKS[:2], edits=2, repeats=2)
    order = [(t, edit, repeat) for t in ("T0", "T1") for edit in (0, 1) for repeat in (0, 1)]
    assert [(unit.task.id, unit.edit, unit.repeat) for unit in units] == order
    assert [unit.key for unit in units] == [f"train-1/{t}/{e}/{r}" for t, e, r in order]


def test_repeats_of_an_edit_share_it_and_differ_in_their_seeds() -> None:
    first, second = units_of(FakeEngine(TASKS), TASKS[:1], edits=1, repeats=2)
    assert first.samples == second.samples
    assert first.seed != second.seed


def test_a_seed_does_not_depend_on_what_else_is_planned() -> None:
    alone = {unit.key: unit.seed for unit in units_of(FakeEngine(TASKS), TASKS[2:3])}
    among = {unit.key: unit.seed for unit in units_of(FakeEngine(TASKS), TASKS[::-1], repeats=2)}
    assert alone.items() <= among.items()


def test_a_failure_to_write_stands_for_all_edits_and_a_bare_passage_for_one() -> None:
    failure = Failure("propose", "Fault", "no")
    units = plan(TASKS[:2], [failure, None], "x", repeats=2, seed=0, edits=3)
    assert [(unit.task.id, unit.samples) for unit in units] == [("T0", failure)] * 6 + [("T1", ())] * 2


# ── writing ──


def test_what_is_drawn_for_a_task_does_not_depend_on_the_other_tasks() -> None:
    settings = SampleSettings(edits=2)
    together = propose(TASKS, DOMAIN, None, FakeEngine(TASKS), settings, seed=1)
    alone = propose(TASKS[2:3], DOMAIN, None, FakeEngine(TASKS), settings, seed=1)
    assert together[2] == alone[0]
    assert propose(TASKS, DOMAIN, None, FakeEngine(TASKS), settings, seed=2) != together


def test_each_task_is_written_about_with_a_seed_of_its_own() -> None:
    engine = FakeEngine(TASKS)
    propose(TASKS, DOMAIN, None, engine, SampleSettings(edits=2), seed=1)
    assert len({job.seed for job in engine.sampled}) == len(TASKS)


def test_the_recipes_settings_reach_the_engine() -> None:
    engine = FakeEngine(TASKS)
    (writer,) = engine.train([TrainJob((), TrainSettings(), 0)])
    assert isinstance(writer, Adapter)
    propose(TASKS[:1], DOMAIN, writer, engine, SampleSettings(3, 0.7, 0.9, 50), seed=1)
    (job,) = engine.sampled
    assert (job.n, job.temperature, job.top_p, job.max_tokens, job.adapter) == (3, 0.7, 0.9, 50, writer)
    assert job.prompt == DOMAIN.prompt(TASKS[0])


@pytest.mark.parametrize("error", [None, RuntimeError("out of memory")])
def test_a_task_that_cannot_be_written_about_takes_no_other_with_it(error: Exception | None) -> None:
    engine = FakeEngine(TASKS, faults=[Fault("sample", f"Title {BROKEN}\n", error)])
    written = propose(TASKS, DOMAIN, None, engine, SampleSettings(edits=2), seed=5)
    sound = propose(TASKS, DOMAIN, None, FakeEngine(TASKS), SampleSettings(edits=2), seed=5)
    assert isinstance(written[1], Failure)
    assert written[1].stage == "propose"
    assert [written[i] for i in (0, 2, 3)] == [sound[i] for i in (0, 2, 3)]


# ── the model's own fault: a real 0 ──


def test_an_edit_that_cannot_be_used_is_a_real_zero() -> None:
    engine = FakeEngine(TASKS, spoilt=[(TASKS[1].title, 1)])
    (trial,) = [trial for trial in run(engine, units_of(engine)) if trial.failure]
    assert (trial.task_id, trial.edit) == (BROKEN, 1)
    assert trial.reward == 0.0
    assert trial.failure == Failure("parse", "BadEdit", "the self-edit holds no text")
    assert [score.value for score in trial.after_Q] == [0.0] * len(TASKS[1].questions)
    assert trial.adapter is None
    assert trial.sample is not None


def test_an_unusable_edit_is_not_trained_on_and_its_wave_mates_are_untouched() -> None:
    spoilt, sound = FakeEngine(TASKS, spoilt=[(TASKS[1].title, 1)]), FakeEngine(TASKS)
    trials, reference = run(spoilt, units_of(spoilt)), run(sound, units_of(sound))
    assert len(spoilt.trained) == len(reference) - 1
    assert [t for t in trials if not t.failure] == [t for t in reference if t.key != f"train-1/{BROKEN}/1/0"]


# ── our own fault: unmeasured, never 0 ──

MARKER = f" of {BROKEN} is "
STAGES = [
    (Fault("sample", f"Title {BROKEN}\n"), "propose"),
    (Fault("sample", f"Title {BROKEN}\n", RuntimeError("x")), "propose"),
    (Fault("encode", MARKER, ValueError("x")), "encode"),
    (Fault("train", MARKER), "train"),
    (Fault("train", MARKER, RuntimeError("x")), "train"),
    (Fault("answer", f"of {BROKEN}?"), "answer"),
    (Fault("answer", f"of {BROKEN}?", RuntimeError("x")), "answer"),
]


@pytest.mark.parametrize(("fault", "stage"), STAGES)
def test_a_fault_of_ours_leaves_its_item_unmeasured_and_all_others_untouched(fault: Fault, stage: str) -> None:
    broken, sound = FakeEngine(TASKS, faults=[fault]), FakeEngine(TASKS)
    trials, reference = run(broken, units_of(broken)), run(sound, units_of(sound))
    assert [trial.key for trial in trials] == [trial.key for trial in reference]
    assert len(of(trials, BROKEN)) == 3
    for trial in of(trials, BROKEN):
        assert trial.reward is None
        assert trial.failure is not None
        assert trial.failure.stage == stage
        assert not is_bad_edit(trial.failure)
        assert [score.value for score in trial.after_Q] == [None] * len(TASKS[1].questions)
    assert others(trials, BROKEN) == others(reference, BROKEN)
    assert not any(trial.failure for trial in others(trials, BROKEN))


def broken_grader(questions: Sequence[Question], answers: Sequence[str]) -> list[Score]:
    if any(f"of {BROKEN}?" in question.question for question in questions):
        raise RuntimeError("the judge did not answer")
    return EXACT(questions, answers)


def short_grader(questions: Sequence[Question], answers: Sequence[str]) -> list[Score]:
    scores = EXACT(questions, answers)
    return scores[:-1] if any(f"of {BROKEN}?" in question.question for question in questions) else scores


@pytest.mark.parametrize("grader", [broken_grader, short_grader])
def test_a_grader_that_breaks_leaves_its_item_unmeasured_and_keeps_the_answers(grader: object) -> None:
    engine, sound = FakeEngine(TASKS), FakeEngine(TASKS)
    assert callable(grader)
    trials = [plain(t) for t in run_trials(units_of(engine), DOMAIN, None, engine, grader, EXAM)]
    reference = run(sound, units_of(sound))
    for trial, right in zip(of(trials, BROKEN), of(reference, BROKEN), strict=True):
        assert trial.reward is None
        assert trial.failure is not None
        assert trial.failure.stage == "grade"
        assert [score.value for score in trial.before_Q] == [None] * 4
        assert [score.answer for score in trial.after_Q] == [score.answer for score in right.after_Q]
    assert others(trials, BROKEN) == others(reference, BROKEN)


def test_a_mark_that_the_grader_withholds_is_left_out_of_the_reward() -> None:
    def withhold(questions: Sequence[Question], answers: Sequence[str]) -> list[Score]:
        return [Score(None, "", "no verdict"), Score(1.0, ""), Score(0.0, ""), Score(1.0, "")]

    engine = FakeEngine(TASKS)
    trials = list(run_trials(units_of(engine, TASKS[:1], 1), DOMAIN, None, engine, withhold, EXAM))
    assert [trial.reward for trial in trials] == [pytest.approx(2 / 3)]
    assert trials[0].failure is None


class BrokenDomain:
    """A user's domain with a defect at one stage, for one task."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def _check(self, stage: str, task: Task) -> None:
        if stage == self.stage and task.id == BROKEN:
            raise KeyError("a defect")

    def tasks(self, split: str, n: int, seed: int) -> list[Task]:
        return TASKS

    def prompt(self, task: Task) -> str:
        self._check("propose", task)
        return DOMAIN.prompt(task)

    def parse(self, task: Task, sample: Sample) -> SelfEdit:
        self._check("parse", task)
        return DOMAIN.parse(task, sample)

    def without_edit(self, task: Task) -> SelfEdit:
        return DOMAIN.without_edit(task)

    def exam(self, task: Task) -> list[str]:
        self._check("answer", task)
        return DOMAIN.exam(task)

    def open_exam(self, task: Task, shown_Q: Sequence[Task]) -> list[str]:
        return DOMAIN.open_exam(task, shown_Q)


@pytest.mark.parametrize("stage", ["propose", "parse", "answer"])
def test_a_defect_of_a_domain_is_not_charged_to_the_model(stage: str) -> None:
    engine, sound, domain = FakeEngine(TASKS), FakeEngine(TASKS), BrokenDomain(stage)
    written = propose(TASKS, domain, None, engine, SampleSettings(edits=3), seed=5)
    units = plan(TASKS, written, "train-1", 1, 5, 3)
    trials = [plain(t) for t in run_trials(units, domain, None, engine, EXACT, EXAM)]
    assert len(of(trials, BROKEN)) == 3
    for trial in of(trials, BROKEN):
        assert trial.reward is None
        assert trial.failure is not None
        assert (trial.failure.stage, trial.failure.kind) == (stage, "KeyError")
    assert others(trials, BROKEN) == others(run(sound, units_of(sound)), BROKEN)


def test_a_failed_baseline_leaves_the_reward_alone() -> None:
    engine, sound = FakeEngine(TASKS, faults=[Fault("answer-base", f"of {BROKEN}?")]), FakeEngine(TASKS)
    trials, reference = run(engine, units_of(engine)), run(sound, units_of(sound))
    assert [trial.reward for trial in trials] == [trial.reward for trial in reference]
    for trial in of(trials, BROKEN):
        assert [score.value for score in trial.before_Q] == [None] * 4
        assert trial.failure is None


@pytest.mark.parametrize("at", ["encode", "train", "answer", "answer-base"])
def test_a_full_disk_stops_the_run(at: str) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    engine = FakeEngine(TASKS)
    units = units_of(engine)
    engine.faults = [Fault(at, BROKEN, full)]
    with pytest.raises(OSError, match="No space left"):
        run(engine, units)


def test_a_full_disk_stops_writing_too() -> None:
    engine = FakeEngine(TASKS, faults=[Fault("sample", BROKEN, OSError(errno.ENOSPC, "No space left on device"))])
    with pytest.raises(OSError, match="No space left"):
        units_of(engine)


def test_only_a_bad_edit_is_charged_to_the_model() -> None:
    assert is_bad_edit(Failure("parse", BadEdit.__name__, ""))
    assert not is_bad_edit(Failure("parse", "ValueError", ""))
    assert not is_bad_edit(Failure("propose", BadEdit.__name__, ""))
    assert not is_bad_edit(None)


# ── what a trial says ──


def test_the_reward_is_the_mean_mark_after_the_update() -> None:
    engine = FakeEngine(TASKS)
    trials = run(engine, units_of(engine))
    assert len({trial.reward for trial in trials}) > 2
    for trial in trials:
        assert trial.sample is not None
        told = [score.value for score in trial.after_Q]
        assert trial.reward == sum(value or 0.0 for value in told) / 4
        assert [score.value for score in trial.before_Q] == [0.0] * 4


def test_each_tasks_marks_before_are_measured_once_whatever_the_number_of_edits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("selfedit.loop.inner.WAVE", 8)
    engine = FakeEngine(TASKS)
    units = units_of(engine, edits=3, repeats=3)
    run(engine, units)
    asked = [job.prompts for job in engine.answered if job.adapter is None]
    assert sorted(asked) == sorted(tuple(DOMAIN.exam(task)) for task in TASKS)


def test_the_learner_lies_under_every_update_and_is_what_is_examined_before() -> None:
    engine = FakeEngine(TASKS)
    bare = plan(TASKS[:1], [None], "passage", 1, 0)
    data = engine.encode([Example(f"Title\nThe river of {TASKS[0].id} is river{TASKS[0].id}.")], TrainSettings())
    (learner,) = engine.train([TrainJob(data, TrainSettings(), 0)])
    assert isinstance(learner, Adapter)
    engine.trained.clear()
    (trial,) = run(engine, bare, learner)
    assert [job.under for job in engine.trained] == [learner]
    assert [score.value for score in trial.before_Q] == [1.0, 0.0, 0.0, 0.0]
    assert learner.id in engine.held, "the learner itself is not to be released"


def test_a_trial_uses_the_settings_and_the_seed_of_its_unit() -> None:
    class Chosen(Knowledge):
        """A domain whose edits choose their own settings."""

        def parse(self, task: Task, sample: Sample) -> SelfEdit:
            return replace(DOMAIN.parse(task, sample), train=TrainSettings(epochs=3))

    engine = FakeEngine(TASKS)
    units = units_of(engine, TASKS[:1], edits=2)
    list(run_trials(units, Chosen(DOMAIN.source, DOMAIN.form, DOMAIN.train), None, engine, EXACT, EXAM))
    assert [job.settings.epochs for job in engine.trained] == [3, 3]
    assert [job.seed for job in engine.trained] == [unit.seed for unit in units]


def test_full_updates_of_which_each_is_as_large_as_the_model_are_never_held_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = FakeEngine(TASKS)
    units = units_of(engine)
    held: list[int] = []
    train = engine.train

    def watched(jobs: Sequence[TrainJob]) -> list[Adapter | Failure]:
        trained = train(jobs)
        held.append(len(engine.held))
        return trained

    monkeypatch.setattr(engine, "train", watched)
    full = over_documents(TASKS, "implications", TrainSettings(method="full"))
    trials = list(run_trials(units, full, None, engine, EXACT, EXAM))
    assert held == [1] * len(units)
    assert [trial.key for trial in trials] == [unit.key for unit in units]
    held.clear()
    run(engine, units)
    assert max(held) == len(units), "adapters share a wave"


def test_adapters_are_released_when_they_have_been_examined() -> None:
    engine = FakeEngine(TASKS)
    run(engine, units_of(engine))
    assert engine.trained
    assert engine.held == {}


def test_trials_are_yielded_wave_by_wave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfedit.loop.inner.WAVE", 8)
    engine = FakeEngine(TASKS)
    units = units_of(engine, edits=3, repeats=2)
    trials = run_trials(units, DOMAIN, None, engine, EXACT, EXAM)
    first = [next(trials).key for _ in range(8)]
    assert len(engine.trained) == 8
    assert first + [trial.key for trial in trials] == [unit.key for unit in units]


def test_an_interrupted_wave_is_run_whole_and_only_what_was_missing_is_yielded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfedit.loop.inner.WAVE", 8)
    units = units_of(FakeEngine(TASKS), edits=3, repeats=2)
    unbroken = run(FakeEngine(TASKS), units)
    engine = FakeEngine(TASKS)
    known = {trial.key: trial for trial in unbroken[:11]}
    trials = list(run_trials(units, DOMAIN, None, engine, EXACT, EXAM, known))
    assert [plain(trial) for trial in trials] == [plain(trial) for trial in unbroken[11:]]
    assert len(engine.trained) == len(units) - 8


def test_a_trial_is_the_same_in_whatever_wave_it_runs() -> None:
    engine = FakeEngine(TASKS)
    units = units_of(engine)
    reverse = run(FakeEngine(TASKS), units[::-1])
    single = [trial for unit in units for trial in run(FakeEngine(TASKS), [unit])]
    assert run(engine, units) == single == reverse[::-1]


def test_a_task_without_questions_measures_nothing() -> None:
    task = replace(TASKS[0], questions=())
    engine = FakeEngine(TASKS, spoilt=[(task.title, 0)])
    spoilt, trained = run(engine, units_of(engine, [task], edits=2))
    assert (trained.reward, trained.failure, trained.before_Q, trained.after_Q) == (None, None, (), ())
    assert spoilt.reward is None
    assert is_bad_edit(spoilt.failure)
    assert engine.answered == []


def test_nothing_to_run_touches_no_engine() -> None:
    engine = FakeEngine()
    assert run(engine, []) == []
    assert propose([], DOMAIN, None, engine, SampleSettings(), 0) == []
    assert not (engine.sampled or engine.trained or engine.answered)


# ── tasks that share an adapter ──


def shared_units(engine: FakeEngine, edits: int = 2, repeats: int = 1) -> list[Unit]:
    written = propose(TASKS, DOMAIN, None, engine, SampleSettings(edits=edits * repeats), seed=5)
    return plan_together(TASKS, written, "round-0", repeats, 5, edits)


def run_shared(
    engine: FakeEngine, units: Sequence[Unit], together: int = 2, known: dict[str, Trial] | None = None
) -> list[Trial]:
    trials = run_trials(units, DOMAIN, None, engine, EXACT, EXAM, known, together)
    return [plain(trial) for trial in trials]


def test_units_that_share_come_repeat_by_repeat_with_the_next_self_edits_of_each_task() -> None:
    engine = FakeEngine(TASKS)
    written = propose(TASKS, DOMAIN, None, engine, SampleSettings(edits=4), seed=5)
    units = plan_together(TASKS, written, "round-0", 2, 5, 2)
    assert [unit.key for unit in units] == [f"round-0/T{i}/0/{repeat}" for repeat in (0, 1) for i in range(4)]
    assert len({unit.seed for unit in units}) == 8
    for unit, samples in zip(units, [*written, *written], strict=True):
        assert isinstance(samples, list)
        assert unit.samples == tuple(samples[2 * unit.repeat : 2 * unit.repeat + 2])


def test_tasks_share_an_adapter_that_is_trained_on_all_their_texts() -> None:
    engine = FakeEngine(TASKS)
    units = shared_units(engine)
    trials = run_shared(engine, units)
    assert [trial.key for trial in trials] == [unit.key for unit in units]
    first, _ = engine.trained
    assert trials[0].adapter == trials[1].adapter != trials[2].adapter == trials[3].adapter
    assert first.seed == units[0].seed
    texts = ["".join(map(chr, datum.tokens)) for datum in first.data]
    for task in TASKS[:2]:
        assert texts.count(f"{task.title}\n{task.context}") == 2, "the passage is repeated with each self-edit"
    assert not any(TASKS[2].title in text for text in texts)
    assert all(trial.sample is None for trial in trials), "no single self-edit is to be reinforced for it"
    assert engine.held == {}


def test_every_task_is_examined_on_its_own_questions() -> None:
    together, alone = FakeEngine(TASKS), FakeEngine(TASKS)
    shared = run_shared(together, shared_units(together, edits=1), together=4)
    assert [t.reward for t in shared] == [t.reward for t in run(alone, units_of(alone, edits=1))]
    assert len(together.trained) == 1


def test_bare_passages_can_share_an_adapter() -> None:
    engine = FakeEngine(TASKS)
    run_shared(engine, plan_together(TASKS, [None] * 4, "passage", 1, 0, 5), together=4)
    assert [len(job.data) for job in engine.trained] == [4]


def test_what_fails_in_a_shared_adapter_fails_for_each_of_its_tasks_and_no_other() -> None:
    engine, sound = FakeEngine(TASKS, faults=[Fault("train", MARKER)]), FakeEngine(TASKS)
    trials, reference = run_shared(engine, shared_units(engine)), run_shared(sound, shared_units(sound))
    assert [trial.failure.stage if trial.failure else None for trial in trials] == ["train", "train", None, None]
    assert [trial.reward for trial in trials[:2]] == [None, None]
    assert trials[2:] == reference[2:]


@pytest.mark.parametrize(
    ("fault", "stage"),
    [
        (Fault("sample", f"Title {BROKEN}\n"), "propose"),
        (Fault("encode", MARKER, ValueError("too long")), "encode"),
        (Fault("answer", f"of {BROKEN}?"), "answer"),
    ],
)
def test_what_fails_in_one_task_leaves_the_others_their_adapter(fault: Fault, stage: str) -> None:
    engine = FakeEngine(TASKS, faults=[fault])
    trials = run_shared(engine, shared_units(engine), together=4)
    assert len(engine.trained) == 1
    (failed,) = [trial for trial in trials if trial.failure]
    assert failed.failure and (failed.task_id, failed.failure.stage, failed.reward) == (BROKEN, stage, None)
    assert all(trial.reward is not None for trial in others(trials, BROKEN))


def test_of_several_self_edits_one_that_is_unusable_is_left_out_and_only_all_of_them_are_a_zero() -> None:
    engine = FakeEngine(TASKS, spoilt=[(TASKS[0].title, 0), (TASKS[1].title, 0), (TASKS[1].title, 1)])
    trials = run_shared(engine, shared_units(engine), together=4)
    assert [is_bad_edit(trial.failure) for trial in trials] == [False, True, False, False]
    assert trials[1].reward == 0.0
    texts = ["".join(map(chr, datum.tokens)) for datum in engine.trained[0].data]
    assert [texts.count(f"{t.title}\n{t.context}") for t in TASKS] == [1, 0, 2, 2]


def test_where_self_edits_choose_different_settings_those_of_the_bare_passage_count() -> None:
    class Choosing(Knowledge):
        def parse(self, task: Task, sample: Sample) -> SelfEdit:
            return replace(DOMAIN.parse(task, sample), train=TrainSettings(epochs=len(sample.text)))

    engine = FakeEngine(TASKS)
    domain = Choosing(DOMAIN.source, DOMAIN.form, DOMAIN.train)
    list(run_trials(shared_units(engine), domain, None, engine, EXACT, EXAM, None, 4))
    assert [job.settings for job in engine.trained] == [DOMAIN.train]


def test_an_interrupted_shared_adapter_is_trained_whole_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfedit.loop.inner.WAVE", 1)
    unbroken = run_shared(FakeEngine(TASKS), shared_units(FakeEngine(TASKS), repeats=2))
    for done in range(len(unbroken) + 1):
        engine = FakeEngine(TASKS)
        units = shared_units(FakeEngine(TASKS), repeats=2)
        rest = run_shared(engine, units, known={trial.key: trial for trial in unbroken[:done]})
        assert rest == unbroken[done:]
        assert len(engine.trained) == 4 - done // 2


# ── without an update ──


def untrained(engine: FakeEngine, shown: dict[str, list[Task]] | None = None) -> list[Trial]:
    units = plan(TASKS, [None] * 4, "in-context", 1, 0)
    return list(examine_untrained(units, DOMAIN, engine, EXACT, EXAM, None, shown))


def test_with_the_right_passage_in_view_the_model_knows_and_with_another_it_does_not() -> None:
    right = {task.id: [task] * 4 for task in TASKS}
    assert [trial.reward for trial in untrained(FakeEngine(TASKS), right)] == [1.0] * 4
    wrong = {task.id: [TASKS[0]] * 4 for task in TASKS}
    assert [trial.reward for trial in untrained(FakeEngine(TASKS), wrong)] == [1.0, 0.0, 0.0, 0.0]
    assert [trial.reward for trial in untrained(FakeEngine(TASKS))] == [0.0] * 4


def test_an_exam_that_could_not_be_taken_says_why() -> None:
    trials = untrained(FakeEngine(TASKS, faults=[Fault("answer-base", f"of {BROKEN}?")]))
    (failed,) = [trial for trial in trials if trial.failure]
    assert failed.failure and (failed.task_id, failed.failure.stage, failed.reward) == (BROKEN, "answer", None)


def test_nothing_is_trained_and_what_is_known_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfedit.loop.inner.WAVE", 2)
    engine = FakeEngine(TASKS)
    units = plan(TASKS, [None] * 4, "base", 1, 0)
    whole = list(examine_untrained(units, DOMAIN, engine, EXACT, EXAM))
    again = FakeEngine(TASKS)
    known = {trial.key: trial for trial in whole[:3]}
    rest = list(examine_untrained(units, DOMAIN, again, EXACT, EXAM, known))
    assert rest == whole[3:]
    assert len(again.answered) == 2, "a wave is asked whole"
    assert engine.trained == again.trained == []


def test_the_ledger_keeps_what_each_self_edit_chose_and_trains_it_so() -> None:
    engine = FakeEngine(TASKS)
    menu = MenuSettings((1e-3, 5e-3), (2, 8))
    domain = over_documents(TASKS, "implications", TrainSettings(batch_size=2), menu=menu)
    lines = ("Settings: learning rate 0.005, epochs 2", "Settings: learning rate 0.001, epochs 8", "no settings")
    written = [[Sample("", (), (), (), f"One.\nTwo.\n{line}", "eos") for line in lines]]
    trials = list(run_trials(plan(TASKS[:1], written, "s", 1, 0, 3), domain, None, engine, EXACT, EXAM))
    assert [(job.settings.learning_rate, job.settings.epochs) for job in engine.trained] == [(5e-3, 2), (1e-3, 8)]
    assert [trial.measures for trial in trials] == [
        {"learning_rate": 5e-3, "epochs": 2.0, "steps": 4.0},
        {"learning_rate": 1e-3, "epochs": 8.0, "steps": 16.0},
        {},
    ]
    assert (trials[2].reward, is_bad_edit(trials[2].failure)) == (0.0, True)
    assert run(engine, units_of(engine, edits=1))[0].measures == {}
