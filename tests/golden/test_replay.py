"""SEAL's published numbers, computed again from the authors' files: each from its rows, none typed into the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfedit.report.published import Published, read_published
from selfedit.report.replay import Replay, replay
from selfedit.report.replay_words import headline, lead


@pytest.fixture(scope="module")
def published(data_folder: Path) -> Published:
    return read_published(data_folder / "seal")


@pytest.fixture(scope="module")
def found(published: Published) -> Replay:
    gpt = [float(v.is_correct) for v in published.verdicts.rows] if published.verdicts else []
    return replay(published, {"itself": gpt})


def compared(found: Replay, a: str, b: str) -> tuple[float, float]:
    """Give a difference and its standard error, in points."""
    pair = next(pair for pair in found.comparisons if (pair.a, pair.b) == (a, b)).found
    assert pair.difference is not None and pair.se is not None
    return round(100 * pair.difference, 1), round(100 * pair.se, 1)


def test_against_gpt_4_1_it_is_a_tie_and_against_no_rl_it_is_real(found: Replay) -> None:
    assert compared(found, "eval/gpt4_1", "eval/iter2") == (0.7, 2.1)
    assert compared(found, "eval/base", "eval/iter2") == (7.3, 2.4)
    assert headline(found) == "RL took closed-book accuracy from 39.7 to 47.0 %: +7.3 ± 2.4 points."
    assert "Against self-edits by GPT-4.1 (46.3 %) that is +0.7 ± 2.1: no clear difference." in lead(found)


def test_every_printed_number_whose_rows_are_there_is_found_again(found: Replay) -> None:
    figures = [figure for row in found.rows for figure in row.figures]
    assert len(figures) == 201
    assert [figure.differs for figure in figures].count(False) == 154
    assert [figure.differs for figure in figures].count(True) == 0
    assert sum(row.adapter is not None for row in found.rows) == 27
    assert {row.name for row in found.rows if row.adapter is None} == {
        "cpt/cpt_naive", "cpt/cpt_gpt4_1", "cpt/cpt_base", "cpt/cpt_iter2",
    }  # fmt: skip
    assert (found.missing, found.left_out) == ((), ())


def test_the_files_tell_the_same(found: Replay) -> None:
    assert [(check.n, check.differing) for check in found.checks] == [(9260, ()), (1000, ())]


def test_the_best_edit_does_not_beat_the_unadapted_model_for_10_and_8_passages(found: Replay) -> None:
    selections = {each.name: each for each in found.selections}
    assert [selections[f"train/rank_iter{i}"].n_not_better for i in range(2)] == [10, 8]


def test_eight_updates_in_a_row_end_below_where_they_began(found: Replay) -> None:
    (course,) = found.courses
    assert course.continual.n_sequences == 64
    assert course.learnt is not None and course.end is not None
    assert [round(100 * x, 1) for x in (course.before, course.learnt, course.end)] == [30.7, 41.5, 24.7]
    last = course.steps[-1]
    assert last.forgetting is not None and last.backward_transfer is not None
    assert [round(100 * x, 1) for x in (last.forgetting, last.backward_transfer)] == [19.1, -19.1]


def test_the_tables_of_the_published_answers_cover_140_of_200_passages(published: Published, found: Replay) -> None:
    assert published.verdicts and found.graded
    assert (len(published.verdicts.rows), published.verdicts.n_lines) == (89_048, 89_048)
    assert {each.n_passages for each in found.graded.arms if "eval/" in each.name} == {140}
    assert {each.n_passages for each in found.graded.arms if "train/" in each.name} == {50}
    assert [ranking.tau for ranking in found.graded.rankings] == pytest.approx([1.0, 1.0])
    assert {each.seen[0].agreement for each in found.graded.arms} == {1.0}
