"""What a domain says: which tasks there are, how the writer is asked, how its text becomes training data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol

from selfedit.errors import ConfigError, near_miss
from selfedit.types import MenuSettings, Question, Sample, Score, SelfEdit, Task, TrainSettings

Grader = Callable[[Sequence[Question], Sequence[str]], list[Score]]
LineJudge = Callable[[Task, str], str]


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
        """The closed-book prompts of the task's questions, [Q]: none of them holds the task's context.

        Unless the context is part of every question, as the demonstrations of a task of grids are.
        """

    def open_exam(self, task: Task, shown_Q: Sequence[Task]) -> list[str]:
        """The same prompts, [Q], each with the context of the task beside it in view: the right one, or what was
        found."""


def _world(
    form: str, train: TrainSettings, by_line: bool, template: str, documents: Sequence[Task], menu: MenuSettings
) -> Domain:
    domain: Domain = import_module("selfedit.tasks.knowledge").over_world(form, train, by_line, template, menu)
    return domain


def _guarded(
    form: str, train: TrainSettings, by_line: bool, template: str, documents: Sequence[Task], menu: MenuSettings
) -> Domain:
    domain: Domain = import_module("selfedit.tasks.knowledge").over_guarded_world(form, train, by_line, template, menu)
    return domain


def _documents(
    form: str, train: TrainSettings, by_line: bool, template: str, documents: Sequence[Task], menu: MenuSettings
) -> Domain:
    domain: Domain = import_module("selfedit.tasks.knowledge").over_splits(
        documents, form, train, by_line, template, menu
    )
    return domain


def _arc(
    form: str, train: TrainSettings, by_line: bool, template: str, documents: Sequence[Task], menu: MenuSettings
) -> Domain:
    if menu.is_offered:
        raise ConfigError("a menu is for self-edits on passages; those on grids choose freely already, so leave it out")
    arc = import_module("selfedit.tasks.arc")
    if documents:
        given: Domain = arc.over_tasks(documents, form, train, template)
        return given
    fresh = import_module("selfedit.tasks.arc_world").fresh_tasks
    drawn: Domain = arc.over_source(fresh, form, train, template)
    return drawn


def judge_of_lines(domain: Domain) -> LineJudge | None:
    """Return what names the kind of a line of a self-edit, such as whether it is true, in a domain that can tell.

    That is one with a `kind_of_line(task, line)`, which no domain needs to have: reports are richer for it, no more.
    """
    judge: LineJudge | None = getattr(domain, "kind_of_line", None)
    return judge


Factory = Callable[[str, TrainSettings, bool, str, Sequence[Task], MenuSettings], Domain]
DOMAINS: dict[str, Factory] = {"world": _world, "world-forbidden": _guarded, "documents": _documents, "arc": _arc}


def load_domain(
    name: str,
    form: str,
    train: TrainSettings,
    by_line: bool = True,
    template: str = "",
    documents: Sequence[Task] = (),
    menu: MenuSettings | None = None,
) -> Domain:
    """Return domain `name` with self-edits in format `form`, asked for with the user's `template` if there is one.

    `documents` are the tasks of a domain that has none of its own. With a `menu` every self-edit chooses from it how it
    is trained on. Raises `ConfigError` for an unknown domain or format, and for a menu where the domain takes none.
    """
    if name not in DOMAINS:
        raise ConfigError(f"unknown domain {name!r}; {near_miss(name, DOMAINS)}")
    return DOMAINS[name](form, train, by_line, template, documents, menu or MenuSettings())
