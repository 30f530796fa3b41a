"""What a reward needs beside marks, measured while the adapter is there; the ledger keeps it in `Trial.measures`.

    logprob  the log-probability of the exam's gold answers, closed-book, and `logprob_before` the update
    leak     the same of the answers to what must not be learnt, and `leak_before`
    known    the share, in [0, 1], of probe questions answered rightly of those that were before the update
    kl       nats per token by which the update moved the model, on texts that the model before drew itself

KL(before ‖ after) is the mean of log p_before - log p_after over the tokens of those draws, at temperature 1 and
without a cut of the nucleus: an unbiased estimate, from the same few texts for all edits, which may come out below 0.
What fails is None and is told as a `Failure` of the stage "probe".

    probes = Probes(measures_of(outer), domain, engine, grade, exam, seed, tasks)
    before_N = probes.before(tasks_N, learner)

Axis suffixes: N units flattened, Q questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from selfedit.engine.base import Backend, SampleJob
from selfedit.errors import RunError, boundary
from selfedit.loop.inner import Measured, examine, seed_of
from selfedit.tasks.base import Domain, Grader
from selfedit.types import (
    Adapter,
    Datum,
    Example,
    ExamSettings,
    Failure,
    Role,
    Score,
    Task,
    TrainSettings,
    mean_measured,
    mean_score,
)

GOLD: dict[str, Role] = {"logprob": "exam", "leak": "forbidden"}  # measures of gold answers, and whose they are
ASKED = 24  # probe questions: enough to see a loss of a tenth, and three exams' worth of answers for every adapter
DRAWN = 8  # texts for the divergence
DRAWN_TOKENS = 48
PLAIN = TrainSettings(loss_on="completion", pad_to=0)


@dataclass(frozen=True, slots=True)
class _Memory:
    """What a model knew before it learnt: `tasks` with questions it answers rightly, texts it drew, their logprobs."""

    tasks: tuple[Task, ...]
    texts: tuple[Datum, ...] = ()
    logprobs: tuple[tuple[float, ...], ...] = ()


@dataclass(slots=True)
class Probes:
    """Take the measures called `names`, of adapters of one engine. `tasks` hold questions on what a model may know.

    Only those that the model before the update answers rightly are asked after it. That model is examined, and draws
    its texts, when it is first met; the same seed gives the same texts.
    """

    names: tuple[str, ...]
    domain: Domain
    engine: Backend
    grade: Grader
    exam: ExamSettings
    seed: int
    tasks: Sequence[Task] = ()
    _memories: dict[Adapter | None, _Memory] = field(default_factory=dict)

    def before(self, tasks_N: Sequence[Task], learner: Adapter | None) -> list[Measured]:
        """Measure what there is to know of each task before its update, with `_before` at the end of its name."""
        return self._logprobs("_before", tasks_N, [learner] * len(tasks_N))

    def after(self, tasks_N: Sequence[Task], adapters_N: Sequence[Adapter], learner: Adapter | None) -> list[Measured]:
        """Measure the model after each update that was made on top of `learner`.

        Raises `RunError` where that knew nothing that could be lost.
        """
        found = self._logprobs("", tasks_N, adapters_N)
        if {"known", "kl"} & set(self.names) and adapters_N:
            memory = self._memory(learner)
            kept = dict(
                zip(dict.fromkeys(adapters_N), self._kept(memory, list(dict.fromkeys(adapters_N))), strict=True)
            )
            found = [one.and_also(kept[adapter]) for one, adapter in zip(found, adapters_N, strict=True)]
        return found

    def unchanged(self, before: Measured) -> Measured:
        """Say what `after` would find of a model that was not updated."""
        found = {name: before.values.get(f"{name}_before") for name in GOLD} | {"known": 1.0, "kl": 0.0}
        return Measured({name: value for name, value in found.items() if name in self.names}, before.failure)

    # The gold answers

    def _logprobs(self, suffix: str, tasks_N: Sequence[Task], adapters_N: Sequence[Adapter | None]) -> list[Measured]:
        found = [Measured()] * len(tasks_N)
        for name in [name for name in GOLD if name in self.names]:
            pairs = zip(found, tasks_N, adapters_N, strict=True)
            found = [one.and_also(self._logprob(name, suffix, task, adapter)) for one, task, adapter in pairs]
        return found

    def _logprob(self, name: str, suffix: str, task: Task, adapter: Adapter | None) -> Measured:
        with boundary("probe") as caught:
            data = self._gold(task, GOLD[name])
            values = map(_mean_weighted, data, self.engine.logprobs(data, adapter))
            return Measured({name + suffix: mean_measured([*values])})
        return Measured({name + suffix: None}, caught.failure)

    def _gold(self, task: Task, role: Role) -> list[Datum]:
        """Encode the gold answer to each question of a role after its prompt; its end weighs nothing."""
        asked = zip(task.questions, self.domain.exam(task), strict=True)
        data = self.engine.encode([Example(q.answer, prompt) for q, prompt in asked if q.role == role], PLAIN)
        return [replace(datum, weights=(*datum.weights[:-1], 0.0)) for datum in data]

    # What was known before

    def _kept(self, memory: _Memory, adapters: Sequence[Adapter]) -> list[Measured]:
        return [
            known.and_also(self._drift(memory, a))
            for known, a in zip(self._known(memory, adapters), adapters, strict=True)
        ]

    def _known(self, memory: _Memory, adapters: Sequence[Adapter]) -> list[Measured]:
        """Ask every adapter what the model before knew; all answers of all adapters in one go."""
        if "known" not in self.names:
            return [Measured()] * len(adapters)
        n = len(memory.tasks)
        asked, asking = [*memory.tasks] * len(adapters), [adapter for adapter in adapters for _ in memory.tasks]
        marks = examine(asked, asking, self.domain, self.engine, self.grade, self.exam)
        of_each = [[score for scores in marks[i * n : (i + 1) * n] for score in scores] for i in range(len(adapters))]
        return [_share_right(scores) for scores in of_each]

    def _drift(self, memory: _Memory, adapter: Adapter) -> Measured:
        if "kl" not in self.names:
            return Measured()
        with boundary("probe") as caught:
            now = self.engine.logprobs(memory.texts, adapter)
            return Measured({"kl": divergence(memory.texts, memory.logprobs, now)})
        return Measured({"kl": None}, caught.failure)

    def _memory(self, learner: Adapter | None) -> _Memory:
        if learner not in self._memories:
            self._memories = {learner: self._remember(learner)}  # the writer before is met no more
        return self._memories[learner]

    def _remember(self, learner: Adapter | None) -> _Memory:
        marks = examine(self.tasks, [learner] * len(self.tasks), self.domain, self.engine, self.grade, self.exam)
        right = [
            replace(
                task, questions=tuple(q for q, score in zip(task.questions, scores, strict=True) if score.value == 1)
            )
            for task, scores in zip(self.tasks, marks, strict=True)
            if scores
        ]
        known = tuple(_at_most(ASKED, [task for task in right if task.questions]))
        if not known:
            n = sum(len(task.questions) for task in self.tasks)
            raise RunError(
                f"none of the {n} probe questions is answered rightly before any update, so that nothing can be "
                "seen to be lost; name others in outer.terms.probes"
            )
        texts = self._draw(known[:DRAWN], learner) if "kl" in self.names else []
        return _Memory(known, tuple(texts), tuple(map(tuple, self.engine.logprobs(texts, learner))))

    def _draw(self, tasks: Sequence[Task], learner: Adapter | None) -> list[Datum]:
        """Let the model go on from the titles of what it knows."""
        jobs = [
            SampleJob(f"{task.title}\n", 1, seed_of(self.seed, "probe", task.id), learner, 1.0, 1.0, DRAWN_TOKENS)
            for task in tasks
        ]
        drawn = self.engine.sample(jobs)
        failure = next((each for each in drawn if isinstance(each, Failure)), None)
        if failure:
            raise RunError(f"the model could not draw the texts for outer.terms.kl: {failure.message}")
        samples = [sample for each in drawn if not isinstance(each, Failure) for sample in each]
        return [
            Datum(s.prompt_tokens + s.tokens, (0.0,) * len(s.prompt_tokens) + (1.0,) * len(s.tokens)) for s in samples
        ]


def divergence(drawn: Sequence[Datum], drawers: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float:
    """Estimate KL(drawer ‖ other) in nats per token: the mean of log p_drawer - log p_other over the `drawn` tokens.

    Those are the ones with a weight, from the drawer at temperature 1 without a cut; both have log-probabilities of
    all tokens of each text. Unbiased, and so below 0 at times, where the two are much the same.
    """
    return fmean(
        p_drawer - p_other
        for datum, drawer, other in zip(drawn, drawers, others, strict=True)
        for weight, p_drawer, p_other in zip(datum.weights, drawer, other, strict=True)
        if weight
    )


def _at_most(n: int, tasks: Sequence[Task]) -> list[Task]:
    """Keep `n` questions, spread over as many tasks as there are: the first of each, then the second …"""
    order = sorted((q, t) for t, task in enumerate(tasks) for q in range(len(task.questions)))[:n]
    kept = {t: [q for q, of in order if of == t] for _, t in order}
    return [replace(tasks[t], questions=tuple(tasks[t].questions[q] for q in qs)) for t, qs in sorted(kept.items())]


def _share_right(scores: Sequence[Score]) -> Measured:
    share = mean_score(scores)
    return Measured({"known": share}, Failure("probe", "Unmarked", scores[0].why) if share is None else None)


def _mean_weighted(datum: Datum, logprobs: Sequence[float]) -> float | None:
    return mean_measured([p for weight, p in zip(datum.weights, logprobs, strict=True) if weight])
