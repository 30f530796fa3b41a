from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from selfedit.engine.base import SampleJob
from selfedit.errors import RunError
from selfedit.loop.inner import Unit, plan, propose, run_trials
from selfedit.loop.probes import ASKED, Probes, _at_most
from selfedit.tasks.graders import load_grader
from selfedit.tasks.knowledge import over_documents
from selfedit.types import (
    Adapter,
    Datum,
    Example,
    ExamSettings,
    Question,
    Sample,
    SampleSettings,
    Task,
    TrainJob,
    TrainSettings,
    Trial,
)
from tests.unit.conftest import FakeEngine, make_task, make_tasks, plain

TASKS = make_tasks(3)
KNOWN = Task("K", "Title K", "Long ago.", (Question("What is the crown of K?", "gold"), Question("Who?", "Nobody")))
EXACT = load_grader("exact")
DOMAIN = over_documents(TASKS, "implications", TrainSettings())


@dataclass
class Minded(FakeEngine):
    """A fake engine that knows the crown of K until it has learnt three sentences, and is surer of what it learnt."""

    looked: list[tuple[int, Adapter | None]] = field(default_factory=list)
    broken: bool = False

    def _encode(self, example: Example, settings: TrainSettings) -> Datum:
        prompt, text = tuple(map(ord, example.prompt)), tuple(map(ord, example.text))
        end = (0,) if example.prompt else ()
        return Datum(prompt + text + end, (0.0,) * len(prompt) + (1.0,) * len(text + end))

    def _reply(self, prompt: str, adapter: Adapter | None) -> str:
        if "crown" in prompt:
            return "gold" if not adapter or len(self.held[adapter.id]) < 3 else "tin"
        return super()._reply(prompt, adapter)

    def _write(self, job: SampleJob, draw: int) -> Sample:
        if "Passage:" in job.prompt:
            return super()._write(job, draw)
        return Sample(
            job.prompt, tuple(map(ord, job.prompt)), tuple(map(ord, "It was.")), (-1.0,) * 7, "It was.", "eos"
        )

    def logprobs(self, data: Sequence[Datum], adapter: Adapter | None = None) -> list[list[float]]:
        self.looked.append((len(data), adapter))
        if self.broken and adapter:
            raise ValueError("no logits")
        sure = -0.5 if adapter else -2.0
        return [[-9.0 if token == 0 else sure for token in datum.tokens] for datum in data]


def probes(engine: FakeEngine, *names: str, tasks: Sequence[Task] = (KNOWN,)) -> Probes:
    return Probes(names, DOMAIN, engine, EXACT, ExamSettings(), 5, tasks)


def taught(engine: FakeEngine, n: int, under: Adapter | None = None) -> Adapter:
    texts = tuple(Datum(tuple(map(ord, f"Line {i}.")), (1.0,) * 7) for i in range(n))
    (adapter,) = engine.train([TrainJob(texts, TrainSettings(), 0, under)])
    assert isinstance(adapter, Adapter)
    return adapter


def run(engine: FakeEngine, probe: Probes | None, known: dict[str, Trial] | None = None) -> list[Trial]:
    written = propose(TASKS, DOMAIN, None, engine, SampleSettings(edits=2), seed=5)
    units: list[Unit] = plan(TASKS, written, "train-1", 1, 5, 2)
    return [plain(t) for t in run_trials(units, DOMAIN, None, engine, EXACT, ExamSettings(), known, 1, probe)]


# ── the gold answers ──


def test_the_log_probability_is_of_the_answers_alone_and_not_of_prompt_or_end() -> None:
    engine = Minded(TASKS)
    probe = probes(engine, "logprob")
    (before,), (after,) = probe.before(TASKS[:1], None), probe.after(TASKS[:1], [taught(engine, 1)], None)
    assert (before.values, after.values) == ({"logprob_before": -2.0}, {"logprob": -0.5})


def test_only_exam_questions_are_looked_at_and_all_of_a_task_in_one_call() -> None:
    engine = Minded(TASKS)
    hidden = [replace(q, role="hidden" if i else "exam") for i, q in enumerate(TASKS[0].questions)]
    probes(engine, "logprob").before([replace(TASKS[0], questions=tuple(hidden)), TASKS[1]], None)
    assert engine.looked == [(1, None), (4, None)]


def test_a_leak_is_of_forbidden_questions_alone_and_goes_before_with_what_was_never_learnt() -> None:
    engine = Minded(TASKS)
    secret = [replace(q, role="exam" if i else "forbidden") for i, q in enumerate(TASKS[0].questions)]
    task, probe = replace(TASKS[0], questions=tuple(secret)), probes(engine, "logprob", "leak")
    (before,) = probe.before([task], None)
    assert before.values == {"logprob_before": -2.0, "leak_before": -2.0}
    assert sorted(engine.looked) == [(1, None), (len(secret) - 1, None)]
    assert probe.unchanged(before).values == {"logprob": -2.0, "leak": -2.0}


def test_a_task_without_an_exam_has_no_log_probability() -> None:
    (found,) = probes(Minded(TASKS), "logprob").before([replace(TASKS[0], questions=())], None)
    assert found.values == {"logprob_before": None}


def test_what_breaks_is_none_and_says_of_what() -> None:
    engine = Minded(TASKS, broken=True)
    (found,) = probes(engine, "logprob").after(TASKS[:1], [taught(engine, 1)], None)
    assert found.values == {"logprob": None}
    assert found.failure and (found.failure.stage, found.failure.message) == ("probe", "no logits")


# ── what was known before ──


def test_only_what_was_known_before_can_be_lost() -> None:
    engine = Minded(TASKS)
    few, many = taught(engine, 1), taught(engine, 3)
    found = probes(engine, "known").after(TASKS[:3], [few, many, few], None)
    assert [each.values for each in found] == [{"known": 1.0}, {"known": 0.0}, {"known": 1.0}]


def test_a_model_that_knew_nothing_ends_the_run_with_a_sentence() -> None:
    engine = Minded(TASKS)
    with pytest.raises(RunError, match="none of the 4 probe questions is answered rightly before any update"):
        probes(engine, "known", tasks=[make_task("Z")]).after(TASKS[:1], [taught(engine, 1)], None)


def test_the_divergence_is_of_texts_that_the_model_before_drew() -> None:
    engine = Minded(TASKS)
    (found,) = probes(engine, "kl").after(TASKS[:1], [taught(engine, 1)], None)
    assert found.values == {"kl": pytest.approx(-2.0 - -0.5)}


def test_a_learner_is_remembered_once_and_another_anew() -> None:
    engine = Minded(TASKS)
    probe = probes(engine, "known")
    for _ in range(2):
        probe.after(TASKS[:1], [taught(engine, 1)], None)
    assert sum(job.adapter is None for job in engine.answered) == 1
    writer = taught(engine, 2)
    probe.after(TASKS[:1], [taught(engine, 1, under=writer)], writer)
    assert sum(job.adapter == writer for job in engine.answered) == 1


def test_as_many_questions_are_asked_as_can_be_spread_over_the_tasks() -> None:
    kept = _at_most(5, make_tasks(3))
    assert [len(task.questions) for task in kept] == [2, 2, 1]
    assert sum(len(task.questions) for task in _at_most(ASKED, make_tasks(20))) == ASKED


# ── in the inner loop ──


def test_probes_change_no_mark_and_stand_in_the_trials() -> None:
    plainly, engine = run(Minded(TASKS), None), Minded(TASKS)
    probed = run(engine, probes(engine, "logprob", "known"))
    assert [replace(trial, measures={}) for trial in probed] == plainly
    assert all(set(trial.measures) == {"logprob", "logprob_before", "known"} for trial in probed)


def test_an_edit_that_cannot_be_used_leaves_the_model_as_it_was() -> None:
    engine = Minded(TASKS, spoilt=[(TASKS[0].title, 1)])
    spoilt = next(t for t in run(engine, probes(engine, "logprob", "known", "kl")) if t.failure)
    assert (spoilt.task_id, spoilt.reward) == ("T0", 0.0)
    assert spoilt.measures == {"logprob_before": -2.0, "logprob": -2.0, "known": 1.0, "kl": 0.0}


def test_a_probe_that_fails_leaves_the_mark_and_is_told() -> None:
    engine = Minded(TASKS, broken=True)
    trials = run(engine, probes(engine, "logprob"))
    assert all(trial.reward is not None and trial.measures["logprob"] is None for trial in trials)
    assert {trial.failure.stage for trial in trials if trial.failure} == {"probe"}


def test_what_was_measured_before_is_taken_from_known_trials() -> None:
    engine = Minded(TASKS)
    whole = {trial.key: trial for trial in run(engine, probes(engine, "logprob"))}
    engine = Minded(TASKS)
    again = run(engine, probes(engine, "logprob"), dict(list(whole.items())[:3]))
    assert [trial.measures for trial in again] == [trial.measures for trial in list(whole.values())[3:]]
