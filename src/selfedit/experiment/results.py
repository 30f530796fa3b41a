"""What run folders come to: one `Report` over the seeds and variants of an experiment. Reads ledgers, measures nothing.

An arm of a variant has its name behind it, "round-0 self-qa"; arms that all variants share have none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from selfedit.experiment.course import ArmsS, course, difference_by_seed, joined, rounds_done, why_it_stopped
from selfedit.experiment.exam_results import agreements, exam_notes, examined
from selfedit.experiment.leaks import apart, leak_notes
from selfedit.experiment.plans import NOTHING_WRITTEN, Plan
from selfedit.experiment.spread_results import (
    FIRST_PASS,
    Spent,
    spent_by,
    spread_arms,
    spread_comparisons,
    spread_kinds,
    spread_notes,
    spread_pairs,
)
from selfedit.loop.arms import CONTROLS, OPEN_BOOK, arm_names
from selfedit.loop.inner import is_bad_edit
from selfedit.loop.weak import SPREADS
from selfedit.recipe import Recipe
from selfedit.report.agreement import Agreement
from selfedit.report.record import EditPair, KindArm, Report
from selfedit.report.stats import Pair, compare, of_kind, summarise
from selfedit.runs import read_metrics, read_seconds, read_trials
from selfedit.types import Task, Trial

Arms = Mapping[str, Sequence[Trial]]


@dataclass(frozen=True, slots=True)
class _Variant:
    """A variant's name ("" where nothing varies), its recipe, its seeds' plans and ledgers, its trials by arm
    and seed; by arm, too, those with the marks on what must not be learnt, which are in none of the others."""

    name: str
    recipe: Recipe
    planned: Sequence[tuple[Plan, Mapping[str, Trial]]]
    arms_S: ArmsS
    leaked: Arms = field(default_factory=dict)
    spent_S: Sequence[Spent] = ()

    @property
    def arms(self) -> Arms:
        """The trials of all seeds, by arm."""
        return {arm: [trial for trials in seeds for trial in trials] for arm, seeds in self.arms_S.items()}

    def label(self, arm: str) -> str:
        """Name an arm of this variant among those of the others."""
        return f"{arm} {self.name}" if self.name else arm


def report_on(plans: Sequence[Plan], left_out: Sequence[str] = ()) -> Report:
    """Pool the seeds' trials of each variant into arms, and compare them within and between variants.

    A domain's tasks differ from seed to seed, so their ids never meet; those of a file may, and a task that several
    seeds examined counts once, with the mean of its marks. What a folder holds beyond the plan, from a run with more
    unseen tasks or repeats, is left out.
    """
    variants = [_read(name, plans) for name in dict.fromkeys(plan.variant for plan in plans)]
    shared = _shared(variants)
    arms_S = {arm: variants[0].arms_S[arm] for arm in shared}
    arms_S |= {v.label(arm): seeds for v in variants for arm, seeds in v.arms_S.items() if arm not in shared}
    arms = {arm: [trial for trials in seeds for trial in trials] for arm, seeds in arms_S.items()}
    tasks = [task for v in variants for plan, _ in v.planned for task in plan.unseen]
    first = variants[0]
    leaked = {arm: first.leaked[arm] for arm in shared}
    leaked |= {v.label(arm): found for v in variants for arm, found in v.leaked.items() if arm not in shared}
    return Report(
        model=", ".join(dict.fromkeys(plan.recipe.model for plan in plans)),
        seed=plans[0].recipe.seed,
        seconds=sum(read_seconds(plan.folder) for plan in plans),
        arms=tuple(summarise(name, found) for name, found in arms.items()),
        paired=tuple(
            replace(compare(a, arms[a], b, arms[b]), by_seed=difference_by_seed(arms_S[a], arms_S[b]))
            for a, b in _all_comparisons(variants, shared)
        )
        + tuple(pair for v in variants for pair in spread_pairs(v.label, v.spent_S)),
        examples=tuple(_example(first.planned[0][0].unseen, first.arms)),
        kinds=tuple(
            KindArm(kind, summarise(name, of_kind(found, tasks, kind)))
            for kind in sorted({q.kind for task in tasks for q in task.questions} - {""})
            for name, found in arms.items()
        )
        + tuple(kind for v in variants for kind in spread_kinds(v.label, v.spent_S)),
        notes=(*(note for v in variants for note in _notes(v)), *leak_notes(leaked), *_failures(arms)),
        left_out=tuple(left_out),
        agreements=tuple(_agreements(variants)),
        course=joined([course(v.name, v.label, v.planned, v.arms_S) for v in variants]),
    )


def _read(name: str, plans: Sequence[Plan]) -> _Variant:
    whole = [apart(*examined(plan, read_trials(plan.folder))) for plan in plans if plan.variant == name]
    planned = [(plan, ledger) for plan, ledger, _ in whole]
    recipe = planned[0][0].recipe
    furthest = max(rounds_done(plan) for plan, _ in planned)
    done = replace(recipe, outer=replace(recipe.outer, rounds=furthest))
    arms_S = {arm: [_of_arm(*held, arm) for held in planned] for arm in arm_names(done)}
    leaked = {arm: [trial for plan, _, leaks in whole for trial in _of_arm(plan, leaks, arm)] for arm in arms_S}
    spent_S = [spent for plan in plans if plan.variant == name and (spent := spent_by(plan, read_trials(plan.folder)))]
    return _Variant(name, recipe, planned, {**arms_S, **spread_arms(spent_S)}, leaked, spent_S)


def _agreements(variants: Sequence[_Variant]) -> Iterator[Agreement]:
    """Compare the exams of each variant that has several; named by the variant where more than one has."""
    found = [(variant, list(agreements(variant.planned))) for variant in variants]
    is_one = sum(bool(compared) for _, compared in found) < 2
    for variant, compared in found:
        yield from compared if is_one else (replace(each, a=variant.label(each.a)) for each in compared)


def _of_arm(plan: Plan, ledger: Mapping[str, Trial], name: str) -> list[Trial]:
    """Read an arm's trials; of a writer whose rounds have ended, the last stands for those of later rounds."""
    if name.startswith("round-"):
        name = f"round-{min(int(name.removeprefix('round-')), rounds_done(plan))}"
    unseen = {task.id for task in plan.unseen}
    found = [t for key, t in ledger.items() if key.startswith(f"{name}/") and t.task_id in unseen]
    return [t for t in found if max(t.edit, t.repeat) < plan.recipe.eval_repeats]


def _shared(variants: Sequence[_Variant]) -> list[str]:
    """The arms that the first variant has measured for all."""
    first, *others = variants
    return [arm for arm in NOTHING_WRITTEN if arm in first.arms and others and all(arm not in v.arms for v in others)]


def _all_comparisons(variants: Sequence[_Variant], shared: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Compare within each variant, with the shared arms among its own, then every arm of the first with the others'."""
    for number, variant in enumerate(variants):
        names = [*(arm for arm in shared if arm not in variant.arms), *variant.arms]
        for a, b in _comparisons(names):
            if number == 0 or {a, b} - set(shared):
                yield _named(a, variant, shared), _named(b, variant, shared)
    for variant in variants[1:]:
        yield from ((variants[0].label(arm), variant.label(arm)) for arm in variant.arms if arm in variants[0].arms)


def _named(arm: str, variant: _Variant, shared: Sequence[str]) -> str:
    return arm if arm in shared else variant.label(arm)


def _comparisons(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each arm against the one before it, then the last round against the writer it began as and the bare passage, what
    was made elsewhere between passage and rounds, what the last arm lacks of having a passage in view, and the controls
    between those two writers."""
    spread = [name for name in names if name == FIRST_PASS or name.partition("-")[0] in SPREADS]
    yield from spread_comparisons(spread)
    yield from ((name, FIRST_PASS) for name in names if name in ("base", "passage") and spread)
    chain = [name for name in names if name not in (*CONTROLS, *OPEN_BOOK, "completions", *spread)]
    yield from pairwise(chain)
    rounds = [name for name in chain if name.startswith("round-")]
    if len(rounds) > 2:
        yield rounds[0], rounds[-1]
    if rounds and "passage" in chain[:-2]:
        yield "passage", rounds[-1]
    if "completions" in names:
        yield from ((name, "completions") for name in chain if name in ("passage", *rounds[:1], *rounds[-1:]))
    shown = [name for name in OPEN_BOOK if name in names]
    yield from ((name, view) for view in shown for name in chain[-1:])
    yield from pairwise(shown)
    for control in CONTROLS:
        if control in names and rounds:
            yield rounds[0], control
            yield control, rounds[-1]


def _example(tasks: Sequence[Task], trials: Mapping[str, Sequence[Trial]]) -> Iterator[EditPair]:
    """Show the first unseen passage that both could write about, not a chosen one, as the untrained writer and the last
    one have studied it."""
    rounds = [name for name in trials if name.startswith("round-")]
    if len(rounds) < 2:
        return
    first, last = ({t.task_id: t for t in trials[name] if t.edit == 0} for name in (rounds[0], rounds[-1]))
    for number, task in enumerate(tasks, 1):
        before, after = first.get(task.id), last.get(task.id)
        if before and after and before.sample and after.sample:
            marks = f"{_share(before)} of the questions right after {rounds[0]}, {_share(after)} after {rounds[-1]}"
            heading = f"{'The first unseen passage' if number == 1 else f'Unseen passage {number}'}: {marks}"
            yield EditPair(heading, task.title, task.context, before.sample.text, after.sample.text)
            return


def _share(trial: Trial) -> str:
    marks = [score.value for score in trial.after_Q if score.value is not None]
    return f"{sum(mark == 1 for mark in marks)} of {len(marks)}"


def _notes(variant: _Variant) -> Iterator[str]:
    recipe, planned = variant.recipe, variant.planned
    rounds = [name for name in variant.arms if name.startswith("round-")]
    seeds = len(planned)
    if {*rounds[1:], *CONTROLS} & set(variant.arms):
        yield "The unseen passages were not among those that the writer was reinforced on."
    if recipe.writer.model:
        yield f"{variant.label('The self-edits')}: written by {recipe.writer.model}, learnt by {recipe.model}."
    if seeds > 1 and len(rounds) > 1:
        first, last = rounds[0], rounds[-1]
        found = [compare(first, _of_arm(*held, first), last, _of_arm(*held, last)) for held in planned]
        yield (
            f"{seeds} seeds from {recipe.seed} on, pooled; the intervals resample passages, not trainings. "
            f"{variant.label(last)} - {variant.label(first)} seed by seed, in points: {', '.join(map(_points, found))}."
        )
    yield from (f"{variant.label('rounds')}, {said}" for plan, _ in planned if (said := why_it_stopped(plan)))
    yield from _without_signal(variant)
    yield from _raced(variant)
    yield from exam_notes(planned)
    yield from spread_notes(variant.label, variant.spent_S)
    if recipe.outer.kinds and len(rounds) > 1:
        told = "; ".join(_of_each_kind(variant, rounds[0], rounds[-1]))
        yield (
            f"The writer learnt from passages of the kind {' and '.join(recipe.outer.kinds)} alone. {rounds[-1]} - "
            f"{rounds[0]} by kind of passage, in points: {told}."
        )
    if recipe.together > 1:
        yield (
            f"{recipe.together} passages share an adapter. The intervals resample passages; how another training on "
            "the same ones would have gone is not in them."
        )


def _without_signal(variant: _Variant) -> Iterator[str]:
    """Name the rounds in which no group of self-edits had rewards that differ."""
    for plan, _ in variant.planned:
        planned = [metric for metric in read_metrics(plan.folder) if metric.step <= plan.recipe.outer.rounds]
        counts = {(metric.name, metric.step): metric.value for metric in planned}
        for (name, index), n in counts.items():
            label, _, counted = name.partition("/")
            if counted == "groups/all" and n and counts.get((f"{label}/groups/without-signal", index)) == n:
                yield (
                    f"{variant.label(label)}, seed {plan.recipe.seed}, round {index}: the self-edits of each of the "
                    f"{n:.0f} passages were all rewarded alike, so that nothing told the better ones."
                )


def _raced(variant: _Variant) -> Iterator[str]:
    """Tell what a race has spared: of the writer that is reinforced, not of controls."""
    outer = variant.recipe.outer
    if not outer.race.by:
        return
    stages = {f"train-{round + 1}" for round in range(outer.rounds)}
    tried = [t for _, ledger in variant.planned for key, t in ledger.items() if key.partition("/")[0] in stages]
    edits = {(t.key.partition("/")[0], t.task_id) for t in tried}
    in_all, seconds = len(edits) * variant.recipe.sample.edits * outer.repeats, sum(sum(t.cost.values()) for t in tried)
    if tried:
        yield (
            f"{variant.label('The self-edits of the rounds')} raced by {outer.race.by!r}: {len(tried)} of {in_all} "
            f"inner loops were run, in {seconds:.0f} s of work; at that pace the others would have taken "
            f"{seconds * (in_all / len(tried) - 1):.0f} s more. Only the best of each passage are measured with all "
            "their seeds."
        )


def _of_each_kind(variant: _Variant, first: str, last: str) -> Iterator[str]:
    """Compare two arms on the unseen passages of each kind, and on all those together that were not learnt from."""
    kind_of = {
        (plan.folder, task.id): str(task.meta.get("kind", "")) for plan, _ in variant.planned for task in plan.unseen
    }
    kinds = sorted(set(kind_of.values()))
    groups = {kind or "other": {kind} for kind in kinds}
    groups["all kinds not learnt from"] = set(kinds) - set(variant.recipe.outer.kinds)
    for name, group in groups.items():
        a, b = (
            [t for held in variant.planned for t in _of_arm(*held, arm) if kind_of[held[0].folder, t.task_id] in group]
            for arm in (first, last)
        )
        pair = compare(first, a, last, b)
        span = f" ({100 * pair.ci95[0]:+.1f} to {100 * pair.ci95[1]:+.1f})" if pair.ci95 else ""
        yield f"{name} {_points(pair)}{span}, n {pair.n}"


def _points(pair: Pair) -> str:
    return "-" if pair.difference is None else f"{100 * pair.difference:+.1f}"


def _failures(trials: Mapping[str, Sequence[Trial]]) -> Iterator[str]:
    """Say of each arm what its failed trials died of, and how many self-edits were real zeros."""
    for name, found in trials.items():
        failures = [trial.failure for trial in found if trial.failure]
        bad = [failure for failure in failures if is_bad_edit(failure)]
        ours = Counter((failure.stage, failure.kind) for failure in failures if not is_bad_edit(failure))
        if bad:
            yield f"{name}: {len(bad)} of {len(found)} self-edits could not be used and count as 0, {bad[0].message}."
        for (stage, kind), n in ours.items():
            first = next(failure for failure in failures if (failure.stage, failure.kind) == (stage, kind))
            yield f"{name}: {n} of {len(found)} trials were not measured ({stage}, {kind}: {first.message})."
        marks = [score for trial in found if not trial.failure for score in trial.after_Q]
        withheld = [score for score in marks if score.value is None]
        if withheld:
            yield f"{name}: {len(withheld)} of {len(marks)} answers have no mark (the first: {withheld[0].why})."
