"""Which edits each algorithm keeps, how it weighs them, and what it makes of them."""

from dataclasses import replace
from random import Random
from statistics import fmean
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfedit.engine.base import SampleJob
from selfedit.engine.local import LocalBackend
from selfedit.errors import ConfigError
from selfedit.loop.algorithms import (
    Algorithm,
    Groups,
    expert_iteration,
    grpo,
    is_degenerate,
    load_algorithm,
    random_edits,
    rest_em,
    rloo,
    shuffled,
)
from selfedit.tasks.world import fresh_tasks
from selfedit.types import Adapter, Datum, OuterSettings, Rollout, Sample, Selection, TrainJob, TrainSettings

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


def test_an_algorithm_is_loaded_with_the_parameters_of_the_settings() -> None:
    group = [rollout(10, 0.4), rollout(11, 1.0), rollout(12, 0.6)]
    best, two = OuterSettings(select="best-of-n"), OuterSettings(algorithm="expert_iteration", keep=2)
    assert [datum.tokens[-1] for datum in load_algorithm(best)([group])] == [11]
    assert [datum.tokens[-1] for datum in load_algorithm(two)([group])] == [11, 12]


def test_an_unknown_algorithm_names_its_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown algorithm 'rest-em'; did you mean 'rest_em'"):
        load_algorithm(OuterSettings(algorithm="rest-em"))


# Comparing the edits of a group


def advantages(algorithm: Algorithm, *rewards: float | None) -> dict[int, float]:
    """What each edit of a group with these rewards weighs, by its number; one that is left out has no entry."""
    data = algorithm([[rollout(i, reward) for i, reward in enumerate(rewards)]])
    return {datum.tokens[-1]: datum.weights[-1] for datum in data}


def test_expert_iteration_keeps_the_best_in_the_order_of_the_group_and_the_first_of_equals() -> None:
    group = [rollout(10, 0.1), rollout(11, None), rollout(12, 0.8), rollout(13, 0.8), rollout(14, 0.9)]
    assert [[d.tokens[-1] for d in expert_iteration([group], k)] for k in (1, 2, 3, 9)] == [
        [14],
        [12, 14],
        [12, 13, 14],
        [10, 12, 13, 14],
    ]


def test_grpo_weighs_an_edit_by_how_many_deviations_it_lies_from_the_mean() -> None:
    assert advantages(grpo, 0.0, 1.0) == pytest.approx({0: -1.0, 1: 1.0})
    assert advantages(grpo, 0.2, None, 0.2, 0.8, 0.8) == pytest.approx({0: -1.0, 2: -1.0, 3: 1.0, 4: 1.0})
    assert advantages(grpo, 0.0, 0.0, 0.0, 1.0) == pytest.approx(
        {0: -(3**-0.5), 1: -(3**-0.5), 2: -(3**-0.5), 3: 3**0.5}
    )


def test_grpo_does_not_see_by_how_much_rewards_differ_and_rloo_does() -> None:
    assert advantages(grpo, 0.1, 0.2, 0.4) == pytest.approx(advantages(grpo, 1.0, 3.0, 7.0))
    assert advantages(rloo, 0.1, 0.2, 0.4) == pytest.approx({0: -0.2, 1: -0.05, 2: 0.25})
    assert advantages(rloo, 1.0, 2.0, 4.0) == pytest.approx({0: -2.0, 1: -0.5, 2: 2.5})


def test_rloo_weighs_an_edit_by_what_it_has_over_the_mean_of_the_others() -> None:
    rewards = [0.0, 0.25, 0.5, 1.0]
    for i, advantage in advantages(rloo, *rewards).items():
        assert advantage == pytest.approx(rewards[i] - fmean(r for j, r in enumerate(rewards) if j != i))


@pytest.mark.parametrize("algorithm", [grpo, rloo])
def test_an_edit_that_is_just_average_is_left_out(algorithm: Algorithm) -> None:
    assert advantages(algorithm, 0.0, 0.5, 1.0).keys() == {0, 2}


@pytest.mark.parametrize("algorithm", [grpo, rloo])
def test_an_advantage_comes_with_the_log_probabilities_of_the_draw(algorithm: Algorithm) -> None:
    samples = [Sample("", (7, 8), tokens, (-0.5, -0.25), "", "eos") for tokens in ((1, 2), (3, 4))]
    bad, good = algorithm([[Rollout(samples[0], 0.0, 0.0), Rollout(samples[1], 1.0, 0.0)]])
    assert good.logprobs == bad.logprobs == (0.0, 0.0, -0.5, -0.25)
    assert good.weights == (0.0, 0.0, good.weights[-1], good.weights[-1])
    assert good.weights[-1] == -bad.weights[-1] > 0


@pytest.mark.parametrize("algorithm", [grpo, rloo])
def test_edits_without_log_probabilities_are_refused_by_what_needs_them(algorithm: Algorithm) -> None:
    bare = Sample("prompt", (1, 2), (3,), (), "edit", "eos")
    with pytest.raises(ConfigError, match=r"without log-probabilities.*outer\.algorithm=\"rest_em\""):
        algorithm([[rollout(1, 0.0), Rollout(bare, 1.0, 0.0)]])


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([], True),
        ([None, None], True),
        ([0.5, None], True),
        ([0.0, 0.0, 0.0], True),
        ([1.0, 1.0], True),
        ([1 / 3, 1 - 2 / 3], True),  # which differ in the last digit
        ([0.0, 0.0, 0.125], False),
    ],
)
def test_a_group_is_degenerate_where_its_rewards_do_not_differ(rewards: list[float | None], expected: bool) -> None:
    assert is_degenerate([rollout(i, reward) for i, reward in enumerate(rewards)]) is expected


# Reinforcement on the embedded model


def rewards_of(algorithm: Algorithm, steps: int = 3) -> list[float]:
    """Reward the embedded model for saying "was" in what it writes on; how often it did, before every update."""
    engine = LocalBackend("pup", "cpu")
    prompts = [task.context.split(". ")[0] + "." for task in fresh_tasks("train", 4, 100)]
    settings = TrainSettings(rank=8, alpha=16, epochs=4, learning_rate=5e-3, batch_size=8, schedule="constant")
    writer: Adapter | None = None
    shares = []
    for step in range(steps + 1):
        jobs = [SampleJob(prompt, 8, Random(f"{step}/{i}").getrandbits(31), writer) for i, prompt in enumerate(prompts)]
        drawn = engine.sample([replace(job, max_tokens=24, top_p=1.0) for job in jobs])
        groups = [[Rollout(s, float(" was " in s.text), 0.0) for s in row] for row in drawn if isinstance(row, list)]
        shares.append(fmean(r.reward or 0.0 for group in groups for r in group))
        if step < steps:
            (trained,) = engine.train([TrainJob(tuple(algorithm(groups)), settings, seed=step, under=writer)])
            assert isinstance(trained, Adapter), trained
            writer = trained
    return shares


def test_grpo_makes_the_embedded_model_write_what_is_rewarded_and_not_what_is_rewarded_at_random() -> None:
    first, *_, last = rewards_of(grpo)
    assert last > first + 0.4
    first, *_, last = rewards_of(shuffled(grpo, seed=1))
    assert last < first + 0.2


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
