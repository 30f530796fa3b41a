"""The grader that learnt from a judge: what its features see, and what its marks promise."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfedit.tasks.calibrated import grade, load_calibrated, pack, unpack
from selfedit.tasks.forest import Forest
from selfedit.tasks.overlap import names, overlap
from selfedit.tasks.words import Lexicon, stem_of
from selfedit.types import Question

ASKED = "How many men did the town of Otrar send in 1219?"
texts = st.text(max_size=60)


def seen(name: str, gold: str, prediction: str, question: str = ASKED) -> float:
    """The value of one feature of one answer."""
    lexicon = Lexicon({"otrar": 8.0, "town": 3.0}, 9.0)
    return float(overlap(lexicon, [question], [gold], [prediction])[0][names().index(name)])


def mark(question: str, gold: str, prediction: str) -> float:
    return float(load_calibrated().probabilities([question], [gold], [prediction])[0])


@pytest.mark.parametrize(
    ("gold", "prediction"),
    [
        ("nineteenth century", "the 19th century"),
        ("six", "6"),
        ("twenty-five men", "25 men"),
        ("3,000,000", "3 million"),
        ("Zürich", "zurich"),
        ("polynomial-time", "polynomial time"),
        ("Dec 1812", "December 1812"),
        ("the French", "France"),
        ("government", "governments"),
        ("Chinggiss", "Chinggis"),
        ("3 million", "3,000,000"),
    ],
)
def test_one_thing_written_in_two_ways_is_found(gold: str, prediction: str) -> None:
    assert seen("recall/wanted", gold, prediction, "Which?") == 1.0


@pytest.mark.parametrize(
    ("gold", "prediction"), [("six", "7"), ("36", "360"), ("north", "south"), ("25", "20"), ("3.5", "35")]
)
def test_different_things_are_not_found(gold: str, prediction: str) -> None:
    assert seen("recall/wanted", gold, prediction, "Which?") == 0.0


def test_what_the_question_gives_away_is_not_wanted() -> None:
    assert seen("recall/wanted", "600 men of Otrar", "The town of Otrar sent men.") == 0.0
    assert seen("recall/wanted", "600 men of Otrar", "It sent 600.") == 1.0


def test_what_is_said_beside_the_gold_answer_is_counted_but_not_the_question_again() -> None:
    assert seen("extra", "600", "In 1219 the town of Otrar sent 600 men.") == 1.0  # sent
    assert seen("extra", "600", "In 1219 the town of Otrar sent 600 men, cannons and elephants.") == 3.0


def test_initials_match_an_acronym_of_either_text() -> None:
    assert seen("acronym/gold", "EU", "It is the European Union.") == 1.0
    assert seen("acronym/said", "United States of America", "The USA") == 1.0
    assert seen("acronym/gold", "EU", "It is the Mongol Empire.") == 0.0


def test_a_bound_is_kept_by_a_number_on_its_side() -> None:
    assert seen("numbers/bound-kept", "over 20 men", "30 men") == 1.0
    assert seen("numbers/bound-kept", "over 20 men", "10 men") == 0.0
    assert seen("numbers/bound-kept", "under 20 men", "10 men") == 1.0


def test_a_match_beside_other_words_is_told_from_one_alone() -> None:
    assert seen("before/name", "Army", "It was the Red Army.") == 1.0
    assert seen("before/name", "Army", "It was the Army.") == 0.0


def test_a_stem_keeps_three_letters() -> None:
    assert stem_of("governments") == stem_of("governed") == "govern"
    assert stem_of("is") == "is"


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=8))
def test_any_text_has_finite_features_that_depend_on_itself_alone(answers: list[tuple[str, str, str]]) -> None:
    together = overlap(Lexicon({}, 9.0), *map(list, zip(*answers, strict=True)))
    alone = np.concatenate([overlap(Lexicon({}, 9.0), [q], [g], [p]) for q, g, p in answers])
    assert np.isfinite(together).all()
    np.testing.assert_array_equal(together, alone)


def test_trees_walked_by_bits_arrive_where_branching_does() -> None:
    #        x0 <= 1        leaves 0, 1 on the left by x1, leaf 2 on the right; and a tree that is one test
    forest = Forest(
        np.array([0, 1, 1]),
        np.array([1.0, 5.0, 7.0], np.float32),
        np.array([0, 0, 1]),
        np.array([0xFFFC, 0xFFFE, 0xFFFE]),
        np.array([[1.0, 2.0, 4.0, *[99.0] * 13], [10.0, 20.0, *[99.0] * 14]]),
    )

    def branching(x0: float, x1: float) -> float:
        return ((1.0 if x1 <= 5 else 2.0) if x0 <= 1 else 4.0) + (10.0 if x1 <= 7 else 20.0)

    rows = np.array([[x0, x1] for x0 in (0.0, 1.0, 1.5) for x1 in (5.0, 6.0, 7.0, 8.0)], np.float32)
    assert forest.sums(rows).tolist() == [branching(*row) for row in rows.tolist()]


def test_an_answer_in_other_words_is_more_likely_right_than_a_wrong_one() -> None:
    where = "In what century did missionaries establish church schools?"
    assert mark(where, "nineteenth", "They did so in the 19th century.") > 0.9
    assert mark(where, "nineteenth", "They did so in the 17th century.") < 0.1


def test_a_mark_is_the_same_whatever_is_marked_with_it() -> None:
    asked = [
        ("Who?", "Inalchuq", f"The governor {name} did it in {year}.")
        for name in ("Inalchuq", "Otrar")
        for year in range(40)
    ]
    alone = [mark(*answer) for answer in asked]
    questions, golds, predictions = map(list, zip(*asked, strict=True))
    assert load_calibrated().probabilities(questions, golds, predictions).tolist() == alone
    twice = [[text for text in column for _ in range(2)] for column in (questions, golds, predictions)]
    assert load_calibrated().probabilities(*twice).tolist() == [p for p in alone for _ in range(2)]
    assert load_calibrated().probabilities(questions[::-1], golds[::-1], predictions[::-1]).tolist() == alone[::-1]


def test_marks_are_probabilities_that_say_when_they_are_sure() -> None:
    questions = [Question("Who?", "Inalchuq"), Question("Who?", "the governor Inalchuq"), Question("Who?", " ")]
    right, other, unasked = grade(questions, ["It was Inalchuq.", "a merchant of the town", "Inalchuq"])
    assert right.value is not None and right.value > load_calibrated().sure and right.why.startswith("correct")
    assert other.value is not None and other.value < 0.5
    assert (unasked.value, unasked.why) == (None, "no gold answer")


def test_the_grader_abstains_between_its_thresholds() -> None:
    grader = load_calibrated()
    assert 0.5 < grader.sure < 1.0
    assert [grader.verdict(p) for p in (0.0, 1 - grader.sure, 0.5, grader.sure, 1.0)] == [
        False,
        False,
        None,
        True,
        True,
    ]


def test_a_model_file_gives_back_the_grader_that_was_packed() -> None:
    grader = load_calibrated()
    again = unpack(pack(grader))
    asked = (["Who?"] * 3, ["Inalchuq"] * 3, ["Inalchuk", "the governor", "Inalchuq, I believe"])
    assert again.probabilities(*asked).tolist() == grader.probabilities(*asked).tolist()
    assert again.sure == grader.sure


def test_a_model_trained_on_other_features_is_refused() -> None:
    held = pack(load_calibrated())
    with pytest.raises(ValueError, match="other features"):
        unpack(held | {"features": np.frombuffer(b"recall\nother", np.uint8)})


def test_other_graders_and_the_command_line_do_not_load_it() -> None:
    code = (
        "import sys, selfedit.cli; from selfedit.tasks.graders import load_grader; load_grader('f1');"
        "print(*[m for m in sys.modules if m in ('selfedit.tasks.calibrated', 'lightgbm')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_the_model_file_is_small() -> None:
    from importlib.resources import files

    assert len(files("selfedit.tasks").joinpath("calibrated.npz").read_bytes()) < 1_000_000
