"""What a report shows, apart from how it looks: plain records that an experiment fills and `render` draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from selfedit.report.agreement import Agreement
from selfedit.report.stats import Arm, BySeed, Interval, Pair, Paired


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
class RoundPoint:
    """A point of the learning curve: the accuracy of an arm after a round, one for each seed. `variant` is "" where
    nothing varies."""

    variant: str
    round: int
    arm: str
    by_seed: BySeed


@dataclass(frozen=True, slots=True)
class StageVariety:
    """How varied the self-edits of a stage are: the `measures` of `diversity.Variety` by name, one for each seed.

    The stage is an arm, with the self-edits that were examined, or "train-k", with those that round k rewarded.
    """

    stage: str
    n_edits: int
    measures: Mapping[str, BySeed]


@dataclass(frozen=True, slots=True)
class LineShare:
    """The lines of one kind (`lines.count_lines`) in an arm's self-edits: their share, the mean over `n` passages in
    [0, 1], and how many a self-edit has."""

    way: str
    kind: str
    arm: str
    share: float | None
    ci95: tuple[float, float] | None
    an_edit: float | None
    n: int


@dataclass(frozen=True, slots=True)
class LineChange:
    """The share of lines of a kind in arm `b` less that in arm `a`, by passage and by seed."""

    way: str
    kind: str
    a: str
    b: str
    by_passage: Paired
    by_seed: BySeed


@dataclass(frozen=True, slots=True)
class SettingReward:
    """What the self-edits of a stage (as in `StageVariety`) that chose one setting were worth: the mean reward of their
    updates over `reward.n` passages, and the mean steps of one; None without any."""

    stage: str
    setting: str
    n_edits: int
    reward: Interval
    steps: float | None


@dataclass(frozen=True, slots=True)
class Course:
    """What became of the writer over its rounds: how it did, how varied it wrote, which kinds of lines it wrote, and
    where it chooses the settings of its updates, what came of each. Shares of settings are among those of lines."""

    curve: tuple[RoundPoint, ...] = ()
    variety: tuple[StageVariety, ...] = ()
    lines: tuple[LineShare, ...] = ()
    changes: tuple[LineChange, ...] = ()
    settings: tuple[SettingReward, ...] = ()


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
    course: Course = Course()
    agreements: tuple[Agreement, ...] = ()
