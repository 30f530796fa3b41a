"""What a domain says: which tasks there are, how the writer is asked, how its text becomes training data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol

from selfedit.errors import ConfigError, near_miss
from selfedit.types import Question, Sample, Score, SelfEdit, Task, TrainSettings

Grader = Callable[[Sequence[Question], Sequence[str]], list[Score]]


class Domain(Protocol):
    """One sort of learning problem. Pure: text in, text out."""

    def tasks(self, split: str, n: int, seed: int) -> list[Task]:
        """Return `n` tasks of `split` ("train", "eval"), the same for the same seed; splits never share a task."""

    def prompt(self, task: Task) -> str:
        """The text that asks the writer for a self-edit."""

    def parse(self, task: Task, sample: Sample) -> SelfEdit:
        """Read a self-edit out of what the writer emitted. Raises `BadEdit` where nothing usable is in it."""

    def without_edit(self, task: Task) -> SelfEdit:
        """The self-edit of no writer: train on the bare passage."""

    def exam(self, task: Task) -> list[str]:
        """The closed-book prompts of the task's questions, [Q]: none of them holds the task's context."""


def _world(form: str, train: TrainSettings, by_line: bool) -> Domain:
    domain: Domain = import_module("selfedit.tasks.knowledge").over_world(form, train, by_line)
    return domain


DOMAINS: dict[str, Callable[[str, TrainSettings, bool], Domain]] = {"world": _world}


def load_domain(name: str, form: str, train: TrainSettings, by_line: bool = True) -> Domain:
    """Return domain `name` with self-edits in format `form`. Raises `ConfigError` for an unknown domain or format."""
    if name not in DOMAINS:
        raise ConfigError(f"unknown domain {name!r}; {near_miss(name, DOMAINS)}")
    return DOMAINS[name](form, train, by_line)
