"""Which self-edits are reinforced, and how strongly: pure functions from groups of rollouts to training sequences.

ReST-EM (arXiv 2312.06585; SEAL: arXiv 2506.10943 §3.1) samples self-edits, keeps the rewarded ones and imitates them by
supervised fine-tuning: the policy gradient of a 0/1 reward, on samples drawn from the current writer, so groups must be
fresh each round.

The paper and its code keep different edits. The paper's reward is the indicator "better than before the update"; the
code for passages keeps the best of each group, whether it helped or not (10 of 50 in the published round 1 did not);
the code for ARC keeps every success. All three are here; the default is the paper's.

    data = load_algorithm("rest_em")(groups_PG, "improves")

Axis suffixes: P tasks, G edits of a task, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from selfedit.errors import ConfigError, near_miss
from selfedit.types import Datum, Rollout, Sample, Selection

Groups = Sequence[Sequence[Rollout]]
Algorithm = Callable[[Groups, Selection], list[Datum]]


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


def shuffled(algorithm: Callable[[Groups], list[Datum]], seed: int) -> Callable[[Groups], list[Datum]]:
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


def random_edits(seed: int) -> Callable[[Groups], list[Datum]]:
    """A control: imitate one edit of each group, drawn without a look at its reward: what practice alone brings."""

    def draw(groups_PG: Groups) -> list[Datum]:
        random = Random(seed)
        return [_imitate(random.choice(group).sample) for group in groups_PG if group]

    return draw


ALGORITHMS: dict[str, Algorithm] = {"rest_em": rest_em}


def load_algorithm(name: str) -> Algorithm:
    """Return the algorithm called `name`. Raises `ConfigError` for an unknown one."""
    if name not in ALGORITHMS:
        raise ConfigError(f"unknown algorithm {name!r}; {near_miss(name, ALGORITHMS)}")
    return ALGORITHMS[name]
