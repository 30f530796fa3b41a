"""The outer loop: write, learn, be examined, reinforce what helped, repeat (arXiv 2506.10943, algorithm 1).

`improve` is a generator. It prints nothing and writes nothing: it yields what happened (`Wrote`, `Trial`, `Round`) and
skips what `known` says has happened before, so that whoever drives it keeps the ledger, draws the progress, and can
kill and resume a run without losing a trial or running one twice.

The policy moves, so samples are drawn afresh each round; the writer of a round is a fresh adapter on top of the last.

Axis suffixes: P tasks, G edits of a task, R repeats (seeds) of an edit, N units flattened.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from selfedit.engine.base import Backend, Writer
from selfedit.errors import ConfigError, RunError
from selfedit.loop.inner import Unit, Written, is_bad_edit, plan, propose, run_trials, seed_of
from selfedit.loop.rewards import Reward, accuracy
from selfedit.tasks.base import Domain, Grader
from selfedit.types import (
    Adapter,
    Datum,
    ExamSettings,
    Failure,
    OuterSettings,
    Rollout,
    Sample,
    SampleSettings,
    Task,
    TrainJob,
    Trial,
    mean_measured,
)

FIRST = "train-1"  # the stage that every experiment of a run shares
WRITTEN_AT_ONCE = 100  # tasks: enough to fill a batch, and what a kill can cost
Algorithm = Callable[[Sequence[Sequence[Rollout]]], list[Datum]]


@dataclass(frozen=True, slots=True)
class Lab:
    """What every experiment of a run shares: domain, engine with the frozen base, grader, settings, seed.

    `reward` says what an edit is worth. `teacher` writes in the engine's place, where the writer is another model than
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


@dataclass(frozen=True, slots=True)
class Wrote:
    """Self-edits that were drawn: recorded, so that a resumed run trains on the very same ones."""

    key: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """A finished round. `writer` None: nothing was worth reinforcing yet, a bare base still writes.

    `reward` is the mean over edits, in [0, 1], None where none was measured; `n_kept` the sequences reinforced.
    """

    label: str
    index: int
    writer: Adapter | None
    reward: float | None
    n_trials: int
    n_failed: int
    n_kept: int


Event = Wrote | Trial | Round


@dataclass(slots=True)
class Known:
    """What has happened so far, by key: what an earlier run of the same recipe left, and what `note` added since."""

    trials: dict[str, Trial] = field(default_factory=dict)
    samples: dict[str, tuple[Sample, ...]] = field(default_factory=dict)

    @classmethod
    def resumed(cls, trials: Mapping[str, Trial], samples: Mapping[str, tuple[Sample, ...]]) -> Self:
        """Take up what an earlier run left. What failed unmeasured, and not by the model's fault, is run again."""
        lost = {key for key, t in trials.items() if t.failure and t.reward is None and not is_bad_edit(t.failure)}
        return cls({key: t for key, t in trials.items() if key not in lost}, dict(samples))

    def note(self, event: Event) -> None:
        """Remember an event, so that a stage that several experiments share is run once."""
        match event:
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
    all labels, as far as `known` has them.
    """
    writer = lab.begins
    for index in range(1, cfg.rounds + 1):
        first, n = (index - 1) * cfg.tasks, min(cfg.tasks, len(tasks))
        tasks_P = [tasks[i % len(tasks)] for i in range(first, first + n)]
        stage = f"{label}-{index}" if index > 1 else FIRST
        learner = learner_of(writer, lab, cfg)
        trials_N = yield from write_and_try(stage, tasks_P, lab, writer, learner, cfg.repeats, lab.sample, known)
        groups_PG = group(trials_N, tasks_P, lab.reward)
        data = algorithm(groups_PG)
        if data:
            writer = _reinforce(data, writer, lab, cfg, stage)
        rewards = [rollout.reward for rollouts in groups_PG for rollout in rollouts]
        failed = sum(trial.reward is None for trial in trials_N)
        yield Round(label, index, writer, mean_measured(rewards), len(trials_N), failed, len(data))


def learner_of(writer: Adapter | None, lab: Lab, cfg: OuterSettings) -> Adapter | None:
    """Return the adapter that updates go on top of: the writer's where it learns itself, else none."""
    return writer if cfg.learner == "writer" and lab.teacher is None else None


def group(trials_N: Sequence[Trial], tasks_P: Sequence[Task], reward: Reward) -> list[list[Rollout]]:
    """Aggregate each edit's repeats to what `reward` finds them worth, and group the edits of each task: rollouts
    [P][G]. Edits never written are left out."""
    tasks = {task.id: task for task in tasks_P}
    by_edit: dict[tuple[str, int], list[Trial]] = {}
    for trial in trials_N:
        by_edit.setdefault((trial.task_id, trial.edit), []).append(trial)
    groups: dict[str, list[Rollout]] = {}
    for (task_id, _), trials_R in by_edit.items():
        rollouts = groups.setdefault(task_id, [])
        sample = next((trial.sample for trial in trials_R if trial.sample), None)
        if sample:
            outcome = reward(tasks[task_id], trials_R)
            rollouts.append(Rollout(sample, outcome.reward, outcome.baseline))
    return list(groups.values())


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
    for trial in run_trials(units_N, lab.domain, learner, lab.engine, lab.grade, lab.exam, dict(done), together):
        done[trial.key] = trial
        yield trial
    return [done[unit.key] for unit in units_N]


def _reinforce(data: list[Datum], writer: Adapter | None, lab: Lab, cfg: OuterSettings, stage: str) -> Adapter:
    """Train the next writer on what was kept, on top of the last. Raises `RunError` where that fails."""
    engine = lab.teacher or lab.engine
    if not isinstance(engine, Backend):
        raise ConfigError("a writer on a server cannot be reinforced; set outer.rounds=0")
    (trained,) = engine.train([TrainJob(tuple(data), cfg.train, seed_of(lab.seed, "outer", stage), under=writer)])
    if isinstance(trained, Failure):
        raise RunError(f"the writer could not be trained after {stage}: {trained.message}; what was measured is kept")
    return trained
