"""What became of a writer over its rounds, read off the ledgers of its seeds: curve, variety, kinds of lines.

A seed is a training of its own, so whatever describes a writer is computed seed by seed first. The kinds of lines are
those of the self-edits that were examined, since all writers wrote them on the same passages.

    found = course(variant.label, variant.planned, arms_S)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from statistics import fmean

from selfedit.experiment.plans import Plan, domain_of
from selfedit.loop.arms import CONTROLS
from selfedit.loop.outer import has_stalled
from selfedit.report.diversity import Variety, variety
from selfedit.report.lines import JUDGED, SETTINGS, SUBJECT, SUBJECTS, WORDING, WORDINGS, Lines, count_lines
from selfedit.report.record import Course, LineChange, LineShare, RoundPoint, SettingReward, StageVariety
from selfedit.report.stats import BySeed, accuracy_of, by_seed, difference_of, interval, paired
from selfedit.runs import read_metrics
from selfedit.tasks.base import judge_of_lines
from selfedit.tasks.settings import without_settings
from selfedit.types import CHOSEN, Trial, mean_measured

OTHER, UNUSABLE = "another", "unusable"  # for reports: rare settings; none, or the self-edit failed of something else
MOST_SETTINGS = 12  # that a table has room for

ArmsS = Mapping[str, Sequence[Sequence[Trial]]]
"""Arm → its trials on unseen passages, seed by seed."""

Edits = dict[str, list[str]]
"""Passage → the self-edits on it."""

Planned = Sequence[tuple[Plan, Mapping[str, Trial]]]
"""The seeds of a variant, each with its ledger."""


def course(variant: str, label: Callable[[str], str], planned: Planned, arms_S: ArmsS) -> Course:
    """Describe the writer of a variant; nothing where it was not reinforced."""
    rounds = [arm for arm in arms_S if arm.startswith("round-")]
    if len(rounds) < 2:
        return Course()
    writers = [arm for arm in (*rounds, *CONTROLS) if arm in arms_S]
    edits_S = {arm: [edits_of(trials) for trials in arms_S[arm]] for arm in writers}
    stages_S = {**_rewarded(planned), **edits_S}
    shares, changes = _lines(label, planned, edits_S, rounds)
    stages = {**_rounds(planned), **{arm: arms_S[arm] for arm in writers}}
    settings = names_of_settings(t for seeds in stages.values() for trials in seeds for t in trials)
    chosen, moved = _settings(label, {arm: arms_S[arm] for arm in writers}, rounds, settings) if settings else ((), ())
    points = (by_seed([accuracy_of(trials) for trials in arms_S[arm]]) for arm in rounds)
    return Course(
        tuple(RoundPoint(variant, i, label(arm), at) for i, (arm, at) in enumerate(zip(rounds, points, strict=True))),
        tuple(_variety(label(stage), found) for stage, found in stages_S.items()),
        shares + chosen,
        changes + moved,
        tuple(_worth(label, stages, settings)),
    )


def joined(courses: Sequence[Course]) -> Course:
    """Put the courses of several variants into one."""
    return Course(*(tuple(each for found in courses for each in getattr(found, f.name)) for f in fields(Course)))


def rounds_done(plan: Plan) -> int:
    """Count the rounds after which a seed's writer was another: fewer than planned where patience ended them."""
    planned, patience = plan.recipe.outer.rounds, plan.recipe.outer.patience
    means = _mean_rewards(plan) if patience else []
    stops = (i for i in range(1, planned + 1) if has_stalled(means[:i], patience))
    return next(stops, planned + 1) - 1


def why_it_stopped(plan: Plan) -> str:
    """Word why a seed's rounds ended before the planned ones; "" where they did not."""
    done, outer = rounds_done(plan), plan.recipe.outer
    if done == outer.rounds:
        return ""
    means = _mean_rewards(plan)[: done + 1]
    told = ", ".join("-" if mean is None else f"{mean:.3f}" for mean in means)
    best = max((mean, -i) for i, mean in enumerate(means) if mean is not None)
    last = "round" if outer.patience == 1 else f"{outer.patience} rounds"
    return (
        f"seed {plan.recipe.seed}: ended after {done} of {outer.rounds} rounds, as the mean reward on fresh passages "
        f"in the last {last} was not above the best before ({told}). The best was that of round-{-best[1]}; in the "
        f"tables round-{done} stands for the later ones."
    )


def _mean_rewards(plan: Plan) -> list[float | None]:
    """The mean reward of every planned round, None for one that was not measured."""
    means = {metric.step: metric.value for metric in read_metrics(plan.folder) if metric.name == "train/reward/mean"}
    return [means.get(i) for i in range(1, plan.recipe.outer.rounds + 1)]


def difference_by_seed(a_S: Sequence[Sequence[Trial]], b_S: Sequence[Sequence[Trial]]) -> BySeed | None:
    """Compare two arms seed by seed; None for a single seed, or where the arms have other seeds."""
    if len(a_S) != len(b_S) or len(a_S) < 2:
        return None
    return by_seed([difference_of(a, b) for a, b in zip(a_S, b_S, strict=True)])


def edits_of(trials: Sequence[Trial]) -> Edits:
    """Read the self-edits off trials, each once however often it was tried, without their choice of settings."""
    texts = {
        (t.task_id, t.edit): without_settings(t.sample.text) if t.measures.keys() >= {*CHOSEN} else t.sample.text
        for t in trials
        if t.sample
    }
    edits: Edits = {}
    for (passage, _), text in texts.items():
        edits.setdefault(passage, []).append(text)
    return edits


def _rewarded(planned: Planned) -> dict[str, list[Edits]]:
    """Planned round of the outer loop → its self-edits, seed by seed; one that a seed did not reach has none there."""
    edits = {stage: [edits_of(trials) for trials in trials_S] for stage, trials_S in _rounds(planned).items()}
    return {stage: edits_S for stage, edits_S in edits.items() if any(edits_S)}


def _rounds(planned: Planned) -> dict[str, list[list[Trial]]]:
    """Planned round of the outer loop → its trials, seed by seed."""
    return {
        f"train-{i}": [[t for key, t in ledger.items() if key.startswith(f"train-{i}/")] for _, ledger in planned]
        for i in range(1, planned[0][0].recipe.outer.rounds + 1)
    }


def _variety(stage: str, edits_S: Sequence[Edits]) -> StageVariety:
    found_S = [variety(edits) for edits in edits_S]
    names = [field.name for field in fields(Variety) if field.name != "n_edits"]
    measures = {name: by_seed([getattr(found, name) for found in found_S]) for name in names}
    return StageVariety(stage, sum(found.n_edits for found in found_S), measures)


# ── kinds of lines ──


def _lines(
    label: Callable[[str], str], planned: Planned, edits_S: Mapping[str, Sequence[Edits]], rounds: Sequence[str]
) -> tuple[tuple[LineShare, ...], tuple[LineChange, ...]]:
    tasks = {task.id: task for plan, _ in planned for task in plan.unseen}
    judge = judge_of_lines(domain_of(planned[0][0].recipe))

    def count(edits: Edits) -> dict[str, Lines]:
        return count_lines(edits, tasks, judge)

    pooled = {arm: count(_pooled(seeds)) for arm, seeds in edits_S.items()}
    first, last = rounds[0], rounds[-1]
    seeds = [(count(a), count(b)) for a, b in zip(edits_S[first], edits_S[last], strict=True)]
    return _compared(label, pooled, first, last, seeds, list(_kinds(pooled.values())))


def _compared(
    label: Callable[[str], str],
    pooled: Mapping[str, Mapping[str, Lines]],
    first: str,
    last: str,
    seeds: Sequence[tuple[Mapping[str, Lines], Mapping[str, Lines]]],
    kinds: Sequence[tuple[str, str]],
) -> tuple[tuple[LineShare, ...], tuple[LineChange, ...]]:
    """The share of each kind in each arm, and how it changed from the `first` writer to the `last`, also by seed."""
    return (
        tuple(_share(way, kind, label(arm), found) for arm, found in pooled.items() for way, kind in kinds),
        tuple(
            LineChange(
                way,
                kind,
                label(first),
                label(last),
                paired(_shares(pooled[first], way, kind), _shares(pooled[last], way, kind)),
                by_seed([_difference(a, b, way, kind) for a, b in seeds]),
            )
            for way, kind in kinds
        ),
    )


def _pooled(edits_S: Sequence[Edits]) -> Edits:
    pooled: Edits = {}
    for edits in edits_S:
        for passage, texts in edits.items():
            pooled.setdefault(passage, []).extend(texts)
    return pooled


def _kinds(found: Iterable[Mapping[str, Lines]]) -> Iterator[tuple[str, str]]:
    """The kinds that occur anywhere, in the order of a report; of lines with or without a name, those with one."""
    seen = {kind for lines in found for each in lines.values() for kind in each.counts}
    judged = sorted(kind for way, kind in seen if way == JUDGED)
    known = [*((WORDING, kind) for kind in WORDINGS), (SUBJECT, SUBJECTS[0]), *((JUDGED, kind) for kind in judged)]
    yield from (each for each in known if each in seen)


def _share(way: str, kind: str, arm: str, found: Mapping[str, Lines]) -> LineShare:
    share = interval(_shares(found, way, kind))
    an_edit = fmean(lines.an_edit(way, kind) for lines in found.values()) if found else None
    return LineShare(way, kind, arm, share.mean, share.ci95, an_edit, share.n)


def _shares(found: Mapping[str, Lines], way: str, kind: str) -> dict[str, list[float | None]]:
    return {passage: [lines.share(way, kind)] for passage, lines in found.items()}


def _difference(a: Mapping[str, Lines], b: Mapping[str, Lines], way: str, kind: str) -> float | None:
    shared = a.keys() & b.keys()
    differences = [b[passage].share(way, kind) - a[passage].share(way, kind) for passage in shared]
    return fmean(differences) if differences else None


# ── settings that the writer chose ──


def _settings(
    label: Callable[[str], str], arms_S: ArmsS, rounds: Sequence[str], names: Sequence[str]
) -> tuple[tuple[LineShare, ...], tuple[LineChange, ...]]:
    """What the self-edits of each writer chose, counted as kinds of lines are, of which each has one."""
    pooled = {arm: count_settings([t for trials in seeds for t in trials], names) for arm, seeds in arms_S.items()}
    first, last = rounds[0], rounds[-1]
    seeds = [
        (count_settings(a, names), count_settings(b, names)) for a, b in zip(arms_S[first], arms_S[last], strict=True)
    ]
    return _compared(label, pooled, first, last, seeds, [(SETTINGS, name) for name in names])


def setting_of(trial: Trial) -> str:
    """Name what a self-edit chose for its update, `UNUSABLE` where there is no such thing."""
    rate, epochs, _ = (trial.measures.get(name) for name in CHOSEN)
    return UNUSABLE if rate is None or epochs is None else f"{rate:g} x {epochs:g}"


def count_settings(trials: Sequence[Trial], names: Sequence[str]) -> dict[str, Lines]:
    """Count what the self-edits on each passage chose, each once however often it was tried."""
    chosen: dict[str, dict[int, str]] = {}
    for trial in trials:
        if trial.sample:
            chosen.setdefault(trial.task_id, {})[trial.edit] = _among(names, trial)
    return {
        passage: Lines(len(found), len(found), Counter((SETTINGS, name) for name in found.values()))
        for passage, found in chosen.items()
    }


def _among(names: Sequence[str], trial: Trial) -> str:
    name = setting_of(trial)
    return name if name in names else OTHER


def names_of_settings(trials: Iterable[Trial]) -> list[str]:
    """Name the settings that were chosen, by rate and epochs, `OTHER` for all but the most frequent ones of many, and
    last what could not be used. None where no self-edit chose any."""
    written = [trial for trial in trials if trial.sample]
    counts = Counter(setting_of(trial) for trial in written)
    n_unusable = counts.pop(UNUSABLE, 0)
    order = {setting_of(trial): [trial.measures.get(name) or 0.0 for name in CHOSEN] for trial in written}
    kept = sorted((name for name, _ in counts.most_common(MOST_SETTINGS)), key=lambda name: order[name])
    rest = [OTHER] if len(counts) > len(kept) else []
    return [*kept, *rest, *([UNUSABLE] if n_unusable else [])] if counts else []


def _worth(label: Callable[[str], str], stages_S: ArmsS, names: Sequence[str]) -> Iterator[SettingReward]:
    """What came of each setting at each stage."""
    for stage, seeds in stages_S.items():
        trials = [t for trials in seeds for t in trials if t.sample]
        for name in names:
            found = [trial for trial in trials if _among(names, trial) == name]
            rewards: dict[str, list[float | None]] = {}
            for trial in found:
                rewards.setdefault(trial.task_id, []).append(trial.reward)
            n_edits = len({(trial.task_id, trial.edit) for trial in found})
            steps = mean_measured([trial.measures.get(CHOSEN[2]) for trial in found])
            yield SettingReward(label(stage), name, n_edits, interval(rewards), steps)
