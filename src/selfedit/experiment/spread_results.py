"""What ways to spend a budget of self-edits on a corpus came to (`loop.weak`), read off finished run folders.

An arm is a way after a round: "weak-2" is what every passage holds then. "first-pass" is where all ways begin. The
questions that came with the texts report, and for texts without any the hidden halves; beside them stand the halves of
the model's own exams, and in how many passages nothing is known, since a mean may rise while the worst stay where they
are.

    spent = spent_by(plan, read_trials(plan.folder))
    arms = spent.arms                                    # "even-1" → the trials of its passages
    pairs = spread_pairs(label, [spent, ...])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from selfedit.experiment.course import difference_by_seed
from selfedit.experiment.exam_results import named
from selfedit.experiment.plans import Plan
from selfedit.loop.weak import SPREADS, STAGE, budgets_of, held, paths_in
from selfedit.report.record import KindArm
from selfedit.report.stats import Pair, before_update, compare, of_role, summarise
from selfedit.runs import read_drawn, read_exams
from selfedit.types import Sample, Score, Task, Trial, mean_score

FIRST_PASS = "first-pass"
HIDDEN, VISIBLE, SOME = "hidden", "visible", "any right"
Arms = Mapping[str, Sequence[Trial]]


@dataclass(frozen=True, slots=True)
class Spent:
    """One seed: the trials of each arm with the marks that report, with those on the hidden and on the visible halves;
    by arm, too, how many self-edits each passage had, [P], and of how many tokens they were, those that a passage has
    kept counted again whenever they were trained on."""

    seed: int
    arms: Arms
    hidden: Arms
    visible: Arms
    edits: Mapping[str, Sequence[int]]
    tokens: Mapping[str, tuple[int, int]]
    ended: Mapping[str, int]


def spent_by(plan: Plan, ledger: Mapping[str, Trial]) -> Spent | None:
    """Read what each way came to off a seed's ledger; None where its recipe has no such arm."""
    spreads = [spread for spread in SPREADS if spread in plan.recipe.arms]
    if not spreads:
        return None
    exams, samples = read_exams(plan.folder), read_drawn(plan.folder)
    tasks_P = [named(task, exams[task.id]) for task in plan.unseen if task.id in exams]
    paths_P = paths_in(ledger, [task for task in plan.unseen if task.id in exams])
    arms: dict[str, list[Trial]] = {}
    edits: dict[str, list[int]] = {}
    ended: dict[str, int] = {}
    for spread in spreads:
        spent_RP = list(budgets_of(spread, paths_P, plan.recipe))
        if len(spent_RP) <= plan.recipe.outer.rounds:
            ended[spread] = len(spent_RP) - 1
        for index in range(plan.recipe.outer.rounds + 1):
            name = f"{spread}-{index}" if index else FIRST_PASS
            edits[name] = spent_RP[min(index, len(spent_RP) - 1)]
            states = zip(tasks_P, paths_P, edits[name], strict=True)
            arms[name] = [replace(_state(path[:n]), task_id=task.id) for task, path, n in states if path]
    return Spent(
        plan.recipe.seed,
        {name: _reporting(trials, tasks_P) for name, trials in arms.items()},
        {name: of_role(trials, tasks_P, "hidden") for name, trials in arms.items()},
        {name: of_role(trials, tasks_P, "exam") for name, trials in arms.items()},
        edits,
        {name: _tokens(paths_P, spent_P, samples) for name, spent_P in edits.items()},
        ended,
    )


def _state(path: Sequence[Trial]) -> Trial:
    """Describe what a passage holds after its self-edits so far."""
    return held(path).trial or before_update(path[:1])[0]


def _reporting(trials: Sequence[Trial], tasks_P: Sequence[Task]) -> list[Trial]:
    """Keep the marks on the given questions, under the passage's own name, or else those on the hidden half, under the
    name with its exam's digest: as passages are called in all reports."""
    given = of_role(trials, tasks_P, "given")
    asked = {trial.task_id for trial in given}
    hidden = of_role(trials, [task for task in tasks_P if task.id not in asked], "hidden")
    return [replace(trial, task_id=trial.task_id.rpartition("@")[0]) for trial in given] + hidden


def _tokens(
    paths_P: Sequence[Sequence[Trial]], spent_P: Sequence[int], samples: Mapping[str, Sequence[Sample]]
) -> tuple[int, int]:
    """Count the tokens of the self-edits that were drawn, and of those trained on in all updates together."""
    drawn = trained = 0
    for path, n in zip(paths_P, spent_P, strict=True):
        keys = [f"{STAGE}-{trial.edit}/{trial.task_id}" for trial in path[:n]]
        lengths = [sum(len(each.tokens) for each in samples.get(key, ())[:1]) for key in keys]
        drawn += sum(lengths)
        trained += sum(lengths[k] for j in range(len(lengths)) for k in (*held(path[:j]).kept, j))
    return drawn, trained


# ── over all seeds ──


def spread_arms(spent_S: Sequence[Spent]) -> dict[str, list[Sequence[Trial]]]:
    """Return the trials of each arm with the marks that report, seed by seed."""
    return _by_arm(spent_S, lambda spent: spent.arms)


def spread_kinds(label: Callable[[str], str], spent_S: Sequence[Spent]) -> Iterator[KindArm]:
    """Describe each arm by the halves of the model's own exams, and by how many passages it has something right of."""
    for kind, pick in _SIDES.items():
        for name, trials_S in _by_arm(spent_S, pick).items():
            yield KindArm(kind, summarise(label(name), [trial for trials in trials_S for trial in trials]))


def spread_comparisons(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name the arms to compare: the ways after the last round and those before it, then what the rounds have brought
    each."""
    indices = sorted({int(name.partition("-")[2]) for name in names if name.partition("-")[0] in SPREADS}, reverse=True)
    ways = [way for way in SPREADS if f"{way}-1" in names]
    if len(ways) > 1:
        yield from ((f"even-{index}", f"weak-{index}") for index in indices)
    yield from ((FIRST_PASS, f"{way}-{indices[0]}") for way in ways)


def spread_pairs(label: Callable[[str], str], spent_S: Sequence[Spent]) -> Iterator[Pair]:
    """Compare the arms by what is in no other table: the hidden halves, and passages with a right answer."""
    for kind, pick in _SIDES.items():
        arms = _by_arm(spent_S, pick)
        for a, b in spread_comparisons(list(arms)) if kind != VISIBLE else ():
            both = [[trial for trials in arms[name] for trial in trials] for name in (a, b)]
            pair = compare(f"{label(a)}, {kind}", both[0], f"{label(b)}, {kind}", both[1])
            yield replace(pair, by_seed=difference_by_seed(arms[a], arms[b]))


def spread_notes(label: Callable[[str], str], spent_S: Sequence[Spent]) -> Iterator[str]:
    """Say what each arm has cost and whether it ended early."""
    for name in spent_S[0].edits if spent_S else ():
        edits = [n for spent in spent_S for n in spent.edits[name]]
        drawn, trained = (sum(spent.tokens[name][i] for spent in spent_S) for i in (0, 1))
        yield (
            f"{label(name)}: {sum(edits):,} self-edits of {drawn:,} tokens were written and learnt, {min(edits)} to "
            f"{max(edits)} of a passage; each together with those that its passage had kept, {trained:,} tokens."
        )
    for spent in spent_S:
        for way, rounds in spent.ended.items():
            yield (
                f"{label(way)}, seed {spent.seed}: ended after {rounds} rounds, as nothing was wrong in any visible "
                f"half; {way}-{rounds} stands for the later ones."
                if rounds
                else f"{label(way)}, seed {spent.seed}: no round was run, as nothing was wrong in any visible half "
                "after the first pass."
            )


def _some(trials: Sequence[Trial]) -> list[Trial]:
    """Mark each passage by whether it has a right answer; not where nothing was measured."""
    marks = [(trial, mean_score(trial.after_Q)) for trial in trials]
    return [replace(t, after_Q=(Score(float(mark > 0), ""),)) for t, mark in marks if mark is not None]


_SIDES: dict[str, Callable[[Spent], Arms]] = {
    HIDDEN: lambda spent: spent.hidden,
    SOME: lambda spent: {name: _some(trials) for name, trials in spent.arms.items()},
    VISIBLE: lambda spent: spent.visible,
}


def _by_arm(spent_S: Sequence[Spent], pick: Callable[[Spent], Arms]) -> dict[str, list[Sequence[Trial]]]:
    picked_S = [pick(spent) for spent in spent_S]
    return {name: [picked[name] for picked in picked_S] for name in (picked_S[0] if picked_S else ())}
