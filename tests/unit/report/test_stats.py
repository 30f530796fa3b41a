"""Intervals and paired tests: laws that hold for any marks, degenerate samples, and the published numbers."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfedit.report.stats import (
    Arm,
    BySeed,
    Contrast,
    Estimate,
    Interval,
    Paired,
    Step,
    accuracy_of,
    before_update,
    by_seed,
    compare,
    contrast,
    difference_of,
    estimate,
    forgetting_matrix,
    interval,
    of_kind,
    paired,
    rank_agreement,
    retention,
    standard_error,
    summarise,
)
from selfedit.types import Failure, Question, Score, Task, Trial

PUBLISHED = Path(__file__).parents[4] / "shared/data/seal/per_passage_means.json"

Exam = dict[str, list[float | None]]

measured = st.sampled_from([0.0, 0.25, 0.5, 1.0])
marks = st.lists(st.none() | measured, min_size=1, max_size=4)
exams = st.dictionaries(st.text("abc", min_size=1, max_size=3), marks, max_size=8)


def scores(marks: Sequence[float | None]) -> tuple[Score, ...]:
    return tuple(Score(value, "answer") for value in marks)


def trial(
    task: str,
    values: Sequence[float | None],
    before: Sequence[float | None] = (),
    failure: Failure | None = None,
    repeat: int = 0,
) -> Trial:
    return Trial(
        key=f"{task}/{repeat}",
        task_id=task,
        edit=0,
        repeat=repeat,
        seed=repeat,
        sample=None,
        adapter=None,
        before_Q=scores(before),
        after_Q=scores(values),
        reward=None,
        failure=failure,
    )


@settings(deadline=None, max_examples=50)
@given(exams)
def test_an_interval_contains_its_mean_and_stays_among_the_passages(exam: Exam) -> None:
    found = interval(exam)
    if found.mean is not None and found.ci95 is not None:
        low, high = found.ci95
        means = [fmean(m for m in values if m is not None) for values in exam.values() if set(values) != {None}]
        assert min(means) - 1e-9 <= low <= found.mean + 1e-9
        assert found.mean - 1e-9 <= high <= max(means) + 1e-9


@settings(deadline=None, max_examples=50)
@given(exams)
def test_unmeasured_marks_change_the_count_and_nothing_else(exam: Exam) -> None:
    without = {p: [m for m in values if m is not None] for p, values in exam.items()}
    found = interval(exam)
    assert replace(found, n_failed=0) == interval(without)
    assert found.n_failed == sum(values.count(None) for values in exam.values())


@settings(deadline=None, max_examples=50)
@given(exams, st.randoms(use_true_random=False))
def test_the_order_of_passages_and_questions_does_not_matter(exam: Exam, order: random.Random) -> None:
    shuffled = {p: order.sample(exam[p], len(exam[p])) for p in order.sample(list(exam), len(exam))}
    assert interval(shuffled, seed=3) == interval(exam, seed=3)


@settings(deadline=None, max_examples=50)
@given(exams)
def test_an_arm_paired_with_itself_differs_by_zero(exam: Exam) -> None:
    found = paired(exam, exam)
    assert found.difference in (None, 0.0)
    assert found.ci95 in (None, (0.0, 0.0))
    assert found.n == interval(exam).n


@settings(deadline=None, max_examples=50)
@given(exams, st.data())
def test_swapping_the_arms_turns_the_sign_around(a: Exam, data: st.DataObject) -> None:
    b = {p: data.draw(st.lists(measured, min_size=len(values), max_size=len(values))) for p, values in a.items()}
    there, back = paired(a, b, seed=1), paired(b, a, seed=1)
    if there.difference is not None:
        assert back.difference == pytest.approx(-there.difference)
    assert there.n == back.n


def test_nothing_measured_is_none_everywhere() -> None:
    assert interval({}) == Interval(None, None, 0, 0)
    assert interval({"p": [None, None]}) == Interval(None, None, 0, 2)
    assert paired({"p": [1.0]}, {"q": [1.0]}) == Paired(None, None, 0)
    assert summarise("base", []) == Arm("base", None, None, 0, 0, 0)


def test_one_passage_has_a_mean_and_no_interval() -> None:
    assert interval({"p": [1.0, 0.0]}) == Interval(0.5, None, 1, 0)
    assert paired({"p": [0.0]}, {"p": [1.0]}) == Paired(1.0, None, 1)


def test_equal_passages_give_an_interval_of_width_zero() -> None:
    assert interval({str(p): [0.3] for p in range(49)}).ci95 == pytest.approx((0.3, 0.3), abs=1e-12)


def test_a_passage_weighs_the_same_however_many_questions_it_has() -> None:
    assert interval({"short": [1.0], "long": [0.0] * 9}).mean == 0.5


def test_asking_every_question_twice_does_not_narrow_the_interval() -> None:
    once = {str(p): [float(p % 3 == 0), float(p % 2)] for p in range(30)}
    assert interval({p: values * 2 for p, values in once.items()}) == interval(once)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    exam = {str(p): [p / 40] for p in range(40)}
    assert interval(exam, seed=1) == interval(exam, seed=1)
    assert interval(exam, seed=1) != interval(exam, seed=2)


def test_about_95_of_100_intervals_cover_the_true_mean() -> None:
    generator = np.random.default_rng(0)
    samples = generator.beta(0.6, 0.9, (300, 50))  # true mean 0.4, skewed towards both ends as accuracies are
    found = [interval({str(p): [value] for p, value in enumerate(sample)}, seed=s) for s, sample in enumerate(samples)]
    covered = fmean(i.ci95[0] <= 0.4 <= i.ci95[1] for i in found if i.ci95 is not None)
    assert 0.91 <= covered <= 0.98


def test_pairing_sees_a_small_gain_that_two_separate_intervals_hide() -> None:
    before = {str(p): [p / 50] for p in range(50)}
    after = {p: [values[0] + 0.01 + 0.01 * (int(p) % 2)] for p, values in before.items()}
    gain = paired(before, after).ci95
    assert gain is not None
    assert gain[0] > 0
    low, high = interval(after).ci95, interval(before).ci95
    assert low is not None
    assert high is not None
    assert low[0] < high[1]


def test_a_question_that_one_arm_lost_is_left_out_of_both() -> None:
    assert paired({"p": [0.0, 1.0]}, {"p": [1.0, None]}).difference == 1.0


def test_exams_of_different_length_are_not_paired() -> None:
    with pytest.raises(ValueError, match="2 questions with one of 1"):
        paired({"p": [0.0, 1.0]}, {"p": [1.0]})


def test_repeats_are_averaged_within_their_task() -> None:
    arm = summarise("r", [trial("p", [1.0, 0.0]), trial("p", [0.0, 0.0], repeat=1), trial("q", [1.0])])
    assert (arm.accuracy, arm.n_passages, arm.n_questions, arm.n_failed) == (0.625, 2, 3, 0)


def test_an_unusable_self_edit_scores_zero_and_a_crash_scores_nothing() -> None:
    bad_edit = trial("p", [], before=[1.0, 1.0], failure=Failure("parse", "BadEdit", "empty"))
    crash = trial("q", [], before=[1.0, 1.0], failure=Failure("train", "RuntimeError", "out of memory"))
    arm = summarise("r", [bad_edit, crash, trial("s", [1.0])])
    assert (arm.accuracy, arm.n_passages, arm.n_questions, arm.n_failed) == (0.5, 2, 3, 2)


def test_a_crashed_repeat_leaves_its_task_to_the_others() -> None:
    crash = trial("p", [], failure=Failure("answer", "RuntimeError", "lost"), repeat=1)
    arm = summarise("r", [trial("p", [1.0, 0.5]), crash])
    assert (arm.accuracy, arm.n_questions, arm.n_failed) == (0.75, 2, 2)


def test_a_crash_of_which_nothing_else_is_known_is_one_unmeasured_mark() -> None:
    assert summarise("r", [trial("p", [], failure=Failure("train", "RuntimeError", "lost"))]).n_failed == 1


def test_a_task_without_an_exam_is_no_failure() -> None:
    assert summarise("r", [trial("p", [])]) == Arm("r", None, None, 0, 0, 0)


def test_compare_pairs_a_bad_edit_with_the_whole_exam_of_the_other_arm() -> None:
    bad_edit = trial("p", [], failure=Failure("parse", "BadEdit", "empty"))
    pair = compare("before", [trial("p", [1.0, 0.5])], "after", [bad_edit])
    assert (pair.a, pair.b, pair.difference, pair.n) == ("before", "after", -0.75, 1)


def test_compare_uses_only_the_tasks_measured_in_both_arms() -> None:
    crash = trial("q", [], failure=Failure("train", "RuntimeError", "lost"))
    pair = compare("a", [trial("p", [0.0]), trial("q", [1.0]), trial("r", [1.0])], "b", [trial("p", [1.0]), crash])
    assert (pair.difference, pair.n) == (1.0, 1)


def test_the_model_before_its_update_is_not_charged_with_a_bad_edit() -> None:
    bad_edit = trial("p", [], before=[1.0, None], failure=Failure("parse", "BadEdit", "empty"))
    (before,) = before_update([bad_edit])
    assert before.reward == 1.0
    assert summarise("base", [before]) == Arm("base", 1.0, None, 1, 1, 1)
    unexamined = trial("p", [], failure=Failure("parse", "BadEdit", "empty"))
    assert summarise("base", before_update([unexamined])).accuracy is None


def test_a_kind_keeps_its_own_questions_and_tasks() -> None:
    two_step = Question("?", "gold", "two-step")
    tasks = [Task("p", "", "", (Question("?", "gold"), two_step)), Task("q", "", "", (Question("?", "gold"),))]
    trials = [trial("p", [0.0, 1.0], before=[0.5, 0.25]), trial("q", [0.0])]
    (kept,) = of_kind(trials, tasks, "two-step")
    assert [score.value for score in kept.after_Q] == [1.0]
    assert [score.value for score in kept.before_Q] == [0.25]
    assert [t.task_id for t in of_kind(trials, tasks, "")] == ["p", "q"]


def test_a_contrast_is_the_paired_difference_with_its_error_and_the_p_of_the_paired_t() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.random(30), generator.random(30) + 0.2
    marks_a, marks_b = ({str(p): [float(value)] for p, value in enumerate(values)} for values in (a, b))
    found, pair = contrast(marks_a, marks_b), paired(marks_a, marks_b)
    assert (found.difference, found.ci95, found.n) == (pair.difference, pair.ci95, pair.n)
    assert found.se == pytest.approx(float(np.std(b - a, ddof=1) / 30**0.5))
    signs = generator.choice([-1.0, 1.0], (20_000, 30))  # the slow way: turn the signs of the differences
    extreme = np.abs((signs * (b - a)).mean(axis=1)) >= abs((b - a).mean())
    assert found.p == pytest.approx(float(extreme.mean()), abs=0.01)


def test_a_contrast_of_too_little_or_of_equal_differences_has_no_p() -> None:
    assert contrast({}, {}) == Contrast(None, None, None, None, 0)
    assert contrast({"p": [0.0]}, {"p": [1.0]}) == Contrast(1.0, None, None, None, 1)
    same = contrast({"p": [0.1], "q": [0.2]}, {"p": [0.4], "q": [0.5]})
    assert (same.p, same.n) == (None, 2)
    assert same.difference == pytest.approx(0.3)


def test_an_estimate_of_nothing_is_none_and_of_one_has_no_error() -> None:
    assert estimate([]) is None
    assert estimate([0.5]) == Estimate(0.5, None, None)
    found = estimate([0.0, 1.0, 1.0, 0.0])
    assert found and found.ci95 == interval({str(p): [value] for p, value in enumerate((0.0, 1.0, 1.0, 0.0))}).ci95
    assert found.se == standard_error([0.0, 1.0, 1.0, 0.0]) == pytest.approx((1 / 3) ** 0.5 / 2)


@pytest.mark.parametrize(
    ("a", "b", "tau"),
    [
        ([1, 2, 3], [10, 20, 30], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 3, 2, 4], 4 / 6),
        ([1, 1, 2], [1, 2, 3], 2 / 6**0.5),
        ([1, 2, 3], [5, 5, 5], None),
        ([1], [1], None),
    ],
)
def test_rank_agreement_counts_pairs_in_the_same_order(a: list[float], b: list[float], tau: float | None) -> None:
    assert rank_agreement(a, b) == (None if tau is None else pytest.approx(tau))


LEARNT = ((0.8, None, None), (0.9, 0.7, None), (0.5, 0.8, 0.6))


def test_forgetting_is_the_fall_from_the_best_since_a_task_was_learnt() -> None:
    lost = forgetting_matrix(LEARNT)
    assert lost[0] == [None, None, None]
    assert lost[1][1:] == [*lost[2][2:], None] == [None, None]
    assert [lost[1][0], *lost[2][:2]] == pytest.approx([-0.1, 0.4, -0.1])


def test_retention_tells_every_step() -> None:
    first, second, third = retention(LEARNT)
    assert first == Step(1, 0.8, 0.8, None, None)
    assert (second.learnt, second.seen, second.forgetting, second.backward_transfer) == pytest.approx(
        (0.7, 0.8, -0.1, 0.1)
    )
    assert third.seen == pytest.approx((0.5 + 0.8 + 0.6) / 3)
    assert third.forgetting == pytest.approx((0.4 - 0.1) / 2)
    assert third.backward_transfer == pytest.approx((0.5 - 0.8 + 0.8 - 0.7) / 2)


def test_a_missing_accuracy_makes_what_rests_on_it_none() -> None:
    (_, second, third) = retention(((0.8, None, None), (None, 0.7, None), (0.5, 0.8, 0.6)))
    assert (second.seen, second.forgetting, second.backward_transfer) == (None, None, None)
    assert third.forgetting is None
    assert third.backward_transfer == pytest.approx(-0.1)


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the authors' per-passage means are not part of the repository")
def test_the_published_tie_is_a_tie_and_the_published_gain_is_a_gain() -> None:
    rows = json.loads(PUBLISHED.read_text())
    own, gpt, seal = (
        {str(p): row["adapter"] for p, row in enumerate(rows[f"eval/{arm}"])} for arm in ("base", "gpt4_1", "iter2")
    )
    gain, tie = paired(own, seal), paired(gpt, seal)
    assert gain.difference == pytest.approx(0.073, abs=5e-4)
    assert gain.ci95 == pytest.approx((0.073 - 1.96 * 0.024, 0.073 + 1.96 * 0.024), abs=5e-3)
    assert tie.difference == pytest.approx(0.007, abs=5e-4)
    assert tie.ci95 == pytest.approx((0.007 - 1.96 * 0.021, 0.007 + 1.96 * 0.021), abs=5e-3)


# ── by seed ──


def test_seeds_are_averaged_with_students_interval() -> None:
    found = by_seed([0.1, 0.2, 0.3, 0.2])
    assert found.mean == pytest.approx(0.2)
    assert found.ci95 is not None
    assert found.ci95 == pytest.approx((0.2 - 3.1824 * 0.0408248, 0.2 + 3.1824 * 0.0408248), abs=1e-5)


def test_a_seed_that_was_not_measured_is_kept_in_its_place_and_out_of_the_mean() -> None:
    assert by_seed([0.1, None, 0.3]).values == (0.1, None, 0.3)
    assert by_seed([0.1, None, 0.3]).mean == by_seed([0.1, 0.3]).mean
    assert by_seed([0.1, None, 0.3]).ci95 == by_seed([0.1, 0.3]).ci95


def test_one_seed_has_no_interval_and_none_no_mean() -> None:
    assert by_seed([0.1]) == BySeed((0.1,), 0.1, None)
    assert by_seed([]) == BySeed((), None, None)
    assert by_seed([None]) == BySeed((None,), None, None)


def test_about_95_of_100_intervals_by_seed_cover_the_true_mean() -> None:
    samples = np.random.default_rng(1).normal(0.3, 0.1, (400, 4))
    found = [by_seed([float(value) for value in sample]).ci95 for sample in samples]
    assert 0.92 <= fmean(ci[0] <= 0.3 <= ci[1] for ci in found if ci) <= 0.98


def test_what_is_computed_without_resampling_is_what_is_computed_with_it() -> None:
    a = [trial("p", [0.0, 1.0]), trial("q", [None, 0.5]), trial("p", [1.0, 1.0], repeat=1)]
    b = [trial("p", [1.0, 1.0]), trial("q", [0.5, 0.5])]
    assert accuracy_of(a) == summarise("a", a).accuracy
    assert difference_of(a, b) == compare("a", a, "b", b).difference
    assert accuracy_of([]) is None
    assert difference_of(a, []) is None
