"""Which edits ReST-EM keeps, and what it makes of them."""

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfedit.errors import ConfigError
from selfedit.loop.algorithms import ALGORITHMS, Groups, load_algorithm, random_edits, rest_em, shuffled
from selfedit.types import Datum, Rollout, Sample, Selection

SELECTIONS = get_args(Selection)


def rollout(token: int, reward: float | None, baseline: float | None = 0.5) -> Rollout:
    """An edit that can be told by its only token."""
    return Rollout(Sample("prompt", (1, 2), (token,), (-0.1,), "edit", "eos"), reward, baseline)


def kept(groups_PG: list[list[Rollout]], select: Selection) -> list[int]:
    return [datum.tokens[-1] for datum in rest_em(groups_PG, select)]


marks = st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0])
rollouts = st.builds(
    lambda prompt, tokens, reward, baseline: Rollout(
        Sample("", tuple(prompt), tuple(tokens), (0.0,) * len(tokens), "", "eos"), reward, baseline
    ),
    st.lists(st.integers(0, 9), max_size=4),
    st.lists(st.integers(0, 9), min_size=1, max_size=4),
    marks,
    marks,
)
groups = st.lists(st.lists(rollouts, max_size=4), max_size=4)


def test_improves_keeps_every_edit_above_the_baseline_and_none_at_it() -> None:
    group = [rollout(10, 0.6), rollout(11, 0.5), rollout(12, 0.4), rollout(13, 1.0)]
    assert kept([group], "improves") == [10, 13]


@pytest.mark.parametrize("select", SELECTIONS)
def test_an_edit_that_came_without_token_ids_is_learnt_from_but_not_reinforced(select: Selection) -> None:
    text = Rollout(Sample("prompt", (), (), (), "a server's words", "eos"), 1.0, 0.0)
    with pytest.raises(ConfigError, match=r"without token ids.*outer\.rounds=0"):
        rest_em([[rollout(10, 0.6)], [text]], select)


def test_improves_needs_a_measured_baseline() -> None:
    assert kept([[rollout(10, 1.0, baseline=None)]], "improves") == []


def test_best_of_n_keeps_one_edit_of_each_group_even_if_none_improves() -> None:
    assert kept([[rollout(10, 0.1), rollout(11, 0.3)], [rollout(12, 0.0), rollout(13, 0.0)]], "best-of-n") == [11, 12]


def test_best_of_n_keeps_the_first_of_equals() -> None:
    assert kept([[rollout(10, 0.2), rollout(11, 0.8), rollout(12, 0.8)]], "best-of-n") == [11]


def test_best_of_n_skips_a_group_in_which_nothing_was_measured() -> None:
    assert kept([[rollout(10, None), rollout(11, None)], [rollout(12, 0.1)]], "best-of-n") == [12]


def test_all_positive_keeps_every_edit_with_a_reward_whatever_the_baseline() -> None:
    group = [rollout(10, 0.1, baseline=0.9), rollout(11, 0.0), rollout(12, 1.0, baseline=None)]
    assert kept([group], "all-positive") == [10, 12]


@pytest.mark.parametrize("select", SELECTIONS)
def test_no_groups_and_empty_groups_give_no_data(select: Selection) -> None:
    assert rest_em([], select) == []
    assert rest_em([[], []], select) == []


@pytest.mark.parametrize("select", SELECTIONS)
@settings(deadline=None)
@given(groups_PG=groups)
def test_unmeasured_edits_are_never_kept(select: Selection, groups_PG: list[list[Rollout]]) -> None:
    measured_PG = [[r for r in group if r.reward is not None] for group in groups_PG]
    assert rest_em(groups_PG, select) == rest_em(measured_PG, select)
    assert len(rest_em(groups_PG, select)) <= sum(len(group) for group in measured_PG)


@pytest.mark.parametrize("select", SELECTIONS)
@settings(deadline=None)
@given(rewarded=rollouts)
def test_the_prompt_has_weight_zero_and_the_completion_weight_one(select: Selection, rewarded: Rollout) -> None:
    sample = rewarded.sample
    (datum,) = rest_em([[Rollout(sample, 1.0, 0.0)]], select)
    assert datum.tokens == sample.prompt_tokens + sample.tokens
    assert datum.weights == (0.0,) * len(sample.prompt_tokens) + (1.0,) * len(sample.tokens)
    assert datum.logprobs is None


@settings(deadline=None)
@given(groups_PG=groups)
def test_best_of_n_gives_one_edit_for_each_group_with_a_measurement(groups_PG: list[list[Rollout]]) -> None:
    with_measurement = [group for group in groups_PG if any(r.reward is not None for r in group)]
    assert len(rest_em(groups_PG, "best-of-n")) == len(with_measurement)


@pytest.mark.parametrize("select", SELECTIONS)
@settings(deadline=None)
@given(groups_PG=groups)
def test_groups_do_not_influence_one_another(select: Selection, groups_PG: list[list[Rollout]]) -> None:
    apart = [datum for group in groups_PG for datum in rest_em([group], select)]
    assert rest_em(groups_PG, select) == apart


def test_every_registered_algorithm_can_be_loaded_by_its_name() -> None:
    assert {name: load_algorithm(name) for name in ALGORITHMS} == ALGORITHMS


def test_an_unknown_algorithm_names_its_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown algorithm 'rest-em'; did you mean 'rest_em'"):
        load_algorithm("rest-em")


# The controls


def dealt(groups_PG: list[list[Rollout]], seed: int) -> list[list[Rollout]]:
    """What an algorithm under `shuffled` is shown."""
    seen: list[list[Rollout]] = []

    def look(groups: Groups) -> list[Datum]:
        seen.extend(list(group) for group in groups)
        return []

    shuffled(look, seed)(groups_PG)
    return seen


@given(groups_PG=groups, seed=st.integers(0, 99))
def test_shuffling_keeps_the_rewards_of_each_group_and_all_else_in_its_place(
    groups_PG: list[list[Rollout]], seed: int
) -> None:
    shown = dealt(groups_PG, seed)
    assert len(shown) == len(groups_PG)
    for before, after in zip(groups_PG, shown, strict=True):
        assert [(r.sample, r.baseline) for r in after] == [(r.sample, r.baseline) for r in before]
        assert [r.reward is None for r in after] == [r.reward is None for r in before]
        assert sorted(r.reward for r in after if r.reward is not None) == sorted(
            r.reward for r in before if r.reward is not None
        )


def test_shuffled_rewards_say_nothing_about_the_edits() -> None:
    group = [rollout(i, i / 4) for i in range(5)]
    firsts = [dealt([group], seed)[0][0].reward for seed in range(500)]
    assert {mark: 50 < firsts.count(mark) < 150 for mark in (0.0, 0.25, 0.5, 0.75, 1.0)} == dict.fromkeys(
        (0.0, 0.25, 0.5, 0.75, 1.0), True
    )
    assert dealt([group], 3) == dealt([group], 3)


@given(groups_PG=groups, seed=st.integers(0, 99), mark=marks)
def test_random_edits_never_look_at_a_reward(groups_PG: list[list[Rollout]], seed: int, mark: float | None) -> None:
    blind = [[replace(r, reward=mark, baseline=None) for r in group] for group in groups_PG]
    picked = random_edits(seed)(groups_PG)
    assert picked == random_edits(seed)(blind)
    assert len(picked) == sum(bool(group) for group in groups_PG)


def test_random_edits_come_from_their_own_group_and_from_all_of_it() -> None:
    groups_PG = [[rollout(10 * g + i, None) for i in range(3)] for g in range(4)]
    picks = [[datum.tokens[-1] for datum in random_edits(seed)(groups_PG)] for seed in range(60)]
    assert all([token // 10 for token in pick] == [0, 1, 2, 3] for pick in picks)
    assert {token for pick in picks for token in pick} == {10 * g + i for g in range(4) for i in range(3)}
