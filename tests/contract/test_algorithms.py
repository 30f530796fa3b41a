"""The laws of every algorithm in the registry, with the settings that a recipe has by default and with others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import isclose

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfedit.loop.algorithms import ALGORITHMS, Algorithm, load_algorithm, random_edits, shuffled
from selfedit.types import Datum, OuterSettings, Rollout, Sample

SETTINGS = {name: OuterSettings(algorithm=name) for name in ALGORITHMS} | {
    "rest_em best-of-n": OuterSettings(select="best-of-n"),
    "rest_em all-positive": OuterSettings(select="all-positive"),
    "expert_iteration of 3": OuterSettings(algorithm="expert_iteration", keep=3),
}
BY_ADVANTAGE = ("grpo", "rloo")

pytestmark = pytest.mark.parametrize("name", sorted(SETTINGS))

marks = st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 1.0])
rollouts = st.builds(
    lambda prompt, tokens, reward: Rollout(
        Sample("", tuple(prompt), tuple(tokens), tuple(-t / 8 for t in tokens), "", "eos"), reward, 0.25
    ),
    st.lists(st.integers(0, 9), max_size=4),
    st.lists(st.integers(0, 99), min_size=1, max_size=4),
    st.none() | marks,
)
groups = st.lists(st.lists(rollouts, max_size=5), max_size=4)


def load(name: str) -> Algorithm:
    return load_algorithm(SETTINGS[name])


def emitted(sample: Sample) -> tuple[int, ...]:
    return sample.prompt_tokens + sample.tokens


def counted(data: Sequence[Datum]) -> Counter[Datum]:
    return Counter(data)


@pytest.mark.parametrize("nothing", [[], [[]], [[], []]])
def test_where_nothing_was_written_there_is_nothing_to_learn(name: str, nothing: list[list[Rollout]]) -> None:
    assert load(name)(nothing) == []


@settings(deadline=None, max_examples=40)
@given(groups_PG=groups)
def test_what_was_not_measured_never_weighs(name: str, groups_PG: list[list[Rollout]]) -> None:
    measured_PG = [[r for r in group if r.reward is not None] for group in groups_PG]
    assert load(name)(groups_PG) == load(name)(measured_PG)


@settings(deadline=None, max_examples=40)
@given(groups_PG=groups, order=st.randoms(use_true_random=False))
def test_groups_in_another_order_give_the_same_data_in_that_order(
    name: str, groups_PG: list[list[Rollout]], order: st.DataObject
) -> None:
    apart = [load(name)([group]) for group in groups_PG]
    places = list(range(len(groups_PG)))
    order.shuffle(places)  # type: ignore[attr-defined]
    expected = [datum for place in places for datum in apart[place]]
    assert load(name)([groups_PG[place] for place in places]) == expected


@settings(deadline=None, max_examples=40)
@given(group=st.lists(rollouts, max_size=5), reward=st.none() | marks)
def test_edits_that_are_all_worth_the_same_and_no_more_than_no_edit_teach_nothing(
    name: str, group: list[Rollout], reward: float | None
) -> None:
    if SETTINGS[name].algorithm == "rest_em" and SETTINGS[name].select != "improves":
        pytest.skip("the authors' code keeps edits without a comparison")
    assert load(name)([[replace(rollout, reward=reward, baseline=reward) for rollout in group]]) == []


@settings(deadline=None, max_examples=40)
@given(groups_PG=groups)
def test_the_prompt_weighs_nothing_and_every_token_of_an_edit_the_same(
    name: str, groups_PG: list[list[Rollout]]
) -> None:
    samples = {emitted(rollout.sample): rollout.sample for group in groups_PG for rollout in group}
    lengths = {(emitted(rollout.sample), len(rollout.sample.prompt_tokens)) for group in groups_PG for rollout in group}
    for datum in load(name)(groups_PG):
        assert datum.tokens in samples
        silent = [0] * sum(weight == 0 for weight in datum.weights)
        assert (datum.tokens, len(silent)) in lengths
        assert list(datum.weights[: len(silent)]) == silent
        assert len(set(datum.weights[len(silent) :])) == 1
        assert datum.weights[-1] == 1 or datum.logprobs is not None


@settings(deadline=None, max_examples=40)
@given(groups_PG=groups)
def test_advantages_come_with_the_log_probabilities_of_the_draw_and_add_up_to_nothing(
    name: str, groups_PG: list[list[Rollout]]
) -> None:
    for group in groups_PG:
        data = load(name)([group])
        if SETTINGS[name].algorithm not in BY_ADVANTAGE:
            assert all(datum.logprobs is None for datum in data)
            continue
        assert isclose(sum(datum.weights[-1] for datum in data), 0.0, abs_tol=1e-9)
        drawn = {(emitted(r.sample), (0.0,) * len(r.sample.prompt_tokens) + r.sample.logprobs): r.reward for r in group}
        assert all((datum.tokens, datum.logprobs) in drawn for datum in data)


@settings(deadline=None, max_examples=40)
@given(groups_PG=groups)
def test_a_better_edit_of_a_group_never_weighs_less_than_a_worse_one(name: str, groups_PG: list[list[Rollout]]) -> None:
    for number, group in enumerate(groups_PG):
        named = [
            replace(r, sample=replace(r.sample, tokens=(number, i), logprobs=(-1.0, -1.0))) for i, r in enumerate(group)
        ]
        weights = {datum.tokens[-1]: datum.weights[-1] for datum in load(name)([named])}
        measured = [(r.reward, weights.get(i, 0.0)) for i, r in enumerate(named) if r.reward is not None]
        assert all(a[1] <= b[1] for a in measured for b in measured if a[0] < b[0])


@settings(deadline=None, max_examples=40)
@given(groups_PG=groups, seed=st.integers(0, 99))
def test_both_controls_work_with_it(name: str, groups_PG: list[list[Rollout]], seed: int) -> None:
    dealt = shuffled(load(name), seed)(groups_PG)
    assert dealt == shuffled(load(name), seed)(groups_PG)
    if SETTINGS[name].algorithm in BY_ADVANTAGE:
        own = load(name)(groups_PG)
        assert sorted(d.weights[-1] for d in dealt) == pytest.approx(sorted(d.weights[-1] for d in own))
    assert all(datum.logprobs is None for datum in random_edits(seed)(groups_PG))
