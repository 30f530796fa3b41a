"""The outer loop: write, learn, be examined, reinforce what helped, repeat (arXiv 2506.10943, algorithm 1).

`improve` is a generator. It prints nothing and writes nothing: it yields what happened (`Wrote`, `Trial`, `Round`) and
skips what `known` says has happened before, so that whoever drives it keeps the ledger, draws the progress, and can
kill and resume a run without losing a trial or running one twice.

The policy moves, so samples are drawn afresh each round; the writer of a round is a fresh adapter on top of the last.

Axis suffixes: P tasks, G edits of a task, R repeats (seeds) of an edit, N units flattened.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Self

from selfedit.engine.base import Backend, Writer
from selfedit.errors import ConfigError, RunError
from selfedit.loop.algorithms import ROUNDING, Algorithm, is_degenerate
from selfedit.loop.inner import (
    Assess,
    Probe,
    Unit,
    Written,
    assess_units,
    is_bad_edit,
    plan,
    propose,
    run_trials,
    seed_of,
)
from selfedit.loop.learnt import Pair, correlation, fit
from selfedit.loop.racing import race, sum_up
from selfedit.loop.rewards import Reward, accuracy, logprob
from selfedit.loop.rollouts import measured_pairs, rewarded, tell_failures, with_predictions
from selfedit.tasks.base import Domain, Grader
from selfedit.types import (
    Adapter,
    Datum,
    Exam,
    ExamSettings,
    Failure,
    OuterSettings,
    Rollout,
    Sample,
    SampleSettings,
    Task,
    TrainJob,
    Trial,
    lost_a_mark,
    mean_measured,
)

FIRST = "train-1"  # the stage that every experiment of a run shares
WRITTEN_AT_ONCE = 100  # tasks: enough to fill a batch, and what a kill can cost


@dataclass(frozen=True, slots=True)
class Lab:
    """What every experiment of a run shares: domain, engine with the frozen base, grader, settings, seed.

    `reward` says what an edit is worth, `probe` measures what it needs beside marks. With `assess`, the self-edits of
    the rounds are read in place of being learnt; where it `predicts`, some are tried, and of the others a model fitted
    on those says what they are worth. `teacher` writes in the engine's place, where the writer is another model than
    the learner, and `begins` is the adapter with which the writer begins.
    """

    domain: Domain
    engine: Backend
    grade: Grader
    sample: SampleSettings
    exam: ExamSettings
    seed: int
    teacher: Writer | None = None
    begins: Adapter | None = None
    reward: Reward = accuracy
    probe: Probe | None = None
    assess: Assess | None = None
    predicts: bool = False


@dataclass(frozen=True, slots=True)
class Wrote:
    """Self-edits that were drawn: recorded, so that a resumed run trains on the very same ones."""

    key: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """A finished round. `writer` None: nothing was worth reinforcing yet, a bare base still writes.

    `reward` is the mean over edits, in a race with what each entered it with (`loop.racing`); None where none was
    measured. `n_kept` sequences were reinforced. `n_degenerate` of the `n_groups` groups had no rewards that tell their
    edits apart. A round that `is_stop` ends the loop by its patience: nothing was reinforced in it, and its writer is
    that of the round before. On `n_unrewarded` edits the reward failed; `fit` is how well a learnt one predicts
    passages it was not fitted on (`loop.learnt`).
    """

    label: str
    index: int
    writer: Adapter | None
    reward: float | None
    n_trials: int
    n_failed: int
    n_kept: int
    n_groups: int
    n_degenerate: int
    is_stop: bool = False
    n_unrewarded: int = 0
    fit: float | None = None


Event = Exam | Wrote | Trial | Round


@dataclass(slots=True)
class Known:
    """What has happened so far, by key: what an earlier run of the same recipe left, and what `note` added since."""

    trials: dict[str, Trial] = field(default_factory=dict)
    samples: dict[str, tuple[Sample, ...]] = field(default_factory=dict)
    exams: dict[str, Exam] = field(default_factory=dict)

    @classmethod
    def resumed(
        cls,
        trials: Mapping[str, Trial],
        samples: Mapping[str, tuple[Sample, ...]],
        exams: Mapping[str, Exam] | None = None,
    ) -> Self:
        """Take up what an earlier run left. What failed unmeasured, and not by the model's fault, is run again, as
        is what lost a mark. An exam that failed is written again as long as there is no trial: then they all stand."""
        failed = {key for key, t in trials.items() if t.failure and t.reward is None and not is_bad_edit(t.failure)}
        known = {key: t for key, t in trials.items() if key not in failed and not lost_a_mark(t)}
        standing = {key: exam for key, exam in (exams or {}).items() if trials or not exam.failure}
        return cls(known, dict(samples), standing)

    def note(self, event: Event) -> None:
        """Remember an event, so that a stage that several experiments share is run once."""
        match event:
            case Exam():
                self.exams[event.task_id] = event
            case Wrote(key, samples):
                self.samples[key] = samples
            case Trial():
                self.trials[event.key] = event


def improve(
    label: str, tasks: Sequence[Task], lab: Lab, algorithm: Algorithm, cfg: OuterSettings, known: Known
) -> Iterator[Event]:
    """Run the outer loop from the first writer on; yield every sample and trial as it comes, a Round at a round's end.

    `label` names the experiment in every key. Round r uses the r-th slice of `cfg.tasks` tasks, starting again where
    the tasks run out. The first round is that writer's whatever the algorithm: its trials are run once and shared by
    all labels, as far as `known` has them. With `cfg.patience`, a round after which `has_stalled` is the last.
    """
    writer = lab.begins
    means: list[float | None] = []
    pairs: list[Pair] = []
    for index in range(1, cfg.rounds + 1):
        first, n = (index - 1) * cfg.tasks, min(cfg.tasks, len(tasks))
        tasks_P = [tasks[i % len(tasks)] for i in range(first, first + n)]
        stage = f"{label}-{index}" if index > 1 else FIRST
        learner = learner_of(writer, lab, cfg)
        written_P = yield from write(stage, tasks_P, lab, writer, lab.sample, known)
        tried = yield from _try(stage, tasks_P, written_P, lab, learner, cfg, known, pairs)
        tell_failures(tried.failures, sum(map(len, tried.groups_PG)), stage)
        means.append(mean_measured([rollout.reward for rollouts in tried.entered_PG for rollout in rollouts]))
        is_stop = has_stalled(means, cfg.patience)
        data = [] if is_stop else algorithm(tried.groups_PG)
        if data:
            writer = _reinforce(data, writer, lab, cfg, stage)
        failed = sum(trial.reward is None and not (lab.assess and trial.measures) for trial in tried.trials_N)
        groups = len(tried.groups_PG), sum(map(is_degenerate, tried.groups_PG))
        counts = len(tried.trials_N), failed, len(data), *groups
        yield Round(label, index, writer, means[-1], *counts, is_stop, len(tried.failures), correlation(pairs))
        if is_stop:
            return


@dataclass(frozen=True, slots=True)
class _Tried:
    """What a round's self-edits were found worth. `groups_PG` is what an algorithm takes, `entered_PG` what tells how
    the writer does: the same but in a race. `failures` are of a reward of the user's own."""

    trials_N: list[Trial]
    groups_PG: list[list[Rollout]]
    entered_PG: list[list[Rollout]]
    failures: list[Failure]


def _try(
    stage: str,
    tasks_P: Sequence[Task],
    written_P: Sequence[Written],
    lab: Lab,
    learner: Adapter | None,
    cfg: OuterSettings,
    known: Known,
    pairs: list[Pair],
) -> Generator[Event, None, _Tried]:
    """Find out what a round's self-edits are worth: by the inner loops of all, in a race, by those of some and a
    prediction for the others, or by reading them. What was measured joins the `pairs` that predictions are made from.
    """
    units = plan(tasks_P, written_P, stage, 1 if lab.assess else cfg.repeats, lab.seed, lab.sample.edits)
    if cfg.race.by:
        return (yield from _race(units, tasks_P, lab, learner, cfg, known, pairs))
    n = n_tried(cfg, lab.sample) if lab.predicts else lab.sample.edits
    some = [unit for unit in units if unit.edit < n]
    trials_N = yield from (_read(some, lab, known) if lab.assess else try_units(some, lab, learner, known))
    groups_PG, failures = rewarded(trials_N, tasks_P, lab.reward)
    if lab.predicts:
        pairs += measured_pairs(tasks_P, groups_PG)
        untried_P = [[] if isinstance(written, Failure) else written[n:] for written in written_P]
        groups_PG = with_predictions(tasks_P, groups_PG, untried_P, fit(pairs))
    return _Tried(trials_N, groups_PG, groups_PG, failures)


def has_stalled(means: Sequence[float | None], patience: int) -> bool:
    """Say that the last `patience` rounds have brought no mean reward above the best before them; never with 0.

    The passages of a round are fresh, so its mean reward tells how the writer that it began with does on passages which
    no writer has learnt from, at no cost, and the examined ones choose nothing. Where tasks come round again it is no
    longer held out. A round is noisy: with 36 passages by some 2 points. One whose mean is None tells nothing.
    """
    measured = [mean for mean in means if mean is not None]
    return 0 < patience < len(measured) and max(measured[-patience:]) <= max(measured[:-patience])


def learner_of(writer: Adapter | None, lab: Lab, cfg: OuterSettings) -> Adapter | None:
    """Return the adapter that updates go on top of: the writer's where it learns itself, else none."""
    return writer if cfg.learner == "writer" and lab.teacher is None else None


def n_tried(cfg: OuterSettings, sample: SampleSettings) -> int:
    """Return how many of a task's self-edits are tried where a learnt reward predicts the others: at least one."""
    return ceil(cfg.terms.measured * sample.edits - ROUNDING)


def write_and_try(
    stage: str,
    tasks_P: Sequence[Task],
    lab: Lab,
    writer: Adapter | None,
    learner: Adapter | None,
    repeats: int,
    sample: SampleSettings,
    known: Known,
) -> Generator[Event, None, list[Trial]]:
    """Let `writer` write for each task and try every edit; return all trials of the stage, known ones included.

    They are [P][G][R] flattened.
    """
    written_P = yield from write(stage, tasks_P, lab, writer, sample, known)
    units = plan(tasks_P, written_P, stage, repeats, lab.seed, sample.edits)
    return (yield from try_units(units, lab, learner, known))


def write(
    stage: str, tasks_P: Sequence[Task], lab: Lab, writer: Adapter | None, sample: SampleSettings, known: Known
) -> Generator[Event, None, list[Written]]:
    """Let `writer` write `sample.edits` self-edits for each task; return all of them, known ones included, [P][G].

    Where fewer are known, a run is being extended: they stay, and the rest is drawn.
    """
    written_P: list[Written] = []
    for start in range(0, len(tasks_P), WRITTEN_AT_ONCE):
        written_P += yield from _write(stage, tasks_P[start : start + WRITTEN_AT_ONCE], lab, writer, sample, known)
    return written_P


def _write(
    stage: str, tasks_P: Sequence[Task], lab: Lab, writer: Adapter | None, sample: SampleSettings, known: Known
) -> Generator[Event, None, list[Written]]:
    keys_P = [f"{stage}/{task.id}" for task in tasks_P]
    known_P = [list(known.samples.get(key, ())[: sample.edits]) for key in keys_P]
    missing = [task for task, samples in zip(tasks_P, known_P, strict=True) if len(samples) < sample.edits]
    drawn = iter(propose(missing, lab.domain, writer, lab.teacher or lab.engine, sample, seed_of(lab.seed, stage)))
    written_P: list[Written] = []
    for key, samples in zip(keys_P, known_P, strict=True):
        written: Written = samples
        if len(samples) < sample.edits:
            written = next(drawn)
            if isinstance(written, list):
                written = [*samples, *written[len(samples) :]]
                yield Wrote(key, tuple(written))
        written_P.append(written)
    return written_P


def try_units(
    units_N: Sequence[Unit], lab: Lab, learner: Adapter | None, known: Known, together: int = 1
) -> Generator[Event, None, list[Trial]]:
    """Run the units that are not known yet, `together` of them on an adapter; return the trials of all, in the units'
    order."""
    done = {unit.key: known.trials[unit.key] for unit in units_N if unit.key in known.trials}
    exam = lab.grade, lab.exam
    for trial in run_trials(units_N, lab.domain, learner, lab.engine, *exam, dict(done), together, lab.probe):
        done[trial.key] = trial
        yield trial
    return [done[unit.key] for unit in units_N]


def _read(units_N: Sequence[Unit], lab: Lab, known: Known) -> Generator[Event, None, list[Trial]]:
    """Let the units that are not known yet be read in place of being learnt; return the trials of all."""
    assert lab.assess
    done = {unit.key: known.trials[unit.key] for unit in units_N if unit.key in known.trials}
    for trial in assess_units(units_N, lab.domain, lab.assess, done):
        done[trial.key] = trial
        yield trial
    trials_N = [done[unit.key] for unit in units_N]
    failures = [trial.failure for trial in trials_N if trial.failure and not is_bad_edit(trial.failure)]
    if trials_N and len(failures) == len(trials_N):
        raise RunError(
            f"none of the {len(trials_N)} self-edits could be marked by the rubric ({failures[0].message}); name a "
            "model that can, in judge.model and judge.url"
        )
    return trials_N


def _race(
    units_N: Sequence[Unit],
    tasks_P: Sequence[Task],
    lab: Lab,
    learner: Adapter | None,
    cfg: OuterSettings,
    known: Known,
    pairs: list[Pair],
) -> Generator[Event, None, _Tried]:
    """Let the self-edits of each task race. Of what was measured, the first heat's rewards join the `pairs`."""
    predict = fit(pairs) if cfg.race.by == "learnt" and pairs else None
    ranking = logprob if cfg.race.by == "logprob" else lab.reward

    def run(heat_N: Sequence[Unit]) -> Generator[Event, None, list[Trial]]:
        return try_units(heat_N, lab, learner, known)

    trials_N = yield from race(units_N, cfg.race.keep, ranking, run, predict)
    raced = sum_up(units_N, trials_N, tasks_P, lab.reward, predict)
    if cfg.race.by == "learnt":
        pairs += measured_pairs(tasks_P, raced.first_PG)
    return _Tried(raced.trials_N, raced.groups_PG, raced.entered_PG, raced.failures)


def _reinforce(data: list[Datum], writer: Adapter | None, lab: Lab, cfg: OuterSettings, stage: str) -> Adapter:
    """Train the next writer on what was kept, on top of the last, and where `kl` asks for it near the first.

    Raises `RunError` where that fails.
    """
    engine = lab.teacher or lab.engine
    if not isinstance(engine, Backend):
        raise ConfigError("a writer on a server cannot be reinforced; set outer.rounds=0")
    if cfg.train.kl:
        references = map(tuple, engine.logprobs(data, lab.begins))
        data = [replace(datum, reference=each) for datum, each in zip(data, references, strict=True)]
    (trained,) = engine.train([TrainJob(tuple(data), cfg.train, seed_of(lab.seed, "outer", stage), under=writer)])
    if isinstance(trained, Failure):
        raise RunError(f"the writer could not be trained after {stage}: {trained.message}; what was measured is kept")
    return engine.merge(trained) if cfg.merge else trained
