"""The learner: a small model with random weights, pretrained on one corpus and examined on what no corpus said.

Every corpus is read for the same number of tokens, to the last one: whoever writes more on a passage has it read less
often. Documents are sequences of their own, as in the training of the embedded model; batches are of whole documents,
so that two corpora take nearly, not exactly, the same number of steps.

    learner = fresh(folder, seed=0, settings=recipe.inner)
    adapter = learner.read(texts, n_tokens=262_144, seed=0)
    known_P = learner.knows(statements_P, adapter)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import fmean

from selfedit.engine.base import Backend, open_backend
from selfedit.errors import RunError
from selfedit.recipes.pretrain.statements import Statement
from selfedit.recipes.pup.fresh import make_fresh
from selfedit.types import Adapter, Datum, Example, Failure, TrainJob, TrainSettings

TOKENS_PER_STEP = 512


@dataclass(frozen=True, slots=True)
class Known:
    """What a model knows of a fact: the `logprob` of its value, in nats, and whether no other of the values beside it
    is as probable."""

    logprob: float
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class Learner:
    """Random weights, and how they are trained."""

    engine: Backend
    settings: TrainSettings

    def encode(self, texts: Sequence[str]) -> list[Datum]:
        """Make each text a document."""
        return list(self.engine.encode([Example(text) for text in texts], self.settings))

    def read(self, texts: Sequence[str], n_tokens: int, seed: int) -> Adapter:
        """Train on `n_tokens` of these texts, each a document. Raises `RunError` where that fails."""
        data = going_round(self.encode(texts), n_tokens, seed)
        settings = replace(self.settings, batch_size=max(1, round(TOKENS_PER_STEP * len(data) / n_tokens)))
        (trained,) = self.engine.train([TrainJob(data, settings, seed)])
        if isinstance(trained, Failure):
            raise RunError(f"the fresh model could not be trained: {trained.message}; what was measured is kept")
        return trained

    def knows(self, statements_P: Sequence[Sequence[Statement]], adapter: Adapter | None) -> list[list[Known]]:
        """Examine a trained model, or the random weights, on every statement about each passage, [P][facts]."""
        asked = [(s, value) for statements in statements_P for s in statements for value in (s.value, *s.others)]
        found = iter(self._logprobs(asked, adapter))
        return [
            [_known([next(found) for _ in (s.value, *s.others)]) for s in statements] for statements in statements_P
        ]

    def loss(self, texts: Sequence[str], adapter: Adapter | None) -> float:
        """Average the cross-entropy of texts over their tokens, in nats."""
        return -fmean(x for logprobs in self.engine.logprobs(self.encode(texts), adapter) for x in logprobs[1:])

    def _logprobs(self, asked: Sequence[tuple[Statement, str]], adapter: Adapter | None) -> list[float]:
        """Add up the log-probabilities of each value's tokens after what stands before it."""
        examples = [Example(f" {value}", f"{s.title}\n{s.before.rstrip()}") for s, value in asked]
        data = self.engine.encode(examples, replace(self.settings, loss_on="completion"))
        all_logprobs = self.engine.logprobs(data, adapter)
        return [
            sum(x for x, weight in zip(logprobs[:-1], datum.weights[:-1], strict=True) if weight)  # without the end
            for datum, logprobs in zip(data, all_logprobs, strict=True)
        ]


def _known(logprobs: Sequence[float]) -> Known:
    """Compare the right value, which is the first one, with the others."""
    return Known(logprobs[0], logprobs[0] > max(logprobs[1:]))


def fresh(folder: Path, seed: int, settings: TrainSettings, device: str = "cpu") -> Learner:
    """Draw random weights, with the embedded model's tokenizer, into a checkpoint folder; it is the same every time."""
    if not (folder / "config.json").exists():
        make_fresh(folder, seed)
    return Learner(open_backend("local", str(folder), device), settings)


def going_round(documents: Sequence[Datum], n_tokens: int, seed: int) -> tuple[Datum, ...]:
    """Repeat documents, each time round in a new order, until they hold `n_tokens`; the last one is cut to fit.

    Raises `ValueError` without documents.
    """
    if not documents:
        raise ValueError("a corpus needs documents")
    rng, missing = Random(seed), n_tokens
    data: list[Datum] = []
    while True:
        for datum in rng.sample(documents, len(documents)):
            if len(datum.tokens) >= missing:
                return (*data, Datum(datum.tokens[:missing], datum.weights[:missing]))
            data.append(datum)
            missing -= len(datum.tokens)
