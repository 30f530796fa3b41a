"""What tests of the outer loop share: a lab with a fake engine, an algorithm that looks on, and what a run yielded."""

from __future__ import annotations

from collections.abc import Sequence

from selfedit.loop.algorithms import rest_em
from selfedit.loop.outer import Event, Known, Lab, Round
from selfedit.tasks.graders import load_grader
from selfedit.tasks.knowledge import over_documents
from selfedit.types import Datum, ExamSettings, Rollout, SampleSettings, TrainSettings
from tests.unit.conftest import FakeEngine


class Taking:
    """An algorithm that keeps the groups it was given, and imitates the best of each."""

    def __init__(self) -> None:
        self.groups: list[list[list[Rollout]]] = []

    def __call__(self, groups_PG: Sequence[Sequence[Rollout]]) -> list[Datum]:
        self.groups.append([list(group) for group in groups_PG])
        return rest_em(groups_PG, "best-of-n")


def lab(engine: FakeEngine, edits: int = 5) -> Lab:
    """A lab over the engine's tasks."""
    domain = over_documents(engine.tasks, "implications", TrainSettings())
    return Lab(domain, engine, load_grader("exact"), SampleSettings(edits=edits), ExamSettings(), 7)


def rounds_in(events: Sequence[Event]) -> list[Round]:
    return [event for event in events if isinstance(event, Round)]


def noted(events: Sequence[Event]) -> Known:
    known = Known()
    for event in events:
        known.note(event)
    return known
