from __future__ import annotations

from random import Random

import pytest
from scipy.stats import pearsonr, spearmanr

from selfedit.report.agreement import agreement, gains
from selfedit.types import Question, Score, Task, Trial


def drawn(n: int, edits: int = 5, seed: int = 0) -> dict[str, list[tuple[float, float]]]:
    """Gains in sevenths, so that ranks are tied, the second drawn towards the first."""
    rng = Random(seed)
    pairs = [(rng.randint(0, 7), rng.randint(0, 7)) for _ in range(n * edits)]
    points = [(a / 7, (2 * a + b) / 21) for a, b in pairs]
    return {f"p{i}": points[i * edits : (i + 1) * edits] for i in range(n)}


def test_correlations_are_those_of_scipy() -> None:
    sample = drawn(12)
    edits, within, passages = agreement("a", "b", sample).levels
    points = [point for edits_G in sample.values() for point in edits_G]
    means = [tuple(sum(column) / 5 for column in zip(*edits_G, strict=True)) for edits_G in sample.values()]
    centred = [(a - m[0], b - m[1]) for edits_G, m in zip(sample.values(), means, strict=True) for a, b in edits_G]
    for level, expected in ((edits, points), (within, centred), (passages, means)):
        x, y = zip(*expected, strict=True)
        assert level.pearson.value == pytest.approx(pearsonr(x, y).statistic)
        assert level.spearman.value == pytest.approx(
            spearmanr([round(v, 9) for v in x], [round(v, 9) for v in y]).statistic
        )
        assert level.n == len(expected)


def test_an_interval_resamples_passages_and_holds_the_value() -> None:
    sample = drawn(12)
    for level in agreement("a", "b", sample).levels:
        for found in (level.pearson, level.spearman):
            assert found.value is not None
            assert found.ci95 is not None
            assert found.ci95[0] < found.value < found.ci95[1]
    twice = {f"{key}/{copy}": edits for key, edits in sample.items() for copy in "ab"}
    once, more = (agreement("a", "b", s).levels[0].pearson for s in (sample, twice))
    more_edits = {key: [*edits, *edits] for key, edits in sample.items()}
    same = agreement("a", "b", more_edits).levels[0].pearson
    assert more.value == pytest.approx(once.value)
    assert once.ci95 and more.ci95 and same.ci95
    assert more.ci95[1] - more.ci95[0] < 0.85 * (once.ci95[1] - once.ci95[0])
    assert same.ci95 == pytest.approx(once.ci95), "more edits of the same passages are no more passages"


def test_what_never_varies_correlates_with_nothing() -> None:
    flat = {"p": [(0.5, 0.1), (0.5, 0.9)], "q": [(0.5, 0.2)]}
    for level in agreement("a", "b", flat).levels:
        assert (level.pearson.value, level.pearson.ci95, level.spearman.value) == (None, None, None)
    assert agreement("a", "b", {}).levels == ()


def test_one_passage_gives_no_interval() -> None:
    (edits, _, _), choice = (lambda found: (found.levels, found.choice))(agreement("a", "b", drawn(1)))
    assert edits.pearson.value is not None
    assert edits.pearson.ci95 is None
    assert choice is not None
    assert choice.kept.ci95 is None


def test_a_choice_keeps_its_share_of_what_there_is_to_win() -> None:
    sample = {"right": [(1.0, 0.8), (0.0, 0.2)], "wrong": [(0.2, 0.1), (0.1, 0.5)], "single": [(0.3, 0.3)]}
    choice = agreement("a", "b", sample).choice
    assert choice is not None
    assert choice.n == 2
    assert (choice.chosen, choice.average, choice.best) == pytest.approx((0.45, 0.4, 0.65))
    assert choice.kept.value == pytest.approx(0.05 / 0.25)
    assert choice.as_good.value == choice.by_chance == 0.5


def test_of_edits_that_are_equal_by_the_one_exam_the_first_is_chosen() -> None:
    first = agreement("a", "b", {"p": [(0.5, 0.0), (0.5, 1.0)]}).choice
    assert first is not None
    assert (first.chosen, first.as_good.value) == (0.0, 0.0)


def trial(edit: int, repeat: int, before: list[float | None], after: list[float | None]) -> Trial:
    marks = ([Score(v, "") for v in values] for values in (before, after))
    before_Q, after_Q = map(tuple, marks)
    return Trial("k", "t", edit, repeat, 0, None, None, before_Q, after_Q, None, None)


def test_gains_are_of_the_questions_of_a_role_and_average_repeats() -> None:
    roles = ("exam", "hidden", "exam", "given")
    task = Task("t", "T", "c", tuple(Question("?", "!", role=role) for role in roles))  # type: ignore[arg-type]
    trials = [
        trial(0, 0, [0, 0, 1, 0], [1, 1, 1, 0]),
        trial(0, 1, [0, 0, 1, 0], [1, 0, 0, 0]),
        trial(1, 0, [0, 0, 1, 0], [None, 1, None, 0]),
    ]
    assert gains(trials, [task], ["exam"], ["hidden"]) == {"t": [(0.25, 0.5)]}
    assert gains(trials, [task], ["hidden"], ["given"]) == {"t": [(0.5, 0.0), (1.0, 0.0)]}
    assert gains(trials, [task], ["exam", "hidden"], ["given"]) == {"t": [(pytest.approx(1 / 3), 0.0), (1.0, 0.0)]}
    assert gains(trials, [], ["exam"], ["hidden"]) == {}
