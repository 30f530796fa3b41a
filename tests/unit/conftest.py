"""A fake engine for what drives engines: deterministic, instant, and it fails where it is told to.

Tests import these names from here: under `--import-mode=importlib` this file is the module `tests.unit.conftest`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import pytest

from selfedit.engine.base import AnswerJob, SampleJob
from selfedit.types import (
    Adapter,
    Datum,
    Example,
    Failure,
    Question,
    Sample,
    SoftTargets,
    Stage,
    Task,
    TrainJob,
    TrainSettings,
    Trial,
)
from tests.unit.serving import Service, serving

STAGES: dict[str, Stage] = {"sample": "propose", "train": "train", "answer": "answer", "answer-base": "answer"}
NOUNS = ("river", "mayor", "bridge", "bell")


def make_task(name: str, nouns: Sequence[str] = NOUNS) -> Task:
    """Make a task whose passage is a sentence for every noun, with a question on each."""
    told = " ".join(f"The {noun} of {name} is {noun}{name}." for noun in nouns)
    asked = tuple(Question(f"What is the {noun} of {name}?", f"{noun}{name}") for noun in nouns)
    return Task(name, f"Title {name}", told, asked)


def make_tasks(n: int, prefix: str = "T") -> list[Task]:
    return [make_task(f"{prefix}{i}") for i in range(n)]


def plain(trial: Trial) -> Trial:
    """The trial without its cost, which differs each time."""
    return replace(trial, cost={})


@dataclass(frozen=True)
class Fault:
    """Break where `marker` stands in a job's text: with `error` raised, or else a `Failure` in the job's place.

    `at` is a verb of the engine; "answer" is broken for adapted models only, "answer-base" for the bare base.
    """

    at: str
    marker: str
    error: Exception | None = None


@dataclass
class FakeEngine:
    """A `Backend` that knows what stands in its prompt and the sentences it was trained on one by one, nothing else.

    It writes some of a passage's sentences, more of them with an adapter on it, and nothing for a (title, draw) in
    `spoilt`. Asked one of the questions of `tasks`, it gives the answer if that stands in a text of its adapters which
    is a single sentence: nothing is learnt from a passage as a whole.
    """

    tasks: Sequence[Task] = ()
    faults: Sequence[Fault] = ()
    spoilt: Sequence[tuple[str, int]] = ()
    base: str = "fake@0123456789ab"
    context: int = 4000
    sampled: list[SampleJob] = field(default_factory=list)
    trained: list[TrainJob] = field(default_factory=list)
    answered: list[AnswerJob] = field(default_factory=list)
    exported: list[Path] = field(default_factory=list)
    held: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def encode(self, examples: Sequence[Example], settings: TrainSettings) -> tuple[Datum, ...]:
        return tuple(self._encode(example, settings) for example in examples)

    def _encode(self, example: Example, settings: TrainSettings) -> Datum:
        self._check("encode", example.text)
        tokens = tuple(map(ord, example.text)) + (0,) * max(0, min(settings.pad_to, self.context) - len(example.text))
        if len(tokens) > self.context:
            from selfedit.errors import InputError

            raise InputError(f"{len(tokens)} tokens do not fit")
        return Datum(tokens, (1.0,) * len(tokens))

    def sample(self, jobs: Sequence[SampleJob]) -> list[list[Sample] | Failure]:
        self.sampled += jobs
        return [self._check("sample", job.prompt) or [self._write(job, i) for i in range(job.n)] for job in jobs]

    def _write(self, job: SampleJob, draw: int) -> Sample:
        title, passage = job.prompt.split("Passage:\n")[1].split("\n\n")[0].split("\n", 1)
        rng = Random(f"{job.seed}/{draw}")
        kept = [s for s in passage.split(". ") if rng.random() < (0.9 if job.adapter else 0.5)]
        text = "" if (title, draw) in self.spoilt else "\n".join(kept or ["Nothing to say"])
        tokens = tuple(map(ord, text))
        return Sample(job.prompt, tuple(map(ord, job.prompt)), tokens, (-1.0,) * len(tokens), text, "eos")

    def train(self, jobs: Sequence[TrainJob]) -> list[Adapter | Failure]:
        self.trained += jobs
        return [self._train(job) for job in jobs]

    def _train(self, job: TrainJob) -> Adapter | Failure:
        texts = tuple("".join(map(chr, datum.tokens)) for datum in job.data)
        failure = self._check("train", "\n".join(texts))
        if failure:
            return failure
        below = self.held[job.under.id] if job.under else ()
        key = repr((self.base, job.under, texts, job.settings, job.seed))
        adapter = Adapter(hashlib.sha256(key.encode()).hexdigest()[:12], self.base, job.under, job.settings.rank)
        self.held[adapter.id] = (*below, *texts)
        return adapter

    def answer(self, jobs: Sequence[AnswerJob]) -> list[list[str] | Failure]:
        self.answered += jobs
        where = {job: "answer" if job.adapter else "answer-base" for job in jobs}
        return [
            self._check(where[job], "\n".join(job.prompts))
            or [self._reply(prompt, job.adapter) for prompt in job.prompts]
            for job in jobs
        ]

    def _reply(self, prompt: str, adapter: Adapter | None) -> str:
        known = "\n".join(t for t in self.held[adapter.id] if ". " not in t) if adapter else ""
        gold = [q.answer for task in self.tasks for q in task.questions if q.question in prompt]
        return gold[0] if gold and (gold[0] in known or gold[0] in prompt) else "unknown"

    def logprobs(self, data: Sequence[Datum], adapter: Adapter | None = None) -> list[list[float]]:
        return [[-1.0] * len(datum.tokens) for datum in data]

    def top_logprobs(self, data: Sequence[Datum], k: int, adapter: Adapter | None = None) -> list[SoftTargets]:
        return [SoftTargets(tuple((t,) for t in d.tokens), ((0.0,),) * len(d.tokens)) for d in data]

    def merge(self, adapter: Adapter) -> Adapter:
        merged = Adapter(f"merged-{adapter.id}", self.base, None, 0)
        self.held[merged.id] = self.held[adapter.id]
        return merged

    def export(self, adapter: Adapter, folder: Path) -> Path:
        self.exported.append(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter.json").write_text(json.dumps(self.held[adapter.id]))
        return folder

    def load(self, folder: Path) -> Adapter:
        texts = tuple(json.loads((folder / "adapter.json").read_text()))
        self.held[folder.name] = texts
        return Adapter(folder.name, self.base, None, 1)

    def release(self, adapter: Adapter) -> None:
        self.held.pop(adapter.id, None)

    def _check(self, at: str, text: str) -> Failure | None:
        for fault in self.faults:
            if fault.at == at and fault.marker in text:
                if fault.error:
                    raise fault.error
                return Failure(STAGES[fault.at], "Fault", f"told to fail at {at}")
        return None


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Serve models on this machine, past any proxy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as told:
        yield told
