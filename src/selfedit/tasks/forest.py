"""Boosted trees of at most 16 leaves, walked with numpy for many rows at once.

A tree is walked without branching (QuickScorer, Lucchese et al., SIGIR 2015): its leaves are the bits of one 16-bit
word, a node whose test fails clears the leaves on its left, and the lowest bit that is left is where the row arrives.
The nodes that test one feature, sorted by threshold, fail in order; so each feature has a table that gives, for the
number of failed nodes, what they leave of every tree in which they stand.

    forest = Forest(feature_D, threshold_D, tree_D, kept_D, leaf_TL)
    logits_N = forest.sums(features_NF)

Axis suffixes: N rows, F features, D nodes of all trees, T trees, L leaves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from selfedit.tasks.words import Array

LEAVES = 16
ROWS = 1024  # walked at once
_LOWEST_BIT = np.zeros(1 << LEAVES, np.uint8)
for _bit in reversed(range(LEAVES)):
    _LOWEST_BIT[1 << _bit :: 2 << _bit] = _bit


@dataclass(frozen=True)
class Forest:
    """The nodes: each tests `feature` <= `threshold` in `tree` and, if that fails, keeps the leaves of the bits `kept`.

    `leaf_TL` are the values of the leaves, from left to right.
    """

    feature_D: Array
    threshold_D: Array
    tree_D: Array
    kept_D: Array
    leaf_TL: Array

    def sums(self, features_NF: Array) -> Array:
        """Return the sum of the leaves that each row arrives at, [N]."""
        blocks = [self._block(features_NF[at : at + ROWS]) for at in range(0, len(features_NF), ROWS)]
        return np.concatenate([np.zeros(0), *blocks])

    def _block(self, features_NF: Array) -> Array:
        left_TN = np.full((len(self.leaf_TL), len(features_NF)), (1 << LEAVES) - 1, np.uint16)
        for feature, thresholds, trees, kept in self._tables:
            n_failed_N = np.searchsorted(thresholds, features_NF[:, feature])
            left_TN[trees] &= kept[:, n_failed_N]
        arrived_TN = _LOWEST_BIT[left_TN]
        return np.take_along_axis(self.leaf_TL, arrived_TN, axis=1).sum(0, dtype=np.float64)

    @cached_property
    def _tables(self) -> list[tuple[int, Array, Array, Array]]:
        """For each feature: its thresholds in order, the trees that test it, and what is left of these trees' leaves
        after so many failed tests."""
        tables = []
        for feature in np.unique(self.feature_D):
            nodes = np.flatnonzero(self.feature_D == feature)
            nodes = nodes[np.argsort(self.threshold_D[nodes], kind="stable")]
            trees, place = np.unique(self.tree_D[nodes], return_inverse=True)
            kept = np.full((len(trees), len(nodes) + 1), (1 << LEAVES) - 1, np.uint16)
            kept[place, np.arange(len(nodes)) + 1] = self.kept_D[nodes]
            tables.append((int(feature), self.threshold_D[nodes], trees, np.bitwise_and.accumulate(kept, axis=1)))
        return tables
