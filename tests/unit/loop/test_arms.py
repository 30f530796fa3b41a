from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import pytest

from selfedit.loop.algorithms import ALGORITHMS
from selfedit.loop.arms import CONTROLS, OPEN_BOOK, Given, arm_names, count_trials, experiment, n_completions
from selfedit.loop.outer import Event, Known, Lab, Round, Wrote
from selfedit.loop.rewards import Outcome
from selfedit.recipe import Recipe
from selfedit.tasks.graders import load_grader
from selfedit.tasks.knowledge import over_documents
from selfedit.types import Failure, OuterSettings, Sample, SampleSettings, Task, TrainSettings, Trial
from tests.unit.conftest import FakeEngine, Fault, make_tasks, plain

ARMS = ("base", "passage", "rounds", *CONTROLS)
SUBSETS = [subset for n in range(len(ARMS) + 1) for subset in combinations(ARMS, n)]
TRAIN, UNSEEN = make_tasks(5), make_tasks(3, prefix="U")
SPOILT = [(TRAIN[0].title, 1), (UNSEEN[1].title, 0)]
FAULTS = [
    Fault("encode", f" of {TRAIN[1].id} is ", ValueError("x")),
    Fault("answer", f"of {UNSEEN[2].id}?"),
    Fault("sample", "Title T3\n"),
]
RECIPE = Recipe(
    format="implications",
    seed=3,
    sample=SampleSettings(edits=3),
    outer=OuterSettings(rounds=2, tasks=2, select="best-of-n"),
    arms=ARMS,
)


DOMAIN = over_documents(TRAIN, RECIPE.format, TrainSettings())


def given(n: int) -> Given:
    """Give `n` self-edits of one sentence for each unseen task, and a search that always finds the first of them."""
    sentences = {task.id: task.context.rstrip(".").split(". ")[:n] for task in UNSEEN}
    written = {
        task.id: [Sample(DOMAIN.prompt(task), (), (), (), sentence, "eos") for sentence in sentences[task.id]]
        for task in UNSEEN
    }
    return Given(written, {task.id: [UNSEEN[0]] * len(task.questions) for task in UNSEEN})


EVERY = ("base", "passage", "completions", "rounds", *OPEN_BOOK, *CONTROLS)


def run(engine: FakeEngine, recipe: Recipe = RECIPE, known: Known | None = None) -> list[Event]:
    lab = Lab(DOMAIN, engine, load_grader("exact"), recipe.sample, recipe.exam, recipe.seed)
    return list(experiment(recipe, TRAIN, UNSEEN, lab, known or Known(), given(n_completions(recipe))))


def engine(*, is_troubled: bool = False) -> FakeEngine:
    tasks = [*TRAIN, *UNSEEN]
    return FakeEngine(tasks, faults=FAULTS, spoilt=SPOILT) if is_troubled else FakeEngine(tasks)


def trials_in(events: Sequence[Event]) -> list[Trial]:
    return [plain(event) for event in events if isinstance(event, Trial)]


def of(events: Sequence[Event], arm: str) -> list[Trial]:
    return [trial for trial in trials_in(events) if trial.key.startswith(f"{arm}/")]


def writers(events: Sequence[Event], label: str) -> list[str | None]:
    rounds = [event for event in events if isinstance(event, Round) and event.label == label]
    return [event.writer.id if event.writer else None for event in rounds]


def noted(events: Sequence[Event]) -> Known:
    known = Known()
    for event in events:
        known.note(event)
    return known


# ── algorithms ──


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_algorithm_runs_with_its_controls(name: str) -> None:
    outer = replace(RECIPE.outer, algorithm=name, select="improves")
    fake = engine()
    events = run(fake, replace(RECIPE, outer=outer))
    kept = {(event.label, event.index): event.n_kept for event in events if isinstance(event, Round)}
    assert kept["train", 1] == kept["shuffled-reward", 1] > 0
    assert kept["random-edits", 1] == 2
    data = [job.data for job in fake.trained if job.settings == outer.train]
    bring = [{datum.logprobs is not None for datum in each} for each in data]
    assert bring == [{name in ("grpo", "rloo")}] * (len(data) - 2) + [{False}] * 2


# ── counting ──


@pytest.mark.parametrize("arms", SUBSETS, ids="+".join)
@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_the_trials_counted_are_the_trials_run(arms: tuple[str, ...], rounds: int) -> None:
    outer = replace(RECIPE.outer, rounds=rounds, repeats=2)
    recipe = replace(RECIPE, arms=arms, eval_repeats=2, outer=outer)
    trials = trials_in(run(engine(), recipe))
    assert len({trial.key for trial in trials}) == len(trials)
    assert count_trials(recipe, len(TRAIN), len(UNSEEN)) == len(trials)


def test_fewer_tasks_than_a_round_takes_are_counted_right() -> None:
    recipe = replace(RECIPE, outer=replace(RECIPE.outer, tasks=50))
    assert count_trials(recipe, len(TRAIN), len(UNSEEN)) == len(trials_in(run(engine(), recipe)))


def test_failures_and_unusable_edits_are_counted_like_the_rest() -> None:
    trials = trials_in(run(engine(is_troubled=True)))
    assert sum(trial.failure is not None for trial in trials) > 5
    assert count_trials(RECIPE, len(TRAIN), len(UNSEEN)) == len(trials)


@pytest.mark.parametrize("arms", SUBSETS, ids="+".join)
def test_arms_are_named_as_their_trials_are(arms: tuple[str, ...]) -> None:
    recipe = replace(RECIPE, arms=arms)
    heads = dict.fromkeys(trial.key.split("/")[0] for trial in trials_in(run(engine(), recipe)))
    examined = [head for head in heads if head not in ("train-1", "train-2", *(f"{name}-2" for name in CONTROLS))]
    assert arm_names(recipe) == examined


# ── the arms ──


def test_every_arm_is_examined_on_the_same_unseen_tasks() -> None:
    events = run(engine())
    for name in arm_names(RECIPE):
        assert [trial.task_id for trial in of(events, name)] == [task.id for task in UNSEEN]
    trained = {trial.task_id for trial in trials_in(events) if trial.key.startswith("train-")}
    assert not trained & {task.id for task in UNSEEN}


def test_the_base_is_examined_without_an_update() -> None:
    fake = engine()
    for trial in of(run(fake, replace(RECIPE, arms=("base",))), "base"):
        assert (trial.sample, trial.adapter, trial.reward) == (None, None, 0.0)
        assert trial.before_Q == trial.after_Q
    assert fake.trained == []


def test_a_base_that_cannot_be_examined_is_unmeasured() -> None:
    fake = FakeEngine(UNSEEN, faults=[Fault("answer-base", f"of {UNSEEN[0].id}?", RuntimeError("x"))])
    assert [trial.reward for trial in of(run(fake, replace(RECIPE, arms=("base",))), "base")] == [None, 0.0, 0.0]


def test_the_passage_arm_trains_on_the_bare_passage_with_a_seed_for_every_repeat() -> None:
    fake = engine()
    trials = of(run(fake, replace(RECIPE, arms=("passage",), eval_repeats=2)), "passage")
    assert [(trial.sample, trial.edit, trial.repeat) for trial in trials] == [(None, 0, 0), (None, 0, 1)] * 3
    assert len({trial.seed for trial in trials}) == 6
    assert [len(job.data) for job in fake.trained] == [1] * 6


def test_a_writer_is_examined_with_a_fresh_self_edit_for_every_repeat() -> None:
    fake = engine()
    trials = of(run(fake, replace(RECIPE, arms=("rounds",), eval_repeats=2)), "round-2")
    assert [(trial.edit, trial.repeat) for trial in trials] == [(0, 0), (1, 0)] * 3
    assert {job.n for job in fake.sampled if "Title U" in job.prompt} == {2}
    assert {job.n for job in fake.sampled if "Title T" in job.prompt} == {3}


@pytest.mark.parametrize("learner", ["writer", "base"])
def test_each_arm_is_written_by_its_own_writer_and_learnt_by_the_learner(learner: str) -> None:
    fake = engine()
    assert learner in ("writer", "base")
    recipe = replace(RECIPE, outer=replace(RECIPE.outer, learner=learner))  # type: ignore[arg-type]
    events = run(fake, recipe)
    own = [None, *writers(events, "train")]
    expected = [*own, writers(events, "shuffled-reward")[-1], writers(events, "random-edits")[-1]]
    wrote = [job.adapter.id if job.adapter else None for job in fake.sampled if "Title U0\n" in job.prompt]
    assert wrote == expected
    assert len(set(expected)) == 5
    updates = [job.under.id if job.under else None for job in fake.trained if job.seed in seeds_of(events, "U0")]
    assert updates == [None, *(expected if learner == "writer" else [None] * 5)]  # the passage arm is first


def seeds_of(events: Sequence[Event], task_id: str) -> set[int]:
    return {trial.seed for trial in trials_in(events) if trial.task_id == task_id}


def test_the_controls_reinforce_something_else() -> None:
    events = run(engine())
    for index in (0, 1):
        assert len({writers(events, label)[index] for label in ("train", *CONTROLS)}) == 3


# ── the controls cost no more than they must ──


def test_the_first_round_is_run_once_and_shared_by_all() -> None:
    fake = engine()
    events = run(fake)
    heads = Counter(trial.key.split("/")[0] for trial in trials_in(events))
    assert heads["train-1"] == 2 * 3
    assert {f"{label}-1" for label in CONTROLS} & heads.keys() == set()
    assert Counter(event.key for event in events if isinstance(event, Wrote)).most_common(1)[0][1] == 1
    first = [event for event in events if isinstance(event, Round) and event.index == 1]
    assert [event.label for event in first] == ["train", *CONTROLS]
    assert len({(event.reward, event.n_trials) for event in first}) == 1


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_alone_gives_the_same_trials_as_among_the_others(control: str) -> None:
    alone, among = (run(engine(), replace(RECIPE, arms=arms)) for arms in ((control,), ARMS))
    assert of(alone, control) == of(among, control)
    assert of(alone, f"{control}-2") == of(among, f"{control}-2") != []


def test_a_control_spends_the_inner_loops_of_the_real_one() -> None:
    heads = Counter(trial.key.split("/")[0] for trial in trials_in(run(engine())))
    assert heads["train-2"] == heads["shuffled-reward-2"] == heads["random-edits-2"] == 6


# ── kill and resume ──


@pytest.mark.parametrize("is_troubled", [False, True])
def test_an_experiment_killed_anywhere_goes_on_to_the_same_trials(is_troubled: bool) -> None:
    complete = run(engine(is_troubled=is_troubled))
    expected = {trial.key: trial for trial in trials_in(complete)}
    assert len(complete) > 60
    for k in range(len(complete) + 1):
        after = run(engine(is_troubled=is_troubled), known=noted(complete[:k]))
        both = [*trials_in(complete[:k]), *trials_in(after)]
        assert len({trial.key for trial in both}) == len(both), "a trial was run twice"
        assert {trial.key: trial for trial in both} == expected
        assert [e for e in after if isinstance(e, Round)] == [e for e in complete if isinstance(e, Round)]


def test_an_arm_can_be_added_to_a_finished_run() -> None:
    known = noted(run(engine(), replace(RECIPE, arms=("base", "rounds"))))
    added = trials_in(run(engine(), known=known))
    heads = {trial.key.split("/")[0] for trial in added}
    assert heads == {"passage", *CONTROLS, *(f"{name}-2" for name in CONTROLS)}


def test_what_happens_is_noted_before_it_is_told() -> None:
    known = Known()
    domain = over_documents(TRAIN, "implications", TrainSettings())
    lab = Lab(domain, engine(), load_grader("exact"), RECIPE.sample, RECIPE.exam, RECIPE.seed)
    for event in experiment(RECIPE, TRAIN, UNSEEN, lab, known):
        if isinstance(event, Trial):
            assert known.trials[event.key] is event


# ── columns from outside ──


@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize("rounds", [0, 1])
def test_every_column_is_counted_and_named_as_it_is_run(together: int, rounds: int) -> None:
    outer = replace(RECIPE.outer, rounds=rounds)
    sample = SampleSettings(edits=2)
    recipe = replace(RECIPE, arms=EVERY, eval_repeats=2, outer=outer, sample=sample, together=together)
    trials = trials_in(run(engine(), recipe))
    assert len({trial.key for trial in trials}) == len(trials) == count_trials(recipe, len(TRAIN), len(UNSEEN))
    heads = dict.fromkeys(trial.key.split("/")[0] for trial in trials)
    assert [head for head in heads if not head.startswith("train-")] == arm_names(recipe)


def test_without_rounds_the_writers_own_self_edits_are_the_only_ones() -> None:
    recipe = replace(RECIPE, arms=("rounds",), outer=replace(RECIPE.outer, rounds=0))
    events = run(engine(), recipe)
    assert arm_names(recipe) == ["round-0"]
    assert [trial.task_id for trial in trials_in(events)] == [task.id for task in UNSEEN]
    assert not [event for event in events if isinstance(event, Round)]


def test_completions_are_trained_on_as_the_writers_own_are() -> None:
    fake = engine()
    trials = of(run(fake, replace(RECIPE, arms=("completions",), eval_repeats=2)), "completions")
    assert [(trial.task_id, trial.edit) for trial in trials] == [(t.id, edit) for t in UNSEEN for edit in (0, 1)]
    assert [trial.reward for trial in trials] == [0.25] * 6, "a completion holds one sentence of four"
    assert [trial.sample for trial in trials[:2]] == given(2).completions[UNSEEN[0].id]
    assert fake.sampled == []


def test_a_task_without_completions_is_unmeasured() -> None:
    missing = Failure("propose", "NoCompletion", "none")
    some = replace(given(1), completions={**given(1).completions, UNSEEN[1].id: missing})
    fake = engine()
    recipe = replace(RECIPE, arms=("completions",))
    lab = Lab(DOMAIN, fake, load_grader("exact"), recipe.sample, recipe.exam, recipe.seed)
    trials = trials_in(list(experiment(recipe, TRAIN, UNSEEN, lab, Known(), some)))
    assert [trial.failure for trial in trials] == [None, missing, None]
    assert [trial.reward for trial in trials] == [0.25, None, 0.25]


def test_open_book_arms_see_the_right_passage_and_the_one_that_was_found() -> None:
    fake = engine()
    events = run(fake, replace(RECIPE, arms=OPEN_BOOK))
    assert [trial.reward for trial in of(events, "in-context")] == [1.0, 1.0, 1.0]
    assert [trial.reward for trial in of(events, "retrieval")] == [1.0, 0.0, 0.0]
    assert not fake.trained
    assert not fake.sampled


@pytest.mark.parametrize("arm", ["passage", "completions", "round-0", "round-1"])
def test_together_every_arm_trains_one_adapter_for_all_tasks_and_repeat(arm: str) -> None:
    fake = engine()
    recipe = replace(RECIPE, arms=EVERY, together=3, eval_repeats=2, sample=SampleSettings(edits=2))
    trials = of(run(fake, recipe), arm)
    assert [(trial.task_id, trial.repeat) for trial in trials] == [(t.id, repeat) for repeat in (0, 1) for t in UNSEEN]
    assert len({trial.adapter for trial in trials}) == 2
    n_texts = {"passage": 1, "completions": 2 * 2}.get(arm)
    seeds = {trial.seed for trial in trials}
    jobs = [job for job in fake.trained if job.seed in seeds]
    assert len(jobs) == 2
    if n_texts:
        assert [len(job.data) for job in jobs] == [3 * n_texts] * 2


def test_together_the_rounds_of_reinforcement_are_those_of_single_tasks() -> None:
    alone = run(engine(), RECIPE)
    shared = run(engine(), replace(RECIPE, together=3))
    assert of(alone, "train-1") == of(shared, "train-1")
    assert writers(alone, "train") == writers(shared, "train")


def test_tasks_that_cannot_be_shared_out_are_refused() -> None:
    with pytest.raises(ValueError, match="3 tasks cannot be shared out, 2 to an adapter"):
        run(engine(), replace(RECIPE, together=2))


def test_shared_adapters_killed_anywhere_go_on_to_the_same_trials() -> None:
    recipe = replace(RECIPE, arms=EVERY, together=3, sample=SampleSettings(edits=2))
    complete = run(engine(is_troubled=True), recipe)
    expected = {trial.key: trial for trial in trials_in(complete)}
    for k in range(0, len(complete) + 1, 3):
        after = run(engine(is_troubled=True), recipe, known=noted(complete[:k]))
        both = [*trials_in(complete[:k]), *trials_in(after)]
        assert len({trial.key for trial in both}) == len(both), "a trial was run twice"
        assert {trial.key: trial for trial in both} == expected


# ── patience ──


def test_a_writer_that_has_stalled_is_not_examined_again_and_its_controls_get_as_many_rounds() -> None:
    def falling(task: Task, trials: Sequence[Trial]) -> Outcome:
        return Outcome(1 / int(trials[0].key.split("/")[0].rpartition("-")[2]), 0.0)

    outer = replace(RECIPE.outer, rounds=4, patience=2)
    recipe, fake = replace(RECIPE, outer=outer), engine()
    lab = Lab(DOMAIN, fake, load_grader("exact"), recipe.sample, recipe.exam, recipe.seed, reward=falling)
    events = list(experiment(recipe, TRAIN, UNSEEN, lab, Known(), Given()))
    heads = dict.fromkeys(trial.key.split("/")[0] for trial in trials_in(events))
    controls = [stage for name in CONTROLS for stage in (f"{name}-2", name)]
    trained = ["round-0", "train-1", "round-1", "train-2", "round-2", "train-3"]
    assert list(heads) == ["base", "passage", *trained, *controls]
    assert len(trials_in(events)) < count_trials(recipe, len(TRAIN), len(UNSEEN))
