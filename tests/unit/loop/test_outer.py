from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from selfedit.errors import RunError
from selfedit.loop.algorithms import Algorithm, load_algorithm, rest_em
from selfedit.loop.outer import (
    FIRST,
    Event,
    Known,
    Lab,
    Round,
    Wrote,
    has_stalled,
    improve,
    write,
    write_and_try,
)
from selfedit.loop.rewards import Outcome, accuracy
from selfedit.loop.rollouts import group
from selfedit.tasks.graders import load_grader
from selfedit.tasks.knowledge import over_documents
from selfedit.types import (
    Adapter,
    Datum,
    ExamSettings,
    Failure,
    OuterSettings,
    Rollout,
    Sample,
    SampleSettings,
    Score,
    Task,
    TrainSettings,
    Trial,
)
from tests.unit.conftest import FakeEngine, Fault, make_tasks, plain
from tests.unit.rounds import noted, rounds_in

TASKS = make_tasks(6)
CFG = OuterSettings(rounds=3, tasks=2, repeats=2, select="best-of-n")
FAULTS = [Fault("train", f" of {TASKS[1].id} is "), Fault("sample", f"Title {TASKS[3].id}\n")]
SPOILT = [(TASKS[0].title, 1), (TASKS[2].title, 0)]


def best(groups_PG: Sequence[Sequence[Rollout]]) -> list[Datum]:
    return rest_em(groups_PG, "best-of-n")


def nothing(groups_PG: Sequence[Sequence[Rollout]]) -> list[Datum]:
    return []


def lab(engine: FakeEngine, tasks: Sequence[Task] = TASKS, edits: int = 3, seed: int = 7) -> Lab:
    domain = over_documents(tasks, "implications", TrainSettings())
    return Lab(domain, engine, load_grader("exact"), SampleSettings(edits=edits), ExamSettings(), seed)


def grouped(trials: Sequence[Trial]) -> list[list[Rollout]]:
    return group(trials, [*TASKS, replace(TASKS[0], id="a"), replace(TASKS[0], id="b")], accuracy)


def run(
    engine: FakeEngine,
    cfg: OuterSettings = CFG,
    known: Known | None = None,
    algorithm: Algorithm = best,
    label: str = "train",
) -> list[Event]:
    return list(improve(label, TASKS, lab(engine), algorithm, cfg, known or Known()))


def trials_in(events: Sequence[Event]) -> list[Trial]:
    return [plain(event) for event in events if isinstance(event, Trial)]


def whole() -> FakeEngine:
    return FakeEngine(TASKS)


def troubled() -> FakeEngine:
    return FakeEngine(TASKS, faults=FAULTS, spoilt=SPOILT)


# ── the order of things ──


def test_a_round_writes_then_tries_then_reinforces() -> None:
    events = run(whole(), replace(CFG, rounds=2))
    kinds = [type(event).__name__ for event in events]
    one_round = ["Wrote"] * 2 + ["Trial"] * (2 * 3 * 2) + ["Round"]
    assert kinds == one_round * 2


def test_keys_are_unique_and_name_round_task_edit_and_repeat() -> None:
    trials = trials_in(run(whole()))
    assert len({trial.key for trial in trials}) == len(trials) == 3 * 2 * 3 * 2
    assert trials[0].key == "train-1/T0/0/0"
    assert trials[-1].key == "train-3/T5/2/1"


def test_each_round_takes_the_next_tasks_and_begins_again_where_they_run_out() -> None:
    events = run(whole(), replace(CFG, rounds=4, tasks=4, repeats=1))
    taken = [
        list(dict.fromkeys(t.task_id for t in trials_in(events) if t.key.startswith(f"train-{r}/"))) for r in (1, 2, 3)
    ]
    assert taken == [["T0", "T1", "T2", "T3"], ["T4", "T5", "T0", "T1"], ["T2", "T3", "T4", "T5"]]


def test_more_tasks_a_round_than_there_are_takes_each_once() -> None:
    events = run(whole(), replace(CFG, rounds=2, tasks=50, repeats=1))
    assert Counter(t.key.split("/")[0] for t in trials_in(events)) == {"train-1": 18, "train-2": 18}
    assert len({t.key for t in trials_in(events)}) == 36


def test_no_rounds_and_no_tasks_give_no_trials() -> None:
    assert run(whole(), replace(CFG, rounds=0)) == []
    events = list(improve("train", [], lab(whole()), best, replace(CFG, rounds=1), Known()))
    assert events == [Round("train", 1, None, None, 0, 0, 0, 0, 0)]


def test_the_same_seed_gives_the_same_events_and_another_gives_others() -> None:
    first, again = (trials_in(run(whole())) for _ in range(2))
    other = [e for e in improve("train", TASKS, lab(whole(), seed=8), best, CFG, Known()) if isinstance(e, Trial)]
    assert first == again
    assert [trial.sample for trial in first] != [trial.sample for trial in other]
    assert not {trial.seed for trial in first} & {trial.seed for trial in other}


def test_every_draw_and_every_training_has_a_seed_of_its_own() -> None:
    engine = whole()
    run(engine, replace(CFG, rounds=4, tasks=4))  # the tasks come round again
    assert len({job.seed for job in engine.sampled}) == len(engine.sampled) == 16
    assert len({job.seed for job in engine.trained}) == len(engine.trained) == 4 * (4 * 3 * 2 + 1)


# ── who writes, who learns ──


def writers(events: Sequence[Event]) -> list[str | None]:
    return [event.writer.id if event.writer else None for event in rounds_in(events)]


def test_each_rounds_self_edits_are_written_by_the_writer_of_the_round_before() -> None:
    engine = whole()
    ids = writers(run(engine))
    assert len(set(ids)) == 3
    assert [job.adapter.id if job.adapter else None for job in engine.sampled[::2]] == [None, *ids[:2]]


def test_a_writer_is_trained_on_top_of_the_last() -> None:
    first, second, third = [event.writer for event in rounds_in(run(whole()))]
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.under, second.under, third.under) == (None, first, second)


@pytest.mark.parametrize("learner", ["writer", "base"])
def test_the_learner_is_the_writer_or_the_base(learner: str) -> None:
    engine = whole()
    assert learner in ("writer", "base")
    ids = writers(run(engine, replace(CFG, learner=learner)))  # type: ignore[arg-type]
    inner = [job.under.id if job.under else None for job in engine.trained if job.settings != CFG.train]
    expected = [None, *ids[:2]] if learner == "writer" else [None] * 3
    assert inner == [each for each in expected for _ in range(2 * 3 * 2)]
    before = {job.adapter.id if job.adapter else None for job in engine.answered if len(job.prompts) == 4}
    assert {None, *(ids[:2] if learner == "writer" else [])} <= before


def test_the_next_writer_imitates_what_was_kept_with_the_outer_settings() -> None:
    engine = whole()
    trials = trials_in(run(engine, replace(CFG, rounds=1)))
    outer = engine.trained[-1]
    kept = best(grouped(trials))
    assert outer.settings == CFG.train
    assert outer.data == tuple(kept)
    assert len(kept) == 2


def test_where_nothing_is_kept_the_writer_stays() -> None:
    engine = whole()
    events = run(engine, algorithm=nothing)
    assert writers(events) == [None] * 3
    assert [event.n_kept for event in rounds_in(events)] == [0] * 3
    assert all(job.settings != CFG.train for job in engine.trained)
    once = iter([best])
    events = run(whole(), algorithm=lambda groups: next(once, nothing)(groups))
    first, second, third = writers(events)
    assert first is not None
    assert first == second == third


def test_a_writer_that_cannot_be_trained_ends_the_run_with_a_sentence() -> None:
    engine = FakeEngine(TASKS, faults=[Fault("train", "Implications:")])
    with pytest.raises(RunError, match="the writer could not be trained after train-1: told to fail at train"):
        run(engine)


def test_the_labs_reward_decides_what_is_kept() -> None:
    engine = whole()

    def shortest(task: Task, trials: Sequence[Trial]) -> Outcome:
        assert {trial.task_id for trial in trials} == {task.id}
        return Outcome(1 / len(trials[0].sample.text if trials[0].sample else "x"), 0.0)

    cfg = replace(CFG, rounds=1)
    events = list(improve("train", TASKS, replace(lab(engine), reward=shortest), best, cfg, Known()))
    briefest = [min(event.samples, key=lambda s: len(s.text)) for event in events if isinstance(event, Wrote)]
    assert [datum.tokens for datum in engine.trained[-1].data] == [s.prompt_tokens + s.tokens for s in briefest]


def test_a_round_sums_up_its_trials() -> None:
    events = run(troubled(), replace(CFG, rounds=2))
    for event in rounds_in(events):
        trials = [t for t in trials_in(events) if t.key.startswith(f"train-{event.index}/")]
        rollouts = [r.reward for rollouts in grouped(trials) for r in rollouts if r.reward is not None]
        assert event.n_trials == len(trials) == 12
        assert event.n_failed == sum(t.reward is None for t in trials) > 0
        assert event.reward == pytest.approx(sum(rollouts) / len(rollouts))


# ── patience, merging ──


@pytest.mark.parametrize(
    ("means", "patience", "expected"),
    [
        ([0.5, 0.4, 0.3], 0, False),
        ([0.5], 1, False),
        ([], 1, False),
        ([0.3, 0.4], 1, False),
        ([0.4, 0.4], 1, True),
        ([0.4, 0.3], 2, False),
        ([0.4, 0.3, 0.4], 2, True),
        ([0.4, 0.3, 0.41], 2, False),
        ([0.4, None], 1, False),
        ([0.4, None, 0.3], 1, True),
        ([None, None, None], 1, False),
    ],
)
def test_rounds_have_stalled_once_the_last_are_not_above_the_best_before(
    means: list[float | None], patience: int, expected: bool
) -> None:
    assert has_stalled(means, patience) is expected


def stalling(task: Task, trials: Sequence[Trial]) -> Outcome:
    """Reward the rounds 0.3, 0.5, 0.4, 0.5, 0.6 whatever was learnt."""
    index = int(trials[0].key.split("/")[0].rpartition("-")[2])
    return Outcome((0.3, 0.5, 0.4, 0.5, 0.6)[index - 1], 0.0)


def run_stalling(engine: FakeEngine, patience: int, known: Known | None = None) -> list[Event]:
    cfg = replace(CFG, rounds=5, repeats=1, patience=patience)
    return list(improve("train", TASKS, replace(lab(engine), reward=stalling), best, cfg, known or Known()))


@pytest.mark.parametrize(("patience", "n_rounds"), [(0, 5), (1, 3), (2, 4), (3, 5)])
def test_with_patience_the_loop_ends_in_the_round_that_shows_no_gain_and_reinforces_nothing_in_it(
    patience: int, n_rounds: int
) -> None:
    engine = whole()
    rounds = rounds_in(run_stalling(engine, patience))
    is_stop = n_rounds < 5
    assert [event.is_stop for event in rounds] == [False] * (n_rounds - is_stop) + [True] * is_stop
    assert sum(job.settings == CFG.train for job in engine.trained) == n_rounds - is_stop
    if is_stop:
        assert rounds[-1].writer == rounds[-2].writer
        assert rounds[-1].n_kept == 0


def test_a_run_with_patience_killed_anywhere_stops_in_the_same_round_after_the_same_trials() -> None:
    complete = run_stalling(whole(), 2)
    assert len(rounds_in(complete)) == 4
    for k in range(0, len(complete) + 1, 3):
        after = run_stalling(whole(), 2, noted(complete[:k]))
        assert rounds_in(after) == rounds_in(complete)
        assert sorted(t.key for t in trials_in([*complete[:k], *after])) == sorted(t.key for t in trials_in(complete))


def test_a_run_that_lost_patience_goes_on_with_more_of_it() -> None:
    short = run_stalling(whole(), 1)
    longer = run_stalling(whole(), 0, noted(short))
    assert trials_in([*short, *longer]) == trials_in(run_stalling(whole(), 0))


def test_a_merged_writer_has_nothing_under_it_and_the_next_is_trained_on_it() -> None:
    engine = whole()
    merged = [event.writer for event in rounds_in(run(engine, replace(CFG, merge=True)))]
    assert [(writer.under, writer.rank) for writer in merged if writer] == [(None, 0)] * 3
    outer = [job.under for job in engine.trained if job.settings == CFG.train]
    assert outer == [None, *merged[:2]]
    stacked = rounds_in(run(whole(), CFG))[-1].writer
    assert stacked
    assert stacked.under
    assert stacked.under.under


# ── algorithms ──

GRPO = replace(CFG, rounds=1, algorithm="grpo", train=replace(CFG.train, kl=0.1))


def test_where_all_edits_are_worth_the_same_the_groups_are_counted_and_grpo_leaves_the_writer_as_it_is() -> None:
    engine = FakeEngine()  # which answers nothing
    (event,) = rounds_in(run(engine, GRPO, algorithm=load_algorithm(GRPO)))
    assert (event.reward, event.writer, event.n_kept) == (0.0, None, 0)
    assert (event.n_groups, event.n_degenerate) == (2, 2)
    assert all(job.settings != GRPO.train for job in engine.trained)
    (told,) = rounds_in(run(whole(), GRPO, algorithm=load_algorithm(GRPO)))
    assert (told.n_groups, told.n_degenerate) == (2, 0)
    assert told.writer


def test_a_resumed_round_is_reinforced_with_the_log_probabilities_that_were_recorded() -> None:
    trials = trials_in(run(whole(), GRPO, algorithm=load_algorithm(GRPO)))
    samples = [replace(t.sample, logprobs=(-2.0,) * len(t.sample.tokens)) for t in trials if t.sample]
    known = Known({t.key: replace(t, sample=s) for t, s in zip(trials, samples, strict=True)})
    engine = whole()
    run(engine, GRPO, known, load_algorithm(GRPO))
    (job,) = [job for job in engine.trained if job.settings == GRPO.train]
    assert len(job.data) > 2
    for datum in job.data:
        assert datum.logprobs == tuple(-2.0 if weight else 0.0 for weight in datum.weights)


def test_the_reference_of_the_divergence_is_the_first_writer_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Adapter("0", "fake@0123456789ab", None, 1)
    asked: list[Adapter | None] = []

    def logprobs(self: FakeEngine, data: Sequence[Datum], adapter: Adapter | None = None) -> list[list[float]]:
        asked.append(adapter)
        return [[-0.125 * t for t in range(len(datum.tokens))] for datum in data]

    monkeypatch.setattr(FakeEngine, "logprobs", logprobs)
    engine = whole()
    engine.held["0"] = ()
    cfg = replace(GRPO, rounds=2)
    begun = replace(lab(engine), begins=first)
    list(improve("train", TASKS, begun, best, cfg, Known()))
    jobs = [job for job in engine.trained if job.settings == cfg.train]
    assert asked == [first] * len(jobs) == [first] * 2
    assert all(d.reference == tuple(-0.125 * t for t in range(len(d.tokens))) for job in jobs for d in job.data)
    run(engine, replace(cfg, train=CFG.train))
    assert len(asked) == 2, "without kl there is no need of a reference"


# ── groups ──


def trial(
    task: str, edit: int, repeat: int, reward: float | None, before: float | None = 0.0, text: str = "s"
) -> Trial:
    sample = Sample("p", (), (), (), f"{text}{edit}", "eos") if text else None
    failure = None if reward is not None else Failure("train", "X", "x")
    return Trial(
        f"{task}/{edit}/{repeat}",
        task,
        edit,
        repeat,
        0,
        sample,
        None,
        (Score(before, ""),),
        (Score(reward, ""),),
        reward,
        failure,
        baseline=before,
    )


def test_repeats_of_an_edit_are_averaged_over_what_was_measured() -> None:
    trials = [trial("a", 0, 0, 1.0, 0.0), trial("a", 0, 1, None, None), trial("a", 0, 2, 0.0, 1.0)]
    ((rollout,),) = grouped(trials)
    assert (rollout.reward, rollout.baseline) == (0.5, 0.5)


def test_edits_are_grouped_by_their_task_in_order() -> None:
    trials = [trial(t, e, r, e / 4) for t in ("b", "a") for e in (0, 1, 2) for r in (0, 1)]
    groups = grouped(trials)
    assert [[r.reward for r in rollouts] for rollouts in groups] == [[0.0, 0.25, 0.5]] * 2
    assert [[r.sample.text for r in rollouts] for rollouts in groups] == [["s0", "s1", "s2"]] * 2


def test_an_unmeasured_edit_has_no_reward_and_one_that_was_never_written_is_left_out() -> None:
    assert [[r.reward for r in rollouts] for rollouts in grouped([trial("a", 0, 0, None), trial("a", 1, 0, 0.5)])] == [
        [None, 0.5]
    ]
    assert grouped([trial("a", 0, 0, None, text=""), trial("a", 1, 0, None, text="")]) == [[]]
    assert grouped([]) == []


# ── kill and resume ──


def check_resumed(cut: Sequence[Event], make: str, complete: Sequence[Event]) -> None:
    engine = whole() if make == "whole" else troubled()
    after = run(engine, known=noted(cut))
    before = trials_in(cut)
    resumed = trials_in(after)
    expected = trials_in(complete)
    keys = [t.key for t in [*before, *resumed]]
    assert len(set(keys)) == len(keys), "a trial was run twice"
    assert sorted([*before, *resumed], key=lambda t: t.key) == sorted(expected, key=lambda t: t.key)
    assert rounds_in(after) == rounds_in(complete)
    written = [event.key for event in [*cut, *after] if isinstance(event, Wrote)]
    assert len(set(written)) == len(written), "a self-edit was written twice"


@pytest.mark.parametrize("make", ["whole", "troubled"])
def test_a_run_killed_anywhere_goes_on_to_the_same_trials(make: str) -> None:
    complete = run(whole() if make == "whole" else troubled())
    assert len(complete) > 40
    for k in range(len(complete) + 1):
        check_resumed(complete[:k], make, complete)


def test_a_finished_run_runs_nothing_again_but_its_writers() -> None:
    complete = run(whole())
    engine = whole()
    assert run(engine, known=noted(complete)) == rounds_in(complete)
    assert engine.sampled == []
    assert [job.settings for job in engine.trained] == [CFG.train] * 3


def test_more_rounds_go_on_from_a_finished_run() -> None:
    short = run(whole(), replace(CFG, rounds=1))
    longer = run(whole(), known=noted(short))
    assert trials_in([*short, *longer]) == trials_in(run(whole()))


# ── a stage that is asked for more or less than is known ──


def stage(engine: FakeEngine, edits: int, known: Known) -> list[Event]:
    settings = SampleSettings(edits=edits)
    return list(write_and_try("round-0", TASKS[:2], lab(engine), None, None, 1, settings, known))


def test_a_stage_that_is_asked_for_more_edits_draws_the_rest_and_keeps_what_it_has() -> None:
    few = stage(whole(), 1, Known())
    more = stage(whole(), 3, noted(few))
    assert trials_in([*few, *more]) != []
    assert Counter(t.task_id for t in trials_in(more)) == {"T0": 2, "T1": 2}
    assert sorted(t.key for t in trials_in([*few, *more])) == sorted(
        t.key for t in trials_in(stage(whole(), 3, Known()))
    )
    first = {event.key: event.samples for event in few if isinstance(event, Wrote)}
    second = {event.key: event.samples for event in more if isinstance(event, Wrote)}
    assert all(len(second[key]) == 3 and second[key][:1] == first[key] for key in first)


def test_a_stage_that_is_asked_for_fewer_edits_runs_nothing() -> None:
    many = stage(whole(), 3, Known())
    assert stage(whole(), 1, noted(many)) == []
    written = [event for event in many if isinstance(event, Wrote)]
    assert [trial.key for trial in trials_in(stage(whole(), 1, noted(written)))] == ["round-0/T0/0/0", "round-0/T1/0/0"]


def test_a_stage_keeps_the_samples_that_were_recorded_whatever_would_be_drawn_now() -> None:
    recorded = Sample("p", (1,), (2,), (-1.0,), "The river of T0 is riverT0.", "eos")
    known = Known(samples={"round-0/T0": (recorded,)})
    events = stage(whole(), 2, known)
    assert [trial.sample == recorded for trial in trials_in(events)][:2] == [True, False]
    (wrote, _) = [event for event in events if isinstance(event, Wrote)]
    assert wrote.samples[0] == recorded


def test_the_first_round_is_the_same_for_all_labels() -> None:
    own, other = run(whole(), label="train"), run(whole(), label="random-edits")
    shared = [t for t in trials_in(own) if t.key.startswith(f"{FIRST}/")]
    assert len(shared) == 12
    assert shared == trials_in(other)[:12]
    assert not {t.key for t in trials_in(own)[12:]} & {t.key for t in trials_in(other)[12:]}


def test_what_failed_unmeasured_is_run_again_and_what_the_model_spoilt_is_not() -> None:
    broken = trials_in(run(troubled(), replace(CFG, rounds=1)))
    lost = {t.key for t in broken if t.failure and t.failure.kind != "BadEdit"}
    spoilt = {t.key for t in broken if t.failure and t.failure.kind == "BadEdit"}
    known = Known.resumed({t.key: t for t in broken}, {})
    assert lost
    assert spoilt
    assert known.trials.keys() == {t.key for t in broken} - lost
    assert spoilt <= known.trials.keys()


def test_what_many_tasks_wrote_is_told_as_it_comes_and_is_the_same_however_many_write_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = SampleSettings(edits=2)
    at_once = list(write("round-0", TASKS, lab(whole()), None, settings, Known()))
    monkeypatch.setattr("selfedit.loop.outer.WRITTEN_AT_ONCE", 2)
    engine = whole()
    drawn = write("round-0", TASKS, lab(engine), None, settings, Known())
    first = next(drawn)
    assert len(engine.sampled) == 2, "a kill costs no more than was being written"
    assert [first, *drawn] == at_once
    assert len(engine.sampled) == len(TASKS)
