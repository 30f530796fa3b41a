from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfedit.errors import InputError
from selfedit.loop.arms import count_trials, experiment
from selfedit.loop.outer import Event, Known, Lab, Wrote
from selfedit.loop.weak import allocate, budgets, budgets_of, held, paths_in, study
from selfedit.recipe import Recipe
from selfedit.tasks.graders import load_grader
from selfedit.tasks.knowledge import over_documents
from selfedit.types import (
    Adapter,
    ExamSettings,
    Failure,
    OuterSettings,
    SampleSettings,
    Task,
    TrainJob,
    TrainSettings,
    Trial,
)
from tests.unit.conftest import make_tasks, plain
from tests.unit.examining import ExaminingEngine, is_exam_job, unasked

CORPUS = make_tasks(4)
DOMAIN = over_documents(CORPUS, "implications", TrainSettings())
RECIPE = Recipe(
    format="implications",
    seed=3,
    sample=SampleSettings(edits=1),
    exam=ExamSettings(questions="self-made", draws=1),
    outer=OuterSettings(rounds=3, tasks=3, learner="base"),
    arms=("even", "weak"),
)
SCORES = st.lists(st.one_of(st.none(), st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 2 / 3, 1.0])), min_size=1, max_size=12)


def lab(engine: ExaminingEngine) -> Lab:
    return Lab(DOMAIN, engine, load_grader("exact"), RECIPE.sample, RECIPE.exam, RECIPE.seed)


def run(
    engine: ExaminingEngine | None = None,
    recipe: Recipe = RECIPE,
    corpus: Sequence[Task] = CORPUS,
    known: Known | None = None,
) -> list[Event]:
    engine = engine or ExaminingEngine(CORPUS)
    return list(experiment(recipe, [], corpus, lab(engine), known or Known()))


def trials_in(events: Sequence[Event]) -> dict[str, Trial]:
    return {event.key: plain(event) for event in events if isinstance(event, Trial)}


def noted(events: Sequence[Event]) -> Known:
    known = Known()
    for event in events:
        known.note(event)
    return known


def spent(
    way: str, events: Sequence[Event], recipe: Recipe = RECIPE, corpus: Sequence[Task] = CORPUS
) -> list[list[int]]:
    return list(budgets_of(way, paths_in(trials_in(events), corpus), recipe))


def trial(
    reward: float | None,
    edit: int = 0,
    baseline: float | None = 0.0,
    failure: Failure | None = None,
    adapter: str = "a",
) -> Trial:
    return Trial("", "T", edit, 0, 0, None, adapter, (), (), reward, failure, {}, baseline)


# ── sharing out ──


@given(SCORES, st.integers(0, 40))
def test_all_of_a_budget_is_shared_out_unless_nothing_is_wrong(scores_P: list[float | None], budget: int) -> None:
    counts_P = allocate(scores_P, budget)
    assert len(counts_P) == len(scores_P) and min(counts_P) >= 0
    measured = [score for score in scores_P if score is not None]
    assert sum(counts_P) == (0 if measured and min(measured) == 1 else budget)


@given(SCORES, st.integers(0, 40), st.integers(0, 5))
def test_a_weaker_passage_never_gets_fewer(scores_P: list[float | None], budget: int, spent: int) -> None:
    spent_P = [(spent * p) % 4 for p in range(len(scores_P))]
    shares = list(zip(scores_P, allocate(scores_P, budget, spent_P), strict=True))
    for score, n in shares:
        for other, m in shares:
            if score is not None and other is not None and score < other:
                assert n >= m
            if score == other:
                assert abs(n - m) <= 1


def test_what_is_known_gets_none_and_what_is_half_known_half_as_many() -> None:
    assert allocate([0.0, 0.5, 1.0], 9) == [6, 3, 0]


def test_the_unmeasured_get_the_mean_share() -> None:
    assert allocate([0.0, None, 0.8], 12) == [7, 4, 1]
    assert allocate([None, 1.0, 1.0], 3) == [0, 0, 0]


def test_told_nothing_it_is_an_even_spread() -> None:
    assert allocate([None] * 4, 6, [1, 0, 1, 0]) == [1, 2, 1, 2]
    assert allocate([], 6) == []


def test_a_budget_below_the_corpus_goes_to_the_weakest_and_then_to_those_on_which_least_was_spent() -> None:
    assert allocate([0.5, 0.0, 0.0, 0.9], 2) == [0, 1, 1, 0]
    assert allocate([0.0] * 4, 2, [2, 1, 2, 1]) == [0, 1, 0, 1]


# ── what a passage holds ──


def test_a_self_edit_is_kept_only_if_the_visible_half_is_the_better_for_it() -> None:
    path = [trial(0.0, 0), trial(0.5, 1), trial(0.5, 2), trial(0.25, 3), trial(0.75, 4)]
    assert [held(path[:n]).kept for n in range(6)] == [(), (), (1,), (1,), (1,), (1, 4)]
    assert [held(path[:n]).score for n in (1, 3, 5)] == [0.0, 0.5, 0.75]


def test_an_update_that_falls_below_the_model_before_it_is_not_kept() -> None:
    assert held([trial(0.25, baseline=0.5)]).trial is None
    assert held([trial(0.25, baseline=0.5)]).score == 0.5


def test_where_nothing_can_be_measured_all_that_was_learnt_is_kept() -> None:
    broken = trial(None, 1, None, Failure("train", "X", ""))
    found = held([trial(None, 0, None), broken, trial(None, 2, None)])
    assert (found.kept, found.score) == ((0, 2), None)


def test_a_failure_of_ours_changes_nothing() -> None:
    failed = trial(None, 1, None, Failure("answer", "X", ""))
    assert held([trial(0.5), failed]) == held([trial(0.5)])


# ── rounds ──


def test_rounds_end_where_nothing_is_wrong_any_more() -> None:
    paths_P = [[trial(1.0)], [trial(1.0)]]
    assert list(budgets("weak", paths_P, 1, 5, 2)) == [[1, 1]]
    assert len(list(budgets("even", paths_P, 1, 5, 2))) == 6


def test_both_ways_spend_as_much_in_every_round() -> None:
    events = run()
    even, weak = spent("even", events), spent("weak", events)
    assert [sum(each) for each in even] == [4, 7, 10, 13]
    assert [sum(each) for each in weak] == [4, 7, 10, 13][: len(weak)] and len(weak) > 2
    assert even != weak


def test_the_weak_get_more_of_what_is_left_and_the_known_none() -> None:
    events = run()
    paths_P = paths_in(trials_in(events), CORPUS)
    first, second, *_ = spent("weak", events)
    for path, a, b in zip(paths_P, first, second, strict=True):
        assert (b > a) >= (held(path[:a]).score == 0.0)
        assert (b == a) >= (held(path[:a]).score == 1.0)


def test_a_self_edit_is_learnt_once_whoever_asks_for_it() -> None:
    corpus = make_tasks(12)
    engine, recipe = ExaminingEngine(corpus), replace(RECIPE, outer=replace(RECIPE.outer, tasks=6))
    events = run(engine, recipe, corpus)
    ways = (spent(way, events, recipe, corpus)[-1] for way in ("even", "weak"))
    furthest = [max(each) for each in zip(*ways, strict=True)]
    assert len([event for event in events if isinstance(event, Trial)]) == sum(furthest)
    assert len([event for event in events if isinstance(event, Wrote)]) == sum(furthest) == len(engine.trained)
    alone = trials_in(run(ExaminingEngine(corpus), replace(recipe, arms=("weak",)), corpus))
    assert all(trials_in(events)[key] == found for key, found in alone.items())
    assert sum(furthest) < count_trials(recipe, 0, len(corpus))


def test_what_was_kept_is_trained_on_again_with_the_next() -> None:
    engine = ExaminingEngine(CORPUS)
    events = run(engine, replace(RECIPE, arms=("even",)))
    data = {job.seed: len(job.data) for job in engine.trained}
    for path in paths_in(trials_in(events), CORPUS):
        for j, found in enumerate(path):
            drafts = [*held(path[:j]).kept, j]
            lines = sum(len(texts(events, found.task_id, k)) for k in drafts)
            assert data[found.seed] == lines + len(drafts)  # and the passage with each


def texts(events: Sequence[Event], task_id: str, j: int) -> list[str]:
    (wrote,) = (event for event in events if isinstance(event, Wrote) and event.key == f"study-{j}/{task_id}")
    return wrote.samples[0].text.split("\n")


# ── resuming and bad input ──


@pytest.mark.parametrize("cut", [1, 6, 9, 14, 20])
def test_killed_and_resumed_it_comes_to_the_same(cut: int) -> None:
    whole = run()
    known = noted(whole[:cut])
    rest = run(known=known)
    assert trials_in(whole[:cut]) | trials_in(rest) == trials_in(whole)
    assert trials_in(rest).keys().isdisjoint(trials_in(whole[:cut]))


def test_an_update_that_failed_for_our_fault_and_is_run_again_changes_what_follows() -> None:
    even = replace(RECIPE, arms=("even",))
    whole = trials_in(run(recipe=even))
    first = next(path[0] for path in paths_in(whole, CORPUS) if held(path[:1]).kept)

    class Broken(ExaminingEngine):
        def _train(self, job: TrainJob) -> Adapter | Failure:
            return Failure("train", "X", "told to fail") if job.seed == first.seed else super()._train(job)

    left = noted(run(Broken(CORPUS), even))
    known = Known.resumed(left.trials, left.samples, left.exams)
    again = trials_in(run(recipe=even, known=known))
    ledger = {key: plain(found) for key, found in left.trials.items()} | again
    assert paths_in(ledger, CORPUS) == paths_in(whole, CORPUS)
    assert len(again) > 1


@pytest.mark.parametrize("corpus", [CORPUS, unasked(CORPUS)], ids=["given questions", "no questions"])
def test_a_corpus_without_any_exam_is_refused_before_anything_is_learnt(corpus: list[Task]) -> None:
    engine = ExaminingEngine(unasked(CORPUS))
    with pytest.raises(InputError, match="could write no exam"):
        run(engine, corpus=corpus)
    assert engine.trained == [] and all(map(is_exam_job, engine.sampled))


def test_a_corpus_that_is_known_after_the_first_pass_costs_no_more() -> None:
    engine = ExaminingEngine(CORPUS)
    told = replace(RECIPE, sample=SampleSettings(edits=12), arms=("weak",))
    events = run(engine, told)
    assert spent("weak", events, told) == [[12] * 4]


def test_given_questions_steer_nothing() -> None:
    other = [replace(task, questions=task.questions[:1]) for task in CORPUS]
    found, usual = (trials_in(run(corpus=corpus)) for corpus in (other, CORPUS))
    assert [(key, t.sample) for key, t in found.items()] == [(key, t.sample) for key, t in usual.items()]


def test_the_tasks_need_not_be_a_round_long() -> None:
    events = list(study(("weak",), CORPUS[:2], RECIPE, lab(ExaminingEngine(CORPUS)), Known()))
    assert [sum(each) for each in budgets_of("weak", paths_in(trials_in(events), CORPUS[:2]), RECIPE)][:2] == [2, 5]
