"""What a report shows, apart from how it looks: plain records that an experiment fills and `render` draws."""

from __future__ import annotations

from dataclasses import dataclass

from selfedit.report.stats import Arm, Pair


@dataclass(frozen=True, slots=True)
class EditPair:
    """A passage with the self-edits that the writer gave for it before RL and after; `heading` says why it is shown."""

    heading: str
    title: str
    passage: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class KindArm:
    """An arm's accuracy on the questions of one kind."""

    kind: str
    arm: Arm


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a report shows. `seconds` adds up all seeds and resumptions; `arms` stand in the order of the picture.

    "base" (no update), "passage" (trained on the bare text), "completions" (on self-edits from a file), "round-0" …
    "round-N" (on self-edits of the writer after that many rounds of RL), "retrieval" and "in-context" (no update, a
    passage in view) have a look of their own; an arm of any other name is a control. `left_out` names what of the files
    was not used.
    """

    model: str
    seed: int
    seconds: float
    arms: tuple[Arm, ...]
    paired: tuple[Pair, ...] = ()
    examples: tuple[EditPair, ...] = ()
    kinds: tuple[KindArm, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
