"""What each grader calls right: SQuAD's normalisation, and where ours departs from it."""

import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from selfedit.errors import ConfigError
from selfedit.tasks.graders import containment, exact_match, load_grader, normalise, token_f1
from selfedit.types import Question, Score

words = st.text(string.ascii_letters + string.digits + " .,-'", max_size=20)


@pytest.mark.parametrize(
    "answer", ["the Eiffel Tower", "EIFFEL TOWER.", "  eiffel\n tower ", '"Eiffel Tower"', "An Eiffel, a Tower!"]
)
def test_case_punctuation_articles_and_spaces_do_not_matter(answer: str) -> None:
    assert exact_match("Eiffel Tower", answer) == 1.0


@pytest.mark.parametrize(("gold", "answer"), [("l'homme", "l\N{RIGHT SINGLE QUOTATION MARK}homme"), ("é", "e\u0301")])
def test_two_ways_to_type_the_same_text_agree(gold: str, answer: str) -> None:
    assert exact_match(gold, answer) == 1.0


@pytest.mark.parametrize(
    ("gold", "answer"), [("1,000", "1000"), ("1000", "1,000 ."), ("-5", "\N{MINUS SIGN}5"), ("3.5", "3.5.")]
)
def test_one_number_written_in_two_ways_agrees(gold: str, answer: str) -> None:
    assert exact_match(gold, answer) == 1.0


@pytest.mark.parametrize(("gold", "answer"), [("3.5", "35"), ("-5", "5"), ("1000", "100"), ("1.000", "1000")])
def test_different_numbers_differ(gold: str, answer: str) -> None:
    assert exact_match(gold, answer) == 0.0
    assert containment(gold, answer) == 0.0
    assert token_f1(gold, answer) == 0.0


def test_a_hyphen_inside_a_word_is_no_minus_sign() -> None:
    assert normalise("COVID-19 of the 1990-1995 outbreak") == ["covid19", "of", "19901995", "outbreak"]


def test_a_gold_answer_of_articles_or_punctuation_alone_can_still_be_told_apart() -> None:
    assert exact_match("A", "a") == 1.0
    assert exact_match("A", "The") == 0.0
    assert exact_match("?", "?") == 1.0
    assert exact_match("?", "!") == 0.0


def test_containment_allows_extra_detail() -> None:
    assert containment("Otrar", "It was the town of Otrar, in 1219.") == 1.0


@pytest.mark.parametrize(
    ("gold", "answer"), [("art", "a start"), ("10", "1066"), ("red car", "red sports car"), ("Otrar", "")]
)
def test_containment_counts_whole_tokens_side_by_side(gold: str, answer: str) -> None:
    assert containment(gold, answer) == 0.0


def test_f1_is_the_harmonic_mean_of_precision_and_recall() -> None:
    assert token_f1("two young sons", "two sons and one daughter") == pytest.approx(
        2 * (2 / 5) * (2 / 3) / (2 / 5 + 2 / 3)
    )


def test_f1_counts_a_repeated_token_as_often_as_the_gold_has_it() -> None:
    assert token_f1("yes", "yes yes yes") == pytest.approx(0.5)


@settings(deadline=None)
@given(words, words)
def test_f1_is_symmetric_and_exact_match_is_where_it_needs_both(gold: str, answer: str) -> None:
    assert token_f1(gold, answer) == token_f1(answer, gold)
    assert 0.0 <= token_f1(gold, answer) <= 1.0
    if normalise(gold):
        assert exact_match(gold, answer) <= token_f1(gold, answer)
        assert exact_match(gold, answer) <= containment(gold, answer)


@settings(deadline=None)
@example("c:\u0327")
@given(words)
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(" ".join(normalise(text))) == normalise(text)


def test_a_question_without_a_gold_answer_is_unmeasured_rather_than_wrong() -> None:
    assert load_grader("exact")([Question("?", " ")], ["Otrar"]) == [Score(None, "Otrar", "no gold answer")]


def test_an_unknown_grader_names_its_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown grader 'exat'; did you mean 'exact'"):
        load_grader("exat")
