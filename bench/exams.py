"""Examination and grading: five questions for each adapter, 32 greedy tokens each, and a judge that takes its time.

Nobody stops early here: with random weights a stopping token would be chance. The prompts have 24 to 36 tokens.

- `SequentialExam`: PEFT's model and transformers' `generate`, one adapter after another, its five questions as a batch.
- `OurExam`: `engine.decoding.decode` over the rows of all adapters at once, each adapter in a slot of a `LoraStack`.
- The judge is faked by sleeping. `grade_in_turn` asks it one answer at a time, as the published code does;
  `grade_at_once` has `CALLS` calls in flight, as a service allows.
"""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from peft import get_peft_model

from bench.arms import lora_config, places_of
from bench.measure import seconds_of
from bench.subjects import Subject, twin
from selfedit.engine.adapters import fresh_lora
from selfedit.engine.decoding import Row, decode
from selfedit.engine.local import TOKENS_PER_BATCH
from selfedit.engine.lora import LoraStack, shapes_of
from selfedit.engine.schedules import seeded

QUESTIONS = 5  # of an adapter
CALLS = 64  # of the judge in flight at once


def prompts(subject: Subject, seed: int) -> list[list[int]]:
    """Draw the prompts of one adapter's questions."""
    rng = random.Random(seed)
    vocabulary = subject.network.config.vocab_size
    return [[rng.randrange(2, vocabulary) for _ in range(rng.randint(24, 36))] for _ in range(QUESTIONS)]


class SequentialExam:
    """Examine `adapters` adapters one by one, in the model in which each was trained."""

    def __init__(self, subject: Subject, adapters: int, tokens: int) -> None:
        self._subject, self._adapters, self._tokens = subject, adapters, tokens
        self.timed = f"{adapters} adapters, {QUESTIONS} questions each, {tokens} tokens an answer"
        self._model: Any = get_peft_model(twin(subject.network), lora_config(subject)).eval()

    def __call__(self) -> float:
        """Return seconds for an adapter."""
        return seconds_of(self._examine_all, self._subject.device) / self._adapters

    def _examine_all(self) -> None:
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=self._subject.device.type == "cuda"):
            for i in range(self._adapters):
                self._examine(prompts(self._subject, i))

    def _examine(self, asked: list[list[int]]) -> None:
        longest, device = max(map(len, asked)), self._subject.device
        tokens = [[0] * (longest - len(prompt)) + prompt for prompt in asked]
        mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in asked]
        self._model.generate(
            input_ids=torch.tensor(tokens, device=device),
            attention_mask=torch.tensor(mask, device=device),
            do_sample=False,
            max_new_tokens=self._tokens,
        )


class OurExam:
    """Examine `adapters` adapters in one batch."""

    def __init__(self, subject: Subject, adapters: int, tokens: int) -> None:
        self._subject, self._adapters, self._tokens = subject, adapters, tokens
        self.timed = f"{adapters} adapters, {QUESTIONS} questions each, {tokens} tokens an answer"
        self._network = twin(subject.network)
        settings = subject.settings
        places = places_of(subject, self._network)
        self._lora = fresh_lora(places, settings.rank, settings.alpha, seeded(0, "weights"))

    def __call__(self) -> float:
        """Return seconds for an adapter, filling the slots included."""
        return seconds_of(self._examine_all, self._subject.device) / self._adapters

    def _examine_all(self) -> None:
        stack = LoraStack(shapes_of([self._lora]), self._adapters, self._lora.rank, self._network)
        for slot in range(self._adapters):
            stack.put(slot, self._lora)
        slots = range(self._adapters)
        rows = [Row(prompt, self._tokens, slot=slot) for slot in slots for prompt in prompts(self._subject, slot)]
        with stack.hung_on(self._network):
            budget = TOKENS_PER_BATCH[self._subject.device.type]
            decode(self._network, rows, frozenset(), 0, budget, "answer", stack)


def grade_in_turn(delay: float) -> float:
    """Return seconds for one adapter's answers, one call after another."""
    start = time.perf_counter()
    for _ in range(QUESTIONS):
        time.sleep(delay)
    return time.perf_counter() - start


def grade_at_once(delay: float, adapters: int) -> float:
    """Return seconds for one adapter's answers where those of `adapters` adapters are graded together."""
    start = time.perf_counter()
    with ThreadPoolExecutor(CALLS) as calls:
        list(calls.map(time.sleep, [delay] * QUESTIONS * adapters))
    return (time.perf_counter() - start) / adapters
