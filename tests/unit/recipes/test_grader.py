"""How the grader is trained and measured: no question on both sides, ties shared, thresholds that keep their word."""

from __future__ import annotations

import gzip
import json
import re
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from selfedit.errors import InputError
from selfedit.recipes.grader import train
from selfedit.recipes.grader.measure import agreement, ceiling, selection, sure_from
from selfedit.recipes.grader.train import as_forest, crossfit, learn
from selfedit.recipes.grader.verdicts import Verdicts, distinct, folds, read_verdicts

NAMES = ["Otrar", "Bukhara", "Samarkand", "Urgench", "Merv", "Nishapur", "Herat", "Balkh"]


def verdict(question: str, gold: str, prediction: str, correct: bool, **more: Any) -> dict[str, Any]:
    place = {"file": "f", "article": 0, "title": "T", "completion": 0, "rep": 0, "arm": "adapter"}
    return place | {"question": question, "gold": gold, "prediction": prediction, "correct": correct} | more


def made_up(n: int) -> Verdicts:
    """Answers that are right where the gold answer's name is in them, about `n` towns."""
    rng = Random(0)
    rows = []
    for i in range(n):
        gold = rng.choice(NAMES)
        for said in [*NAMES[:4], gold]:
            rows.append(verdict(f"Which town has the number {i}?", gold, f"It is the town of {said}.", said == gold))
    return Verdicts(tuple(rows), "0" * 64)


def test_answers_to_one_question_share_a_fold_in_any_file_and_spelling() -> None:
    rows = [
        verdict(asked, "a", said, True, file=file)
        for i in range(40)
        for asked in (f"Who is no. {i}?", f"who is  no {i}")
        for said in ("x", "y")
        for file in ("f", "g")
    ]
    answers = distinct(Verdicts(tuple(rows), ""))
    fold_M = folds(answers, 5, seed=0)
    by_question: dict[str, set[int]] = {}
    for (_, asked, *_), fold in zip(answers.keys_M, fold_M, strict=True):
        by_question.setdefault(re.sub(r"\W+", " ", asked.lower()).strip(), set()).add(int(fold))
    assert len(by_question) == 40 and all(len(found) == 1 for found in by_question.values())
    assert np.bincount(fold_M).tolist() == [32] * 5
    assert set(folds(answers, 5, seed=0, by="title")) == {0}  # one article


def test_equal_answers_are_put_together_with_their_share_of_verdicts() -> None:
    rows = (verdict("q", "g", "p", True), verdict("q", "g", "o", False), verdict("q", "g", "p", False))
    answers = distinct(Verdicts(rows, ""))
    assert answers.count_M.tolist() == [2, 1]
    assert answers.share_M.tolist() == [0.5, 0.0]
    assert answers.line_to_answer_N.tolist() == [0, 1, 0]
    assert ceiling(answers) == {"answers": 1, "unanimous": 0.0, "commoner": 0.5, "pairs": 0.0}


def test_a_threshold_is_the_least_certainty_that_keeps_the_promise() -> None:
    probability = np.array([0.99] * 90 + [0.1] * 10 + [0.7] * 50)
    share = np.array([1.0] * 90 + [0.0] * 7 + [1.0] * 3 + [0.5] * 50)  # 97 of the first 100 agree
    assert sure_from(probability, share, np.ones(150)) == 0.9
    assert sure_from(np.array([0.9]), np.array([0.0]), np.ones(1)) == 1.0  # nothing can be promised


def test_a_mark_of_one_half_is_a_yes_and_chance_gives_no_kappa() -> None:
    assert agreement(np.array([0.5, 0.4]), np.array([True, False])) == {
        "agreement": 1.0,
        "kappa": 1.0,
        "mean mark": 0.45,
        "mean verdict": 0.5,
    }
    assert agreement(np.array([1.0, 1.0, 0.0, 0.0]), np.array([True, False, True, False]))["kappa"] == 0.0


def picks(*marks: float) -> dict[str, Any]:
    """One passage with self-edits whose answers the judge found right, wrong, wrong, and these marks."""
    rows = [verdict("q", "g", "p", c == 0, file="train/rank_iter0", completion=c) for c in range(3)]
    rows += [
        verdict("q", "g", "p", True, file="train/rank_iter0", completion=1, arm="baseline"),
        verdict("q", "g", "p", True),
    ]
    return selection(Verdicts(tuple(rows), ""), np.array([*marks, 1.0, 1.0]))


def test_selection_keeps_what_the_judges_own_pick_gains() -> None:
    assert picks(0.9, 0.1, 0.2)["kept"] == pytest.approx(1.0)
    assert picks(0.9, 0.1, 0.2)["judge's gain"] == pytest.approx(2 / 3)
    assert picks(0.1, 0.9, 0.2)["gain"] == pytest.approx(-1 / 3)


def test_self_edits_with_equal_marks_share_the_pick() -> None:
    assert picks(0.5, 0.5, 0.5)["gain"] == pytest.approx(0.0)
    assert picks(0.5, 0.5, 0.1)["gain"] == pytest.approx(1 / 6)


def test_answers_without_a_mark_are_left_out_of_the_pick() -> None:
    assert picks(0.2, float("nan"), 0.1)["kept"] == pytest.approx(1.0)
    assert picks(float("nan"), 0.2, 0.1)["gain"] == pytest.approx(-1 / 3)


def test_a_file_that_holds_no_verdicts_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b'{"question": "q"}\n'))
    (tmp_path / "b.gz").write_bytes(b"plain")
    with pytest.raises(InputError, match=r"line 1 is no verdict"):
        read_verdicts(tmp_path / "a.gz")
    with pytest.raises(InputError, match="cannot read"):
        read_verdicts(tmp_path / "b.gz")
    with pytest.raises(InputError, match="cannot read"):
        read_verdicts(tmp_path / "c.gz")


def test_trees_as_lightgbm_dumps_them_become_a_forest_with_the_same_sums() -> None:
    tree = {
        "split_feature": 0,
        "threshold": 1.0,
        "left_child": {
            "split_feature": 1,
            "threshold": 5.0,
            "left_child": {"leaf_value": 1.0},
            "right_child": {"leaf_value": 2.0},
        },
        "right_child": {"leaf_value": 4.0},
    }
    forest = as_forest([tree, {"leaf_value": 10.0}], 0.5)
    rows = np.array([[0, 0], [0, 6], [2, 0], [1, 5]], np.float32)
    assert forest.sums(rows).tolist() == [5.5, 6.0, 7.0, 5.5]


def test_it_learns_what_the_judge_goes_by_and_the_same_from_the_same_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightgbm", reason="training the grader needs selfedit[grader]")
    monkeypatch.setattr(train, "ROUNDS", 8)
    monkeypatch.setattr(train, "TREES", {**train.TREES, "min_data_in_leaf": 5, "learning_rate": 0.3})
    verdicts = made_up(60)
    probability_N = crossfit(verdicts, seed=1)
    assert agreement(probability_N, verdicts.correct_N)["agreement"] > 0.95
    np.testing.assert_array_equal(probability_N, crossfit(verdicts, seed=1))
    assert not np.array_equal(probability_N, crossfit(verdicts, seed=2))
    answers = distinct(verdicts)
    grader = learn(answers, seed=1)
    assert agreement(grader.probabilities(*answers.texts), answers.share_M > 0.5)["agreement"] > 0.95


def test_no_fold_learns_from_its_own_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdicts of a question are turned round: what the others say of it does not change."""
    pytest.importorskip("lightgbm", reason="training the grader needs selfedit[grader]")
    monkeypatch.setattr(train, "ROUNDS", 4)
    monkeypatch.setattr(train, "TREES", {**train.TREES, "min_data_in_leaf": 5})
    verdicts = made_up(40)
    fold_M = folds(distinct(verdicts), train.FOLDS, train.SEED)
    line_fold_N = fold_M[distinct(verdicts).line_to_answer_N]
    turned = [
        row | {"correct": row["correct"] != (fold == 2)} for row, fold in zip(verdicts.rows_N, line_fold_N, strict=True)
    ]
    before, after = crossfit(verdicts), crossfit(Verdicts(tuple(turned), ""))
    np.testing.assert_array_equal(before[line_fold_N == 2], after[line_fold_N == 2])
    assert not np.array_equal(before[line_fold_N != 2], after[line_fold_N != 2])


def test_the_card_quotes_the_measures_beside_it() -> None:
    folder = files("selfedit.recipes").joinpath("grader")
    found, card = json.loads(folder.joinpath("measures.json").read_text()), folder.joinpath("README.md").read_text()
    for value in (
        f"{found['all']['agreement']:.1%}",
        f"{found['sure']['agreement']:.1%}",
        f"{found['sure']['coverage']:.1%}",
        f"{found['by title']['agreement']:.1%}",
        f"{found['selection']['calibrated']['kept']:.1%}",
        f"{found['ceiling']['commoner']:.1%}",
    ):
        assert value.replace("%", " %") in card
    assert f"{found['all']['kappa']:.3f}" in card
