"""Which self-edits are reinforced, and how strongly: pure functions from groups of rollouts to training sequences.

ReST-EM (arXiv 2312.06585; SEAL: arXiv 2506.10943 §3.1) samples self-edits, keeps the rewarded ones and imitates them by
supervised fine-tuning: the policy gradient of a 0/1 reward, on samples drawn from the current writer, so groups must be
fresh each round. Expert iteration keeps the best of each group instead. Both learn from what went well alone.

GRPO and RLOO learn from all of a group: every edit is made likelier or less likely by its advantage over the others,
which takes the place of a learnt value function. Their data carry the log-probabilities under which the edits were
drawn, so that the engine can tell how far the writer has moved since (`engine.losses`).

The paper and its code keep different edits. The paper's reward is the indicator "better than before the update"; the
code for passages keeps the best of each group, whether it helped or not (10 of 50 in the published round 1 did not);
the code for ARC keeps every success. All three are here; the default is the paper's.

A group whose measured rewards are all the same says nothing of which edit is better, be they all 0, all 1 or a single
one. It `is_degenerate`; comparing algorithms make nothing of it. What was not measured has no weight anywhere.

    data = load_algorithm(OuterSettings(algorithm="grpo"))(groups_PG)

Axis suffixes: P tasks, G edits of a task, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from statistics import fmean, pstdev

from selfedit.errors import ConfigError, near_miss
from selfedit.types import Datum, OuterSettings, Rollout, Sample, Selection

Groups = Sequence[Sequence[Rollout]]
Algorithm = Callable[[Groups], list[Datum]]
ROUNDING = 1e-9  # rewards that differ by less are the same


def rest_em(groups_PG: Groups, select: Selection) -> list[Datum]:
    """Keep the edits that `select` names and imitate each of them: minimise -Σ_kept Σ_t log π(y_t | x, y_<t).

    With reward r, baseline b (both None where unmeasured):

    - "improves": every edit with r > b; an unmeasured baseline keeps nothing (arXiv 2506.10943 §3.1).
    - "best-of-n": argmax r of each group, the first of equals, even if it is 0 or no better than b (the authors' code
      for passages). A group without a measured reward gives nothing.
    - "all-positive": every edit with r > 0 (the authors' code for ARC).

    An unmeasured edit is never kept. Order is that of the groups; equal edits are all kept, since repetition is weight.
    Degenerate: no groups, empty groups or nothing that qualifies give [], and the writer should stay as it is.
    """
    return [_imitate(rollout.sample) for group in groups_PG for rollout in _SELECTIONS[select](group)]


def _improving(group: Sequence[Rollout]) -> list[Rollout]:
    return [r for r in group if r.reward is not None and r.baseline is not None and r.reward > r.baseline]


def _best(group: Sequence[Rollout]) -> list[Rollout]:
    measured = [(rollout.reward, rollout) for rollout in group if rollout.reward is not None]
    return [max(measured, key=lambda pair: pair[0])[1]] if measured else []


def _positive(group: Sequence[Rollout]) -> list[Rollout]:
    return [rollout for rollout in group if rollout.reward is not None and rollout.reward > 0]


_SELECTIONS: dict[Selection, Callable[[Sequence[Rollout]], list[Rollout]]] = {
    "improves": _improving,
    "best-of-n": _best,
    "all-positive": _positive,
}


def expert_iteration(groups_PG: Groups, keep: int) -> list[Datum]:
    """Imitate the `keep` best edits of each group: minimise -Σ_kept Σ_t log π(y_t | x, y_<t) (arXiv 1705.08439).

    Assumes that the better edits of a group are good, whatever their rewards. Kept are those with the highest rewards,
    the first of equals, in the order of the group; all that were measured where they are no more than `keep`.
    Degenerate: a group in which all rewards are the same gives nothing.
    """
    data = []
    for group in _telling(groups_PG):
        best = sorted(range(len(group)), key=lambda g: -group[g][1])[:keep]
        data += [_imitate(group[g][0]) for g in sorted(best)]
    return data


def grpo(groups_PG: Groups) -> list[Datum]:
    """Weigh every edit by its reward, normalised in its group: A_i = (r_i - mean r) / std r (arXiv 2402.03300).

    Each of an edit's tokens has the weight A_i; the engine maximises the clipped ratio min(r_t A_i, clip(r_t) A_i). The
    standard deviation is that of the group itself, not an estimate from it. Assumes that edits of a group were drawn
    by one policy, whose log-probabilities they bring. What is just average has no weight and is left out.
    Degenerate: a group in which all rewards are the same, where 0 / 0 would stand, gives nothing.
    """
    data = []
    for group in _telling(groups_PG):
        rewards = [reward for _, reward in group]
        mean, spread = fmean(rewards), pstdev(rewards)
        data += [_reinforce(sample, (reward - mean) / spread) for sample, reward in group]
    return [datum for datum in data if datum]


def rloo(groups_PG: Groups) -> list[Datum]:
    """Weigh every edit by what it has over the mean of the others: A_i = r_i - mean of r_j, j ≠ i (arXiv 2402.14740).

    The baseline has no part of r_i in it, so the gradient at the policy that drew is unbiased, which GRPO's is not: a
    group in which much was at stake weighs more than one of small differences. Assumes, and leaves out, what `grpo`
    does.
    Degenerate: a group in which all rewards are the same, or a single one is measured, gives nothing.
    """
    data = []
    for group in _telling(groups_PG):
        total, n = sum(reward for _, reward in group), len(group)
        data += [_reinforce(sample, reward - (total - reward) / (n - 1)) for sample, reward in group]
    return [datum for datum in data if datum]


def is_degenerate(group: Sequence[Rollout]) -> bool:
    """Say that a group's measured rewards do not tell its edits apart: all the same, a single one or none."""
    rewards = [rollout.reward for rollout in group if rollout.reward is not None]
    return not rewards or max(rewards) - min(rewards) < ROUNDING


def _telling(groups_PG: Groups) -> list[list[tuple[Sample, float]]]:
    """Give the measured edits, with their rewards, of the groups that are not degenerate."""
    return [
        [(rollout.sample, rollout.reward) for rollout in group if rollout.reward is not None]
        for group in groups_PG
        if not is_degenerate(group)
    ]


def _imitate(sample: Sample) -> Datum:
    """The emitted tokens after their prompt, [T]: weight 0 on the prompt, 1 on the completion.

    Raises `ConfigError` for a sample without token ids: a second tokenisation of its text is not what was emitted.
    """
    if not sample.prompt_tokens and not sample.tokens:
        raise ConfigError(
            "these self-edits cannot be reinforced: they came as text without token ids, as from a server; set "
            "outer.rounds=0, or let the model that learns write them"
        )
    weights = (0.0,) * len(sample.prompt_tokens) + (1.0,) * len(sample.tokens)
    return Datum(sample.prompt_tokens + sample.tokens, weights)


def _reinforce(sample: Sample, advantage: float) -> Datum | None:
    """The same with the advantage as weight, and the log-probabilities with which the tokens were drawn; None for an
    advantage of 0.

    Raises `ConfigError` as `_imitate` does, and for a sample whose tokens came without log-probabilities.
    """
    datum = _imitate(sample)
    if len(sample.logprobs) != len(sample.tokens):
        raise ConfigError(
            'these self-edits came without log-probabilities, which the algorithm needs; set outer.algorithm="rest_em"'
        )
    if abs(advantage) < ROUNDING:
        return None
    weights = tuple(advantage * weight for weight in datum.weights)
    return replace(datum, weights=weights, logprobs=(0.0,) * len(sample.prompt_tokens) + sample.logprobs)


def shuffled(algorithm: Algorithm, seed: int) -> Algorithm:
    """A control: `algorithm` with the measured rewards of each group dealt anew to its edits.

    Everything stays as it was, the number and the values of rewards in a group included, except that they say nothing
    about the edits. Unmeasured edits keep their None.
    """

    def deal(groups_PG: Groups) -> list[Datum]:
        random = Random(seed)
        dealt = []
        for group in groups_PG:
            rewards = [rollout.reward for rollout in group if rollout.reward is not None]
            random.shuffle(rewards)
            left = iter(rewards)
            dealt.append([replace(r, reward=next(left)) if r.reward is not None else r for r in group])
        return algorithm(dealt)

    return deal


def random_edits(seed: int) -> Algorithm:
    """A control: imitate one edit of each group, drawn without a look at its reward: what practice alone brings."""

    def draw(groups_PG: Groups) -> list[Datum]:
        random = Random(seed)
        return [_imitate(random.choice(group).sample) for group in groups_PG if group]

    return draw


ALGORITHMS: dict[str, Callable[[Groups, OuterSettings], list[Datum]]] = {
    "rest_em": lambda groups_PG, outer: rest_em(groups_PG, outer.select),
    "expert_iteration": lambda groups_PG, outer: expert_iteration(groups_PG, outer.keep),
    "grpo": lambda groups_PG, outer: grpo(groups_PG),
    "rloo": lambda groups_PG, outer: rloo(groups_PG),
}


def load_algorithm(outer: OuterSettings) -> Algorithm:
    """Return the algorithm that the settings name, with the parameters they give it. Raises `ConfigError` for an
    unknown one."""
    if outer.algorithm not in ALGORITHMS:
        raise ConfigError(f"unknown algorithm {outer.algorithm!r}; {near_miss(outer.algorithm, ALGORITHMS)}")
    return lambda groups_PG: ALGORITHMS[outer.algorithm](groups_PG, outer)
