"""What the fresh models learnt, by arm: computed from the ledgers of all seeds, as every other report.

The passage is what is resampled (`report.stats`), and the seeds' passages are one sample. Passages of one corpus share
a model, which such intervals leave out: a difference is therefore given for each seed, too.

    for line in table(summarise(folders, rounds=2)): ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfedit.report.stats import Interval, Marks, Paired, interval, paired
from selfedit.runs import read_trials
from selfedit.types import Trial, mean_measured

CONTROLS = ("shuffled-reward", "random-edits")


@dataclass(frozen=True, slots=True)
class Arm:
    """What fresh models know of unseen passages' facts: the mean log-probability of the right values, in nats, and the
    share of them that are `chosen` among others; and their `loss` on strangers' passages, in nats a token."""

    name: str
    logprob: Interval
    chosen: Interval
    loss: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """Arm `b` less arm `a` on the same passages: of all seeds, and the log-probability of each of them."""

    a: str
    b: str
    logprob: Paired
    chosen: Paired
    by_seed: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What a run says, how many fresh models it trained, and in how many seconds of processor time."""

    arms: tuple[Arm, ...]
    differences: tuple[Difference, ...]
    models: int
    seconds: float


def summarise(folders: Sequence[Path], rounds: int) -> Result:
    """Compute the result of all seeds from their run folders."""
    trials_S = [list(read_trials(folder).values()) for folder in folders]
    trials_N = [trial for trials in trials_S for trial in trials]
    last = f"round-{rounds}"
    arms = ("raw", *(f"round-{i}" for i in range(rounds + 1)), *CONTROLS)
    pairs = [("raw", "round-0"), ("raw", last), ("round-0", last), *((control, last) for control in CONTROLS)]
    return Result(
        tuple(_arm(name, trials_N) for name in arms),
        tuple(_difference(a, b, trials_S) for a, b in pairs),
        sum(map(count_read, folders)),
        sum(trial.cost["seconds"] for trial in trials_N),
    )


def count_read(folder: Path) -> int:
    """Count the fresh models of a run folder that have read their corpus."""
    return len({trial.adapter for trial in read_trials(folder).values()})


def table(result: Result) -> Iterator[str]:
    """Lay a result out in lines for a terminal."""
    yield f"{'arm':<16} {'log-probability, nats':<26} {'chosen of 8, %':<22} loss on strangers"
    for arm in result.arms:
        language = "" if arm.loss is None else f"{arm.loss:.2f}"
        yield f"{arm.name:<16} {_interval(arm.logprob):<26} {_interval(arm.chosen, 100):<22} {language}"
    yield ""
    yield f"{'difference, paired':<28} {'nats':<26} {'points':<22} nats by seed"
    for d in result.differences:
        seeds = " ".join("-" if each is None else f"{each:+.2f}" for each in d.by_seed)
        yield f"{f'{d.b} - {d.a}':<28} {_paired(d.logprob):<26} {_paired(d.chosen, 100):<22} {seeds}"
    yield ""
    yield f"{result.models} fresh models, {result.seconds / 60:.0f} minutes of one core"


def _arm(name: str, trials_N: Sequence[Trial]) -> Arm:
    loss = mean_measured([trial.measures["loss"] for trial in trials_N if _is_of(name, trial)])
    return Arm(name, interval(_marks(name, trials_N, "logprob")), interval(_marks(name, trials_N, "chosen")), loss)


def _difference(a: str, b: str, trials_S: Sequence[Sequence[Trial]]) -> Difference:
    def between(what: str, trials_N: Sequence[Trial]) -> Paired:
        return paired(_marks(a, trials_N, what), _marks(b, trials_N, what))

    all_N = [trial for trials in trials_S for trial in trials]
    by_seed = tuple(between("logprob", trials).difference for trials in trials_S)
    return Difference(a, b, between("logprob", all_N), between("chosen", all_N), by_seed)


def _marks(name: str, trials_N: Sequence[Trial], what: str) -> Marks:
    """Collect a measure by passage, a value a repeat."""
    found: dict[str, list[float | None]] = {}
    for trial in sorted(trials_N, key=lambda trial: trial.repeat):
        if _is_of(name, trial):
            found.setdefault(trial.task_id, []).append(trial.reward if what == "chosen" else trial.measures[what])
    return found


def _is_of(name: str, trial: Trial) -> bool:
    return trial.key.partition("/")[0] == name


def _interval(found: Interval, scale: float = 1) -> str:
    return "-" if found.mean is None else f"{scale * found.mean:.2f} {_span(found.ci95, scale)}"


def _paired(found: Paired, scale: float = 1) -> str:
    return "-" if found.difference is None else f"{scale * found.difference:+.2f} {_span(found.ci95, scale)}"


def _span(ci95: tuple[float, float] | None, scale: float) -> str:
    return "" if ci95 is None else f"({scale * ci95[0]:.2f} to {scale * ci95[1]:.2f})"
