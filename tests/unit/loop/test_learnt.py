from __future__ import annotations

from random import Random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfedit.loop.learnt import Pair, correlation, features, fit
from selfedit.types import Sample, Task


def task(i: int) -> Task:
    return Task(f"T{i}", f"Name{i}", f"Name{i} was born in Town{i}. She works for Mill{i}. She likes 17 boats.")


def sample(text: str, logprobs: tuple[float, ...] = (-1.0, -2.0), stop: str = "eos") -> Sample:
    return Sample("p", (1,), (2, 3), logprobs, text, stop)  # type: ignore[arg-type]


def pairs(n_tasks: int, seed: int = 0, noise: float = 0.05) -> list[Pair]:
    """Self-edits of which those that repeat more of the passage are worth more."""
    rng = Random(seed)
    made = []
    for i in range(n_tasks):
        sentences = [f"Name{i} was born in Town{i}.", f"Name{i} works for Mill{i}.", "Who knows.", "One may think so."]
        for _ in range(3):
            kept = rng.sample(sentences, rng.randint(1, 4))
            worth = sum("Name" in line for line in kept) / 2
            made.append(Pair(task(i), sample("\n".join(kept)), worth + rng.gauss(0, noise)))
    return made


def test_what_was_told_more_of_is_predicted_to_be_worth_more() -> None:
    predict = fit(pairs(20))
    rich, poor = sample("Name99 was born in Town99.\nName99 works for Mill99."), sample("Who knows.\nOne may think so.")
    assert predict(task(99), rich) > predict(task(99), poor) + 0.5


def test_held_out_passages_are_predicted_where_there_is_something_to_predict() -> None:
    found = correlation(pairs(20))
    assert found is not None and found > 0.8


def test_rewards_dealt_at_random_are_not_predicted() -> None:
    made = pairs(40)
    rewards = [pair.reward for pair in made]
    Random(1).shuffle(rewards)
    found = correlation([Pair(p.task, p.sample, r) for p, r in zip(made, rewards, strict=True)])
    assert found is not None and abs(found) < 0.35


def by_lot(seed: int) -> list[Pair]:
    """Passages whose self-edits are all the same one and worth the same, drawn by lot."""
    rng, made = Random(seed), []
    for i in range(20):
        lines = [f"Name{i} was born in Town{i}.", f"She works for Mill{i}.", "Who knows.", "She likes 18 boats."]
        text = "\n".join(rng.choices(lines, k=rng.randint(1, 9)))
        edit = sample(text, (-rng.random(),), rng.choice(("eos", "length")))
        made += [Pair(task(i), edit, rng.random())] * 4
    return made


def test_a_passage_is_never_predicted_from_its_own_self_edits() -> None:
    found = [correlation(by_lot(seed)) or 0.0 for seed in range(8)]
    assert fmean(found) < 0.3  # whoever has seen the passages is at three quarters


def test_the_same_pairs_in_the_same_order_give_the_same_prediction_to_the_last_digit() -> None:
    edit = sample("Name5 works for Mill5.")
    assert fit(pairs(9))(task(5), edit) == fit(pairs(9))(task(5), edit)


def test_equal_rewards_predict_themselves_and_correlate_with_nothing() -> None:
    equal = [Pair(p.task, p.sample, 0.25) for p in pairs(6)]
    assert fit(equal)(task(50), sample("anything")) == pytest.approx(0.25)
    assert correlation(equal) is None


@pytest.mark.parametrize("made", [[], pairs(1)])
def test_of_nothing_and_of_one_passage_nothing_is_held_out(made: list[Pair]) -> None:
    assert correlation(made) is None
    assert isinstance(fit(made)(task(0), sample("a")), float)


def test_features_know_a_line_that_names_its_subject_from_one_that_does_not() -> None:
    named, unnamed = (
        features(task(1), sample("Name1 works for Mill1.")),
        features(task(1), sample("She works for Mill1.")),
    )
    assert (named[7], unnamed[7]) == (1.0, 0.0)


def test_features_know_numbers_that_the_passage_does_not_have() -> None:
    assert features(task(1), sample("She likes 17 boats."))[8] == 0.0
    assert features(task(1), sample("She likes 18 boats."))[8] == 1.0


@given(st.text(max_size=200), st.text(max_size=50), st.text(max_size=100))
def test_any_text_has_finite_features(text: str, title: str, context: str) -> None:
    found = features(Task("T", title, context), sample(text, ()))
    assert len(found) == 12
    assert all(abs(value) < 1e6 for value in found)
