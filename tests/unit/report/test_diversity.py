"""How varied self-edits are: laws of distinct-n and self-BLEU, and equality with NLTK's BLEU."""

from __future__ import annotations

from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from selfedit.report.diversity import Variety, self_bleu, tokens_of, variety

texts = st.lists(st.lists(st.sampled_from("abcde"), max_size=12), min_size=2, max_size=6)


def slowly(texts_N: list[list[str]]) -> float:
    """Self-BLEU by NLTK, each text against all others."""
    smooth = SmoothingFunction().method1
    others = [[text for j, text in enumerate(texts_N) if j != i] for i in range(len(texts_N))]
    return fmean(
        sentence_bleu(rest, text, smoothing_function=smooth) if text else 0.0
        for text, rest in zip(texts_N, others, strict=True)
    )


@settings(deadline=None, max_examples=200)
@given(texts)
@pytest.mark.filterwarnings("ignore")
def test_self_bleu_is_that_of_nltk(found: list[list[str]]) -> None:
    assert self_bleu(found) == pytest.approx(slowly(found), abs=1e-12)


def test_a_text_said_twice_is_wholly_alike_and_texts_without_a_word_in_common_are_not() -> None:
    text = tokens_of("She was born in Karstel in 1902.")
    assert self_bleu([text, text]) == pytest.approx(1.0)
    assert self_bleu([text, tokens_of("Belno Mill sells silk tiles")]) == 0.0


def test_one_text_resembles_nothing() -> None:
    assert self_bleu([["a"]]) is None
    assert self_bleu([]) is None


def test_words_are_told_from_signs_whatever_their_case() -> None:
    assert tokens_of("Ada's Mill, 1902.") == ["ada", "'", "s", "mill", ",", "1902", "."]


def test_drafts_of_one_passage_are_compared_with_each_other_and_with_all() -> None:
    same = "Ada was born in Karstel long ago."
    found = variety({"a": [same, same], "b": ["Nothing of this kind at all, says Bo.", "Quite another text, then."]})
    assert found.n_edits == 4
    assert found.alike_passage is not None
    assert found.alike_all is not None
    assert 0.5 < found.alike_passage < 0.6  # one passage at 1, the other near 0
    assert variety({"a": [same], "b": [same]}).alike_passage is None
    assert variety({"a": [same], "b": [same]}).alike_all == pytest.approx(1.0)


def test_lines_and_words_are_counted_a_self_edit_and_distinct_ones_over_all() -> None:
    found = variety({"a": ["one two\none two\nthree", "three"], "b": ["four"]})
    assert found.lines == pytest.approx(5 / 3)
    assert found.words == pytest.approx(7 / 3)
    assert found.distinct_lines == pytest.approx(3 / 5)
    assert found.distinct_1 == pytest.approx(4 / 7)
    assert found.distinct_2 == pytest.approx(3 / 4)  # one-two, two-one, one-two, two-three


def test_of_nothing_nothing_is_known() -> None:
    assert variety({}) == Variety(0, None, None, None, None, None, None, None)
    assert variety({"a": [""]}) == Variety(1, 0.0, 0.0, None, None, None, None, None)
