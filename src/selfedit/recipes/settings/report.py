"""What chosen settings came to, computed from the ledgers of all seeds.

    for line in table(summarise(tried_S, offered, best, rounds=2)): ...

Axis suffixes: S seeds, N trials.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from selfedit.errors import BadEdit
from selfedit.experiment.course import difference_by_seed
from selfedit.loop.inner import is_bad_edit
from selfedit.recipes.settings.warm import Choice
from selfedit.report import stats
from selfedit.report.stats import BySeed, Interval, Pair, accuracy_of, by_seed, compare, interval
from selfedit.tasks.base import Domain
from selfedit.types import CHOSEN, Task, Trial

Ledger = Mapping[str, Trial]
FIXED = "fixed, "  # before the arms of the writer that chooses nothing
SHUFFLED = "shuffled-reward"


@dataclass(frozen=True, slots=True)
class Tried:
    """All that was tried in one seed: with chosen settings, with fixed ones, and the first of these texts `again` with
    one choice for all; the tasks by id, and the domains that read the self-edits."""

    chosen: Ledger
    fixed: Ledger
    again: Ledger
    tasks: Mapping[str, Task]
    reads_chosen: Domain
    reads_fixed: Domain


@dataclass(frozen=True, slots=True)
class Arm:
    """Accuracy on unseen passages, the mean steps of an inner loop, and how many of the self-edits were unusable."""

    name: str
    accuracy: Interval
    by_seed: BySeed
    steps: float
    unusable: int
    n: int


@dataclass(frozen=True, slots=True)
class Offer:
    """One choice off the menu: the mean reward of the unreinforced writer's self-edits on training passages with it,
    drawn or put there; by round that of those that chose it; its share in what each writer wrote on unseen passages."""

    choice: Choice
    tried: Interval
    rewards: Mapping[str, Interval]
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Result:
    """The whole comparison; `best` is the choice with the highest mean reward as it was `tried`."""

    seeds: int
    best: Choice
    offers: tuple[Offer, ...]
    arms: tuple[Arm, ...]
    differences: tuple[Pair, ...]


def best_of(tried_S: Sequence[Tried], offered: Sequence[Choice]) -> Choice:
    """Find the choice with the highest mean reward over the training passages of all seeds; of equals, the first."""
    return max(offered, key=lambda choice: _tried_with(tried_S, choice).mean or 0.0)


def summarise(tried_S: Sequence[Tried], offered: Sequence[Choice], best: Choice, rounds: int) -> Result:
    """Compute all tables."""
    last = f"round-{rounds}"
    names = [f"round-{i}" for i in range(rounds + 1)]
    arms_S = {
        **{name: [_of(t.chosen, name) for t in tried_S] for name in (*names, SHUFFLED)},
        **{f"{FIXED}{name}": [_of(t.fixed, name) for t in tried_S] for name in names},
        **{
            f"{FIXED if source.startswith('fixed ') else ''}{source.removeprefix('fixed ')} at best": [
                _of(t.again, f"{source} at {best.name}") for t in tried_S
            ]
            for source in ("round-0", last, f"fixed {last}")
        },
    }
    pairs = (
        ("round-0", last),
        (SHUFFLED, last),
        (f"{FIXED}{last}", last),
        (f"{last} at best", last),
        (f"{FIXED}{last} at best", last),
        ("round-0", "round-0 at best"),
        ("round-0 at best", f"{last} at best"),
        (f"{FIXED}round-0", f"{FIXED}{last}"),
    )
    return Result(
        len(tried_S),
        best,
        tuple(_offer(tried_S, choice, [*names, SHUFFLED], rounds) for choice in offered),
        tuple(_arm(name, found_S, tried_S) for name, found_S in arms_S.items()),
        tuple(_difference(a, b, arms_S) for a, b in pairs),
    )


def _of(ledger: Ledger, stage: str) -> list[Trial]:
    return [trial for key, trial in ledger.items() if key.startswith(f"{stage}/")]


def _arm(name: str, trials_S: Sequence[Sequence[Trial]], tried_S: Sequence[Tried]) -> Arm:
    trials_N = [trial for trials in trials_S for trial in trials]
    found = stats.summarise(name, trials_N)
    is_fixed = name.startswith(FIXED) and not name.endswith(" at best")
    steps = [
        _steps(tried.reads_fixed if is_fixed else tried.reads_chosen, tried.tasks[trial.task_id], trial)
        for tried, trials in zip(tried_S, trials_S, strict=True)
        for trial in trials
    ]
    return Arm(
        name,
        Interval(found.accuracy, found.ci95, found.n_passages, found.n_failed),
        by_seed([accuracy_of(trials) for trials in trials_S]),
        fmean(steps),
        sum(is_bad_edit(trial.failure) for trial in trials_N),
        len(trials_N),
    )


def _steps(domain: Domain, task: Task, trial: Trial) -> int:
    """Count the steps of an update: none where the self-edit could not be used."""
    try:
        edit = domain.parse(task, trial.sample) if trial.sample else domain.without_edit(task)
    except BadEdit:
        return 0
    return edit.steps


def _difference(a: str, b: str, arms_S: Mapping[str, Sequence[Sequence[Trial]]]) -> Pair:
    both = [[trial for trials in arms_S[name] for trial in trials] for name in (a, b)]
    pair = compare(a, both[0], b, both[1])
    return Pair(a, b, pair.difference, pair.ci95, pair.n, difference_by_seed(arms_S[a], arms_S[b]))


# ── by choice ──


def _offer(tried_S: Sequence[Tried], choice: Choice, arms: Sequence[str], rounds: int) -> Offer:
    stages = [f"train-{i}" for i in range(1, rounds + 1)]
    return Offer(
        choice,
        _tried_with(tried_S, choice),
        {stage: _rewards([t for s in tried_S for t in _of(s.chosen, stage) if _chose(t, choice)]) for stage in stages},
        {arm: fmean(_chose(t, choice) for s in tried_S for t in _of(s.chosen, arm)) for arm in arms},
    )


def _tried_with(tried_S: Sequence[Tried], choice: Choice) -> Interval:
    """What a choice is worth on training passages: where all were tried, and where a writer drew it at random."""
    drawn = [t for tried in tried_S for t in _of(tried.chosen, "train-1") if _chose(t, choice)]
    return _rewards([t for tried in tried_S for t in _of(tried.again, f"train-1 at {choice.name}")] + drawn)


def _rewards(trials: Sequence[Trial]) -> Interval:
    by_passage: dict[str, list[float | None]] = {}
    for trial in trials:
        by_passage.setdefault(trial.task_id, []).append(trial.reward)
    return interval(by_passage)


def _chose(trial: Trial, choice: Choice) -> bool:
    rate, epochs, _ = (trial.measures.get(name) for name in CHOSEN)
    return (rate, epochs) == (choice.learning_rate, choice.epochs)


# ── for a terminal ──


def table(result: Result) -> Iterator[str]:
    """Lay a result out in lines for a terminal, percent and points."""
    arms, stages = list(result.offers[0].shares), list(result.offers[0].rewards)
    yield f"{result.seeds} seeds; best of the menu for all: {result.best.name} (learning rate x epochs)"
    yield ""
    yield (
        f"{'choice':<12} {'on training passages':<24} "
        + "".join(f"{stage:<24} " for stage in stages)
        + "share in: "
        + (", ".join(arms))
    )
    for offer in result.offers:
        rewards = "".join(f"{_shown(offer.rewards[stage]):<24} " for stage in stages)
        shares = ", ".join(f"{100 * offer.shares[arm]:.0f}" for arm in arms)
        yield f"{offer.choice.name:<12} {_shown(offer.tried):<24} {rewards}{shares}"
    yield ""
    yield f"{'arm':<24} {'accuracy':<22} {'by seed':<22} {'steps':<8} unusable"
    for arm in result.arms:
        seeds = _span(arm.by_seed.ci95, "{:.1f}")
        yield f"{arm.name:<24} {_shown(arm.accuracy, n=False):<22} {seeds:<22} {arm.steps:<8.0f} {arm.unusable}/{arm.n}"
    yield ""
    yield f"{'difference':<48} {'by passage':<24} {'by seed':<18} seeds"
    yield from map(_row, result.differences)


def _row(pair: Pair) -> str:
    found = pair.by_seed
    mean = "-" if pair.difference is None else f"{100 * pair.difference:+.1f}"
    seeds = " ".join("-" if value is None else f"{100 * value:+.1f}" for value in found.values) if found else ""
    between = f"{mean} ({_span(pair.ci95, '{:+.1f}')})"
    spread = _span(found.ci95, "{:+.1f}") if found else "-"
    return f"{f'{pair.b} - {pair.a}':<48} {between:<24} {spread:<18} {seeds}".rstrip()


def _shown(found: Interval, n: bool = True) -> str:
    if found.mean is None:
        return "-"
    return f"{100 * found.mean:.1f} ({_span(found.ci95, '{:.1f}')})" + (f", n {found.n}" if n else "")


def _span(ci95: tuple[float, float] | None, form: str) -> str:
    return " to ".join(form.format(100 * bound) for bound in ci95) if ci95 else "-"
