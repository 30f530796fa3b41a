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

    def open_exam(self, task: Task, shown_Q: Sequence[Task]) -> list[str]:
        """The same prompts, [Q], each with the context of the task beside it in view: the right one, or what was
        found."""


def _world(form: str, train: TrainSettings, by_line: bool, template: str, documents: Sequence[Task]) -> Domain:
    domain: Domain = import_module("selfedit.tasks.knowledge").over_world(form, train, by_line, template)
    return domain


def _documents(form: str, train: TrainSettings, by_line: bool, template: str, documents: Sequence[Task]) -> Domain:
    domain: Domain = import_module("selfedit.tasks.knowledge").over_splits(documents, form, train, by_line, template)
    return domain


Factory = Callable[[str, TrainSettings, bool, str, Sequence[Task]], Domain]
DOMAINS: dict[str, Factory] = {"world": _world, "documents": _documents}


def load_domain(
    name: str,
    form: str,
    train: TrainSettings,
    by_line: bool = True,
    template: str = "",
    documents: Sequence[Task] = (),
) -> Domain:
    """Return domain `name` with self-edits in format `form`, asked for with the user's `template` if there is one.

    `documents` are the tasks of a domain that has none of its own. Raises `ConfigError` for an unknown domain, format.
    """
    if name not in DOMAINS:
        raise ConfigError(f"unknown domain {name!r}; {near_miss(name, DOMAINS)}")
    return DOMAINS[name](form, train, by_line, template, documents)
