"""Weak topics: exams over a whole corpus find what is known worst, more self-edits go there, again.

Every passage has an exam that the model wrote itself (`loop.exams`), whose visible half says what is known of it. A
first pass learns `sample.edits` self-edits of each passage. Then, round by round, as many as a round of `outer.tasks`
passages takes are shared out: under "weak" in proportion to what is wrong, under "even", the control, alike. What
reports, the hidden halves and the questions that came with the text, steers nothing.

One update holds one passage of a small model, not many, so a topic is a passage, and what is known accumulates there: a
self-edit is learnt together with those that its passage has kept, and is kept if the visible half is the better for it.

Self-edit j of a passage is therefore the same, and comes to the same, whoever asks for it; it is run once. Two ways to
spend a budget differ in how far they went along each passage's self-edits and in nothing else: they are compared
without the luck of the draw, for little more than the cost of one.

    allocate([0.0, 0.5, None], budget=4, spent_P=[1, 1, 1])  # [2, 1, 1]
    for event in study(("even", "weak"), tasks_P, recipe, lab, known): ...

Axis suffixes: P passages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from selfedit.loop.inner import Unit, Written, seed_of
from selfedit.loop.outer import Event, Known, Lab, learner_of, try_units, write
from selfedit.recipe import Recipe
from selfedit.types import Failure, Sample, Task, Trial, mean_measured

SPREADS = ("even", "weak")
STAGE = "study"  # heads the keys of what all ways to spend a budget share
_DIGITS = 9  # of a share; what differs beyond them is rounding


@dataclass(frozen=True, slots=True)
class Held:
    """What a passage holds: the update on its self-edits `kept`, as `trial`; None: what the base knows of it.

    `score` is the visible half's mark of that, None where nothing was measured.
    """

    trial: Trial | None
    kept: tuple[int, ...]
    score: float | None


def allocate(scores_P: Sequence[float | None], budget: int, spent_P: Sequence[int] | None = None) -> list[int]:
    """Share out a budget of self-edits in proportion to what is wrong; return how many each passage gets, [P].

    quota_p = budget · w_p / Σ w, where w_p = 1 - score_p, and the mean of the measured w where the score is None: what
    could not be measured is neither weak nor strong. Each gets its quota rounded down; what is left goes one by one to
    the largest remainders (Hamilton's method), among equal ones to those on which fewer were `spent_P`, then to the
    first. A weaker passage never gets fewer. With nothing wrong anywhere, nobody gets any.
    """
    measured = [1.0 - score for score in scores_P if score is not None]
    usual = fmean(measured) if measured else 1.0
    wrong_P = [usual if score is None else 1.0 - score for score in scores_P]
    total = sum(wrong_P)
    if not round(total, _DIGITS):
        return [0] * len(scores_P)
    quotas_P = [round(budget * wrong / total, _DIGITS) for wrong in wrong_P]
    counts_P = [int(quota) for quota in quotas_P]
    spent_P = spent_P or [0] * len(scores_P)
    order = sorted(range(len(quotas_P)), key=lambda p: (round(counts_P[p] - quotas_P[p], _DIGITS), spent_P[p], p))
    for p in order[: budget - sum(counts_P)]:
        counts_P[p] += 1
    return counts_P


def held(path: Sequence[Trial]) -> Held:
    """Follow a passage's self-edits in their order: one is kept if the visible half is the better for it.

    Where nothing can be measured, since the passage has no exam, all that could be learnt are kept.
    """
    found = Held(None, (), mean_measured([trial.baseline for trial in path]))
    for draft, trial in enumerate(path):
        if _has_helped(trial, found):
            found = Held(trial, (*found.kept, draft), trial.reward)
    return found


def _has_helped(trial: Trial, before: Held) -> bool:
    if trial.failure or trial.adapter is None:
        return False
    if trial.reward is None:
        return before.score is None
    return before.score is None or trial.reward > before.score


def budgets(
    spread: str, paths_P: Sequence[Sequence[Trial]], edits: int, rounds: int, budget: int
) -> Iterator[list[int]]:
    """Yield how many self-edits each passage has had after the first pass and after each round, [P].

    `paths_P` are the passages' trials, which have to reach as far as was said before the next is asked for. It ends
    early where nothing is wrong any more.
    """
    spent_P = [edits] * len(paths_P)
    yield spent_P
    for _ in range(rounds):
        is_told = spread == "weak"
        scores_P = [held(path[:n]).score if is_told else None for path, n in zip(paths_P, spent_P, strict=True)]
        more_P = allocate(scores_P, budget, spent_P)
        if not any(more_P):
            return
        spent_P = [spent + more for spent, more in zip(spent_P, more_P, strict=True)]
        yield spent_P


def budgets_of(spread: str, paths_P: Sequence[Sequence[Trial]], recipe: Recipe) -> Iterator[list[int]]:
    """Yield `budgets` as a recipe has them: a round spends what `outer.tasks` passages take."""
    edits, outer = recipe.sample.edits, recipe.outer
    return budgets(spread, paths_P, edits, outer.rounds, outer.tasks * edits)


def study(spreads: Sequence[str], tasks_P: Sequence[Task], recipe: Recipe, lab: Lab, known: Known) -> Iterator[Event]:
    """Learn a corpus in every one of the ways to spend the same budget; yield each sample and trial as it comes.

    The tasks have their exams. What one way has learnt already is not learnt again.
    """
    paths_P: list[list[Trial]] = [[] for _ in tasks_P]
    drafts_P: list[list[Sample | Failure]] = [[] for _ in tasks_P]
    for spread in spreads:
        for spent_P in budgets_of(spread, paths_P, recipe):
            while behind := [p for p, path in enumerate(paths_P) if len(path) < spent_P[p]]:
                yield from _one_more(behind, tasks_P, drafts_P, paths_P, recipe, lab, known)


def _one_more(
    behind: Sequence[int],
    tasks_P: Sequence[Task],
    drafts_P: Sequence[list[Sample | Failure]],
    paths_P: Sequence[list[Trial]],
    recipe: Recipe,
    lab: Lab,
    known: Known,
) -> Iterator[Event]:
    """Take the passages `behind` one self-edit further each: what a passage keeps decides what is trained next."""
    for j in sorted({len(paths_P[p]) for p in behind}):
        places = [p for p in behind if len(paths_P[p]) == j]
        drawn = yield from write(
            f"{STAGE}-{j}", [tasks_P[p] for p in places], lab, lab.begins, replace(recipe.sample, edits=1), known
        )
        for p, written in zip(places, drawn, strict=True):
            drafts_P[p].append(_first(written))
    units = [_unit(tasks_P[p], drafts_P[p], held(paths_P[p]).kept, lab.seed) for p in behind]
    trials = yield from try_units(units, lab, learner_of(lab.begins, lab, recipe.outer), known)
    for p, trial in zip(behind, trials, strict=True):
        paths_P[p].append(trial)


def _first(written: Written) -> Sample | Failure:
    return written if isinstance(written, Failure) else written[0]


def _unit(task: Task, drafts: Sequence[Sample | Failure], kept: Sequence[int], seed: int) -> Unit:
    """Train on the latest draft and those that were kept; a draft that could not be written is no update."""
    j = len(drafts) - 1
    key = _key(task, kept, j)
    whole = [drafts[k] for k in (*kept, j)]
    failure = next((draft for draft in whole if isinstance(draft, Failure)), None)
    samples = tuple(draft for draft in whole if isinstance(draft, Sample))
    return Unit(key, task, j, 0, seed_of(seed, key), failure or samples)


def _key(task: Task, kept: Sequence[int], j: int) -> str:
    """Name an update by all that it is trained on: one that failed for our fault and is run again may change the
    next."""
    return f"{STAGE}/{task.id}/{'+'.join(map(str, (*kept, j)))}/0"


def paths_in(ledger: Mapping[str, Trial], tasks_P: Sequence[Task]) -> list[list[Trial]]:
    """Read the passages' self-edits off a ledger, in the order in which they were learnt, [P]."""
    paths_P: list[list[Trial]] = []
    for task in tasks_P:
        path: list[Trial] = []
        while (key := _key(task, held(path).kept, len(path))) in ledger:
            path.append(ledger[key])
        paths_P.append(path)
    return paths_P


def count_at_most(recipe: Recipe, n_tasks: int) -> int:
    """Return how many trials `study` runs at most; what two ways to spend a budget share is run once."""
    ways = sum(spread in recipe.arms for spread in SPREADS)
    a_round = recipe.outer.tasks * recipe.sample.edits
    return (n_tasks * recipe.sample.edits + recipe.outer.rounds * a_round * ways) if ways else 0
