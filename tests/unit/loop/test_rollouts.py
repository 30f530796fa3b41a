from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import pytest

from selfedit.errors import RunError
from selfedit.loop.outer import Event, Known, Lab, Wrote, improve, n_tried
from selfedit.loop.rewards import Outcome, accuracy, rubric
from selfedit.loop.rollouts import rewarded
from selfedit.types import (
    Failure,
    OuterSettings,
    RewardSettings,
    SampleSettings,
    Task,
    Trial,
)
from tests.unit.conftest import FakeEngine, make_tasks
from tests.unit.rounds import Taking, lab, noted, rounds_in

TASKS = make_tasks(6)
CFG = OuterSettings(rounds=2, tasks=3, repeats=2, terms=RewardSettings(measured=0.4))


def run(lab: Lab, algorithm: Taking, known: Known | None = None) -> list[Event]:
    return list(improve("train", TASKS, lab, algorithm, CFG, known or Known()))


def trials_in(events: Sequence[Event]) -> list[Trial]:
    return [event for event in events if isinstance(event, Trial)]


# ── a reward that fails ──


def moody(task: Task, trials_R: Sequence[Trial]) -> Outcome:
    if task.id == "T1":
        raise ZeroDivisionError("nothing to divide by")
    return accuracy(task, trials_R)


def broken(task: Task, trials_R: Sequence[Trial]) -> Outcome:
    raise KeyError("length")


def test_an_edit_whose_reward_failed_has_none_and_takes_no_other_with_it() -> None:
    trials = trials_in(run(lab(FakeEngine(TASKS)), Taking()))
    groups_PG, failures = rewarded(trials, TASKS, moody)
    unrewarded = [i for i, group in enumerate(groups_PG) if all(rollout.reward is None for rollout in group)]
    assert unrewarded == [1]
    assert {failure.kind for failure in failures} == {"ZeroDivisionError"}
    assert len(failures) == len(groups_PG[1]) == 5


def test_edits_without_a_reward_are_counted_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        first, _ = rounds_in(run(replace(lab(FakeEngine(TASKS)), reward=moody), Taking()))
    assert first.n_unrewarded == 5
    assert [record.getMessage() for record in caplog.records] == [
        "5 of 15 self-edits of train-1 have no reward (ZeroDivisionError: nothing to divide by)"
    ]


def test_a_reward_that_always_fails_stops_the_run_after_its_trials() -> None:
    seen: list[Event] = []
    with pytest.raises(RunError, match=r"failed for all 15 self-edits of train-1 \(KeyError: 'length'\); mend it"):
        for event in improve("train", TASKS, replace(lab(FakeEngine(TASKS)), reward=broken), Taking(), CFG, Known()):
            seen.append(event)
    assert len(trials_in(seen)) == 3 * 5 * 2
    engine = FakeEngine(TASKS)
    mended = run(lab(engine), Taking(), noted(seen))
    assert {trial.key.split("/")[0] for trial in trials_in(mended)} == {"train-2"}


# ── a learnt reward ──


@pytest.mark.parametrize(
    ("share", "edits", "tried"), [(0.4, 5, 2), (0.01, 5, 1), (1.0, 5, 5), (0.5, 3, 2), (0.6, 5, 3)]
)
def test_a_share_of_the_self_edits_is_tried_and_at_least_one(share: float, edits: int, tried: int) -> None:
    assert n_tried(OuterSettings(terms=RewardSettings(measured=share)), SampleSettings(edits=edits)) == tried


def test_a_learnt_reward_tries_some_edits_and_predicts_the_others() -> None:
    algorithm, engine = Taking(), FakeEngine(TASKS)
    trials = trials_in(run(replace(lab(engine), predicts=True), algorithm))
    assert len(trials) == 2 * 3 * 2 * 2
    assert {trial.edit for trial in trials} == {0, 1}
    for groups_PG in algorithm.groups:
        assert [len(group) for group in groups_PG] == [5, 5, 5]
        assert all(rollout.reward is not None and rollout.baseline == 0.0 for group in groups_PG for rollout in group)


def test_tried_edits_keep_the_reward_that_was_measured() -> None:
    plainly, predicting = Taking(), Taking()
    run(lab(FakeEngine(TASKS)), plainly)
    run(replace(lab(FakeEngine(TASKS)), predicts=True), predicting)
    assert [group[:2] for group in predicting.groups[0]] == [group[:2] for group in plainly.groups[0]]


def test_a_learnt_reward_is_resumed_to_the_last_digit() -> None:
    whole, again = Taking(), Taking()
    events = run(replace(lab(FakeEngine(TASKS)), predicts=True), whole)
    cut = events[: len(events) * 2 // 3]
    run(replace(lab(FakeEngine(TASKS)), predicts=True), again, noted(cut))
    assert again.groups == whole.groups


def test_a_round_tells_how_well_its_learnt_reward_predicts_and_a_measured_one_says_nothing() -> None:
    learnt = rounds_in(run(replace(lab(FakeEngine(TASKS)), predicts=True), Taking()))
    assert all(each.fit is not None and -1 <= each.fit <= 1 for each in learnt)
    assert [each.fit for each in rounds_in(run(lab(FakeEngine(TASKS)), Taking()))] == [None, None]


# ── a rubric ──


def marks(length: float) -> dict[str, float]:
    return {"length": length, "diversity": 3.0, "quality": 3.0, "correctness": 3.0}


def test_a_rubric_trains_and_examines_nothing_but_the_writer() -> None:
    engine, algorithm = FakeEngine(TASKS), Taking()
    reading = replace(lab(engine), reward=rubric, assess=lambda pairs: [marks(len(text) % 5 + 1) for _, text in pairs])
    events = run(reading, algorithm)
    trials = trials_in(events)
    assert len(trials) == 2 * 3 * 5
    assert {job.settings for job in engine.trained} == {CFG.train}
    assert engine.answered == []
    assert all(trial.adapter is None and trial.reward is None and trial.measures["length"] for trial in trials)
    assert [each.n_failed for each in rounds_in(events)] == [0, 0]
    assert algorithm.groups[0][0][0].reward == trials[0].measures["length"] / 4 + 9 / 4  # type: ignore[operator]


def test_an_unusable_self_edit_is_not_read_and_worth_nothing() -> None:
    read: list[str] = []

    def assess(pairs: list[tuple[Task, str]]) -> list[dict[str, float] | Failure]:
        read.extend(text for _, text in pairs)
        return [marks(3) for _ in pairs]

    algorithm = Taking()
    engine = FakeEngine(TASKS, spoilt=[(TASKS[0].title, 1)])
    run(replace(lab(engine), reward=rubric, assess=assess), algorithm)  # type: ignore[arg-type]
    assert "" not in read
    assert [rollout.reward for rollout in algorithm.groups[0][0]] == [3.0, 0.0, 3.0, 3.0, 3.0]


def test_a_self_edit_that_could_not_be_read_has_no_reward_and_is_read_again() -> None:
    lost = Failure("reward", "Unreadable", "what?")

    def first_lost(pairs: list[tuple[Task, str]]) -> list[dict[str, float] | Failure]:
        return [lost if task.id == "T0" else marks(3) for task, _ in pairs]

    algorithm = Taking()
    events = run(replace(lab(FakeEngine(TASKS)), reward=rubric, assess=first_lost), algorithm)  # type: ignore[arg-type]
    assert {rollout.reward for rollout in algorithm.groups[0][0]} == {None}
    assert rounds_in(events)[0].n_failed == 5
    known = Known.resumed(noted(events).trials, {e.key: e.samples for e in events if isinstance(e, Wrote)})
    again = run(
        replace(lab(FakeEngine(TASKS)), reward=rubric, assess=lambda pairs: [marks(3) for _ in pairs]), Taking(), known
    )
    assert {trial.task_id for trial in trials_in(again)} == {"T0"}


def test_a_rubric_that_marks_nothing_stops_the_run() -> None:
    reading = replace(
        lab(FakeEngine(TASKS)),
        reward=rubric,
        assess=lambda pairs: [Failure("reward", "Unreadable", "what?") for _ in pairs],
    )
    with pytest.raises(RunError, match=r"none of the 15 self-edits could be marked by the rubric \(what\?\)"):
        run(reading, Taking())
