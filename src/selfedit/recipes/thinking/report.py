"""What updates in the middle of a thought brought, and what distilling chains did: computed from the run folders.

What is resampled is the pair of passages with all its questions; pairs that share an adapter are not independent, which
such intervals leave out. So every difference is also given over seeds, one number each, by Student's t.

    for line in table(summarise(folders)): ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfedit.recipes.thinking import afterwards as after
from selfedit.recipes.thinking import midway as mid
from selfedit.recipes.thinking.lessons import FORMS, is_taught
from selfedit.report.stats import BySeed, Interval, Marks, Paired, by_seed, interval, paired
from selfedit.runs import read_trials
from selfedit.types import Trial

ALL, TAUGHT, HELD_OUT = "all", "distilled", "held-out"  # the two-step questions that count
ONE_STEP = "one-step"
OF_CHAIN = ("first", "kept", "kept-right")
_AFTER = (TAUGHT, HELD_OUT, ONE_STEP, "as-chain")

# Which arms are compared, b less a, on what; chosen before the seeds were run.
PAIRS: tuple[tuple[str, str, str], ...] = (
    *((f"midway/none/{view}", f"midway/{update}/{view}", ALL) for view in mid.VIEWS for update in mid.UPDATES[1:]),
    *((f"midway/{update}/no-note", f"midway/{update}/other-note", ALL) for update in mid.UPDATES[1:]),
    *((f"midway/{update}/direct", f"midway/{update}/no-note", ALL) for update in mid.UPDATES[1:]),
    ("midway/passage/other-note", "midway/edit/other-note", ALL),
    ("midway/edit/other-note", "midway/study/other-note", ALL),
    *((f"afterwards/{a}", f"afterwards/{b}", what) for b in FORMS for what in (TAUGHT, HELD_OUT, ONE_STEP)
      for a in ("direct", f"shuffled-{b}")),
    *(("afterwards/chain", f"afterwards/{b}", what) for b in FORMS for what in (TAUGHT, HELD_OUT)),
    *(("afterwards/answers", "afterwards/chains", what) for what in (TAUGHT, HELD_OUT, ONE_STEP)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cell:
    """An arm's accuracy on some questions, or the mean of one of its measures, in [0, 1]."""

    arm: str
    what: str
    value: Interval


@dataclass(frozen=True, slots=True)
class Difference:
    """Arm `b` less arm `a`, paired by pair of passages and by seed."""

    a: str
    b: str
    what: str
    by_passage: Paired
    by_seed: BySeed


@dataclass(frozen=True, slots=True)
class Result:
    """What a run says, of how many pairs of passages and two-step questions, in how many seconds of processor time."""

    pairs: int
    questions: int
    cells: tuple[Cell, ...]
    differences: tuple[Difference, ...]
    seconds: float


def summarise(folders: Sequence[Path]) -> Result:
    """Compute the result of all seeds from their run folders."""
    trials_S = [list(read_trials(folder).values()) for folder in folders]
    everything = [trial for trials in trials_S for trial in trials]
    wanted = [
        *((f"{mid.STAGE}/{arm}", ALL) for arm in mid.ARMS),
        *((f"{mid.STAGE}/{update}/{mid.VIEWS[0]}", "first") for update in mid.UPDATES),
        *((f"{after.STAGE}/{arm}", what) for arm in after.ARMS for what in _AFTER),
        *((f"{after.STAGE}/chain", what) for what in OF_CHAIN),
    ]
    cells = tuple(Cell(arm, what, interval(marks(everything, arm, what))) for arm, what in wanted)
    asked = {trial.task_id: len(trial.after_Q) for trial in everything}
    differences = tuple(_difference(a, b, what, trials_S) for a, b, what in PAIRS)
    return Result(
        len(asked), sum(asked.values()), cells, differences, sum(trial.cost["seconds"] for trial in everything)
    )


def marks(trials: Sequence[Trial], arm: str, what: str) -> Marks:
    """Collect an arm's marks by pair of passages: on all its two-step questions, on those for distilling, on those held
    out; or one of its measures, where it has that."""
    of_arm = [trial for trial in trials if trial.key.rpartition("/")[0] == arm]
    if what not in (ALL, TAUGHT, HELD_OUT):
        return {trial.task_id: [trial.measures[what]] for trial in of_arm if what in trial.measures}
    return {
        trial.task_id: [s.value for q, s in enumerate(trial.after_Q) if what == ALL or is_taught(q) == (what == TAUGHT)]
        for trial in of_arm
    }


def _difference(a: str, b: str, what: str, trials_S: Sequence[Sequence[Trial]]) -> Difference:
    def between(trials: Sequence[Trial]) -> Paired:
        return paired(marks(trials, a, what), marks(trials, b, what))

    everything = [trial for trials in trials_S for trial in trials]
    return Difference(a, b, what, between(everything), by_seed([between(trials).difference for trials in trials_S]))


def table(result: Result) -> Iterator[str]:
    """Lay a result out in lines for a terminal, in percent and points."""
    found = {(cell.arm, cell.what): _shown(cell.value.mean, cell.value.ci95) for cell in result.cells}
    yield f"{result.pairs} pairs of passages, {result.questions} two-step questions; in percent"
    views = (*mid.VIEWS, mid.IN_VIEW)
    yield _row(["update", *views, "first step"])
    for update in mid.UPDATES:
        of_it = [found.get((f"{mid.STAGE}/{update}/{view}", ALL), "") for view in views]
        yield _row([update, *of_it, found[f"{mid.STAGE}/{update}/{mid.VIEWS[0]}", "first"]])
    yield ""
    yield _row(["", *_AFTER])
    for arm in after.ARMS:
        yield _row([arm, *(found[f"{after.STAGE}/{arm}", what] for what in _AFTER)])
    yield _row(["chains: ", *(f"{what} {found[f'{after.STAGE}/chain', what]}" for what in OF_CHAIN)])
    yield ""
    yield _row(["paired, points", "", "on", "by passage", "by seed", "each seed"])
    for d in result.differences:
        over_passages = _shown(d.by_passage.difference, d.by_passage.ci95, "+")
        seeds = " ".join("-" if value is None else f"{100 * value:+.1f}" for value in d.by_seed.values)
        over_seeds = _shown(d.by_seed.mean, d.by_seed.ci95, "+")
        yield f"{f'{d.b} - {d.a}':<62} {d.what:<10} {over_passages:<24} {over_seeds:<24} {seeds}"
    yield ""
    yield f"{result.seconds / 60:.0f} minutes of one core"


def _row(cells: Sequence[str]) -> str:
    return f"{cells[0]:<18}" + "".join(f" {cell:<23}" for cell in cells[1:]).rstrip()


def _shown(mean: float | None, ci95: tuple[float, float] | None, sign: str = "") -> str:
    if mean is None:
        return "-"
    span = f" ({100 * ci95[0]:{sign}.1f} to {100 * ci95[1]:{sign}.1f})" if ci95 else ""
    return f"{100 * mean:{sign}.1f}{span}"
