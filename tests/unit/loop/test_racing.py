"""A race runs a part of the full measurement, the same part each time, and rewards nobody that it has not measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace

import pytest

from selfedit.loop.inner import Measured, Unit
from selfedit.loop.outer import Event, Known, improve
from selfedit.loop.racing import count_loops, n_kept, of_finalists, race, sum_up
from selfedit.loop.rewards import Outcome, Reward, accuracy
from selfedit.types import (
    Adapter,
    OuterSettings,
    RaceSettings,
    Sample,
    Task,
    Trial,
)
from tests.unit.conftest import FakeEngine, Fault, make_tasks, plain
from tests.unit.rounds import Taking, lab, noted, rounds_in

TASKS = make_tasks(6)
CFG = OuterSettings(rounds=2, tasks=3, repeats=3, select="best-of-n")
Marks = Mapping[tuple[int, int], float | None]


def raced(by: str = "one-seed", keep: float = 0.5, cfg: OuterSettings = CFG) -> OuterSettings:
    assert by in ("one-seed", "logprob", "learnt")
    return replace(cfg, race=RaceSettings(by, keep))  # type: ignore[arg-type]


# ── heats ──


def sample(text: str) -> Sample:
    return Sample("", (1,), (2,), (-1.0,), text, "eos")


def units(tasks: Sequence[Task], edits: int, repeats: int) -> list[Unit]:
    return [
        Unit(f"s/{task.id}/{g}/{r}", task, g, r, 0, (sample(f"{task.id} {g}"),))
        for task in tasks
        for g in range(edits)
        for r in range(repeats)
    ]


def trial(unit: Unit, reward: float | None) -> Trial:
    assert isinstance(unit.samples, tuple)
    return Trial(unit.key, unit.task.id, unit.edit, unit.repeat, 0, unit.samples[0], "a", (), (), reward, None)


def heats_of(
    units_N: Sequence[Unit], marks: Marks, keep: float = 0.5, worth: Reward = accuracy, by_text: bool = False
) -> tuple[list[list[str]], list[Trial]]:
    """Race with the marks of each (edit, seed), 0 where none is given; return the keys of each heat, and the trials."""
    heats: list[list[str]] = []

    def run(heat_N: Sequence[Unit]) -> Generator[Trial, None, list[Trial]]:
        heats.append([unit.key for unit in heat_N])
        trials = [trial(unit, marks.get((unit.edit, unit.repeat), 0.0)) for unit in heat_N]
        yield from trials
        return trials

    running = race(units_N, keep, worth, run, (lambda task, sample: float(sample.text[-1])) if by_text else None)
    yielded: list[Trial] = []
    while True:
        try:
            yielded.append(next(running))
        except StopIteration as end:
            assert sorted(t.key for t in yielded) == sorted(t.key for t in end.value)
            return heats, list(end.value)


def test_all_run_the_first_seed_and_the_better_half_the_next() -> None:
    heats, trials = heats_of(units(TASKS[:1], 5, 3), {(3, 0): 0.9, (1, 0): 0.8, (4, 0): 0.7})
    assert heats == [[f"s/T0/{g}/0" for g in range(5)], ["s/T0/1/1", "s/T0/3/1"]]
    assert [t.key for t in trials] == [
        "s/T0/0/0",
        "s/T0/1/0",
        "s/T0/1/1",
        "s/T0/2/0",
        "s/T0/3/0",
        "s/T0/3/1",
        "s/T0/4/0",
    ]


def test_a_heat_ranks_by_the_mean_of_all_seeds_so_far() -> None:
    marks = {(0, 0): 0.9, (1, 0): 0.8, (2, 0): 0.7, (3, 0): 0.6, (0, 1): 0.1, (1, 1): 0.5, (2, 1): 0.9}
    heats, _ = heats_of(units(TASKS[:1], 4, 3), marks, keep=0.75)
    assert heats[1] == ["s/T0/0/1", "s/T0/1/1", "s/T0/2/1"]
    assert heats[2] == ["s/T0/1/2", "s/T0/2/2"]


def test_every_task_races_for_itself() -> None:
    heats, _ = heats_of(units(TASKS[:2], 2, 2), {(1, 0): 1.0}, keep=0.6)
    assert heats == [["s/T0/0/0", "s/T0/1/0", "s/T1/0/0", "s/T1/1/0"]]


def test_of_equals_the_first_goes_on_and_what_was_not_measured_is_the_last_to() -> None:
    heats, _ = heats_of(units(TASKS[:1], 4, 2), {(0, 0): None})
    assert heats[1] == ["s/T0/1/1", "s/T0/2/1"]
    heats, _ = heats_of(units(TASKS[:1], 4, 2), {(g, 0): None for g in range(4)})
    assert heats[1] == ["s/T0/0/1", "s/T0/1/1"]


def test_a_prediction_cuts_before_anything_is_run() -> None:
    heats, trials = heats_of(units(TASKS[:1], 5, 3), {(3, 0): 1.0}, by_text=True)
    assert heats == [["s/T0/3/0", "s/T0/4/0"]]
    assert [t.key for t in trials] == heats[0]


def test_a_reward_that_breaks_counts_as_not_measured() -> None:
    def breaking(task: Task, trials_R: Sequence[Trial]) -> Outcome:
        if trials_R[0].edit == 0:
            raise RuntimeError("told to")
        return accuracy(task, trials_R)

    heats, _ = heats_of(units(TASKS[:1], 4, 2), {(0, 0): 1.0}, worth=breaking)
    assert heats[1] == ["s/T0/1/1", "s/T0/2/1"]


def test_nothing_to_race_is_no_race() -> None:
    assert heats_of([], {}) == ([], [])


@pytest.mark.parametrize("by_text", [False, True])
@pytest.mark.parametrize(
    ("edits", "repeats", "keep"), [(5, 3, 0.5), (5, 3, 0.8), (8, 4, 0.5), (2, 2, 0.1), (3, 1, 0.4)]
)
def test_the_inner_loops_of_a_race_are_those_that_are_counted(
    edits: int, repeats: int, keep: float, by_text: bool
) -> None:
    heats, trials = heats_of(units(TASKS[:2], edits, repeats), {}, keep, by_text=by_text)
    assert sum(map(len, heats)) == len(trials) == 2 * count_loops(edits, repeats, keep, by_text)


def test_the_share_that_goes_on_is_rounded_down_but_for_rounding_errors() -> None:
    assert [n_kept(n, 0.5) for n in range(1, 7)] == [1, 1, 1, 2, 2, 3]
    assert n_kept(10, 0.7 * (1 / 7) * 3) == 3
    assert count_loops(5, 3, 0.5) == 7
    assert count_loops(5, 3, 0.5, is_predicted=True) == 2


# ── what the race says of the self-edits ──


def test_only_those_that_ran_to_the_end_have_a_reward() -> None:
    all_N = units(TASKS[:1], 5, 3)
    _, trials = heats_of(all_N, {(3, 0): 0.9, (1, 0): 0.8, (4, 0): 0.7, (3, 1): 0.1, (1, 1): 0.6})
    found = sum_up(all_N, trials, TASKS[:1], accuracy)
    assert [rollout.reward for rollout in found.groups_PG[0]] == pytest.approx([None, 0.7, None, 0.5, None])
    assert [rollout.reward for rollout in found.first_PG[0]] == [0.0, 0.8, 0.0, 0.9, 0.7]
    assert found.entered_PG == found.first_PG


def test_what_never_ran_is_in_its_group_with_no_reward_and_its_prediction_apart() -> None:
    all_N = units(TASKS[:2], 3, 2)
    _, trials = heats_of(all_N, {(2, 0): 0.4}, by_text=True)
    found = sum_up(all_N, trials, TASKS[:2], accuracy, lambda task, sample: 0.1)
    for group, entered in zip(found.groups_PG, found.entered_PG, strict=True):
        assert [rollout.sample.text[-1] for rollout in group] == ["2", "0", "1"]
        assert [rollout.reward for rollout in group] == [0.4, None, None]
        assert [rollout.reward for rollout in entered] == [0.4, 0.1, 0.1]


def test_a_finalist_of_one_task_is_not_measured_by_the_heats_of_another() -> None:
    one, two = units(TASKS[:1], 1, 1), units(TASKS[1:2], 1, 2)
    trials = [trial(unit, 0.5) for unit in (*one, *two)]
    reward = of_finalists(accuracy, trials)
    assert reward(TASKS[0], trials[:1]).reward == reward(TASKS[1], trials[1:]).reward == 0.5
    assert reward(TASKS[1], trials[1:2]).reward is None


# ── in the rounds ──


def run(
    cfg: OuterSettings, engine: FakeEngine | None = None, known: Known | None = None, algorithm: Taking | None = None
) -> list[Event]:
    engine = engine or FakeEngine(TASKS)
    return list(improve("train", TASKS, lab(engine), algorithm or Taking(), cfg, known or Known()))


def trials_in(events: Sequence[Event]) -> list[Trial]:
    return [plain(event) for event in events if isinstance(event, Trial)]


def test_the_trials_of_a_race_are_trials_of_the_full_measurement() -> None:
    cfg = replace(CFG, rounds=1)
    full = {t.key: t for t in trials_in(run(cfg))}
    part = {t.key: t for t in trials_in(run(raced(cfg=cfg)))}
    assert len(full) == 3 * 15
    assert len(part) == 3 * 7
    assert part == {key: full[key] for key in part}


def test_a_race_drawn_from_a_full_ledger_is_the_race_that_was_run() -> None:
    cfg = replace(CFG, rounds=1)
    full = run(cfg)
    read = run(raced(cfg=cfg), known=noted(full))
    assert trials_in(read) == []
    assert rounds_in(read) == rounds_in(run(raced(cfg=cfg)))


@pytest.mark.parametrize("by", ["one-seed", "learnt"])
@pytest.mark.parametrize("cut", [1, 4, 9, 20, 25, 30])
def test_a_killed_race_goes_on_to_the_same_trials_and_writers(by: str, cut: int) -> None:
    events = run(raced(by))
    known = Known()
    for event in events[:cut]:
        known.note(event)
    again = run(raced(by), known=known)
    assert {t.key: t for t in trials_in(again)} == {t.key: t for t in trials_in(events[cut:])}
    assert rounds_in(again) == rounds_in(events)


def test_the_best_of_the_finalists_is_imitated_and_the_others_have_no_reward() -> None:
    taking = Taking()
    events = run(raced(cfg=replace(CFG, rounds=1)), algorithm=taking)
    ran = Counter((t.task_id, t.edit) for t in trials_in(events))
    for task, group in zip(TASKS, taking.groups[0], strict=False):
        assert [rollout.reward is not None for rollout in group] == [ran[task.id, g] == 2 for g in range(5)]
        first = {t.edit: t.reward for t in trials_in(events) if t.task_id == task.id and t.repeat == 0}
        assert max(rollout.reward or 0 for rollout in group) == max(reward or 0 for reward in first.values())


def test_a_rounds_reward_is_that_of_all_who_ran_the_first_heat() -> None:
    cfg = replace(CFG, rounds=1)
    (without,), (with_race,) = rounds_in(run(cfg)), rounds_in(run(raced(cfg=cfg)))
    assert with_race.reward == pytest.approx(without.reward)
    assert (without.n_trials, with_race.n_trials) == (45, 21)
    assert with_race.writer == without.writer


def test_what_is_learnt_in_the_first_round_decides_who_runs_in_the_second() -> None:
    first, second = rounds_in(run(raced("learnt")))
    assert (first.n_trials, second.n_trials) == (3 * 7, 3 * 2)
    assert first.fit is not None
    assert second.reward is not None
    taking = Taking()
    run(raced("learnt"), algorithm=taking)
    assert [len(group) for group in taking.groups[1]] == [5, 5, 5]
    assert [sum(rollout.reward is not None for rollout in group) for group in taking.groups[1]] == [2, 2, 2]


class Positions:
    """Measure that of the units of a wave each is better than the one before it."""

    def before(self, tasks_N: Sequence[Task], learner: Adapter | None) -> list[Measured]:
        return [Measured({"logprob_before": -99.0}) for _ in tasks_N]

    def after(self, tasks_N: Sequence[Task], adapters_N: Sequence[Adapter], learner: Adapter | None) -> list[Measured]:
        return [Measured({"logprob": float(i)}) for i, _ in enumerate(tasks_N)]

    def unchanged(self, before: Measured) -> Measured:
        return before


def test_a_race_by_log_probability_is_decided_by_the_marks_of_its_finalists() -> None:
    taking = Taking()
    cfg = raced("logprob", cfg=replace(CFG, rounds=1))
    events = list(improve("train", TASKS, replace(lab(FakeEngine(TASKS)), probe=Positions()), taking, cfg, Known()))
    assert {t.edit for t in trials_in(events) if t.repeat == 1} == {3, 4}
    marks = {(t.task_id, t.edit): t.reward for t in trials_in(events)}
    assert [[rollout.reward for rollout in group] for group in taking.groups[0]] == [
        [None, None, None, marks[task.id, 3], marks[task.id, 4]] for task in TASKS[:3]
    ]


def test_a_race_goes_on_without_what_could_not_be_written_or_trained() -> None:
    faults = [Fault("train", f" of {TASKS[1].id} is "), Fault("sample", f"Title {TASKS[2].id}\n")]
    taking = Taking()
    (ended,) = rounds_in(run(raced(cfg=replace(CFG, rounds=1)), FakeEngine(TASKS, faults=faults), algorithm=taking))
    assert [len(group) for group in taking.groups[0]] == [5, 5, 0]
    assert ended.n_trials == 3 * 7
    assert all(rollout.reward is None for rollout in taking.groups[0][1])
    assert ended.n_kept == 1


def test_nothing_is_predicted_of_what_could_not_be_written() -> None:
    engine, taking = FakeEngine(TASKS, faults=[Fault("sample", f"Title {TASKS[4].id}\n")]), Taking()
    _, second = rounds_in(run(raced("learnt"), engine, algorithm=taking))
    assert [len(group) for group in taking.groups[1]] == [5, 0, 5]
    assert (second.n_trials, second.n_failed) == (3 * 2, 2)
