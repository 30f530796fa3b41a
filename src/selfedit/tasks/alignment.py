"""Which words of a question, its gold answer and a prediction are each other's. Pure.

A `Side` is one of the three texts as arrays of tokens, a `Block` some answers with all that is known of them: what of
the gold answer is found, what of the prediction repeats the question, what is new. Everything is computed when it is
first asked for.

Axis suffixes, as the arrays' comments have them: N answers, T tokens: Q of the question, G of the gold answer, P of the
prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from selfedit.tasks.words import Array, Columns, Lexicon, padded

NOWHERE = 99  # tokens: the place of a match that there is not


class Side:
    """The tokens of one of the three texts, [N, T] each. Ends of sentences are no words, nor is what a number goes on
    with: "3 million" is one word with a number, at its "3", and so is "twenty-five"."""

    def __init__(self, lexicon: Lexicon, rows: Sequence[Sequence[int]]) -> None:
        self.rows, is_token = padded(rows)
        self.table: Columns = lexicon.columns()
        self.is_end = self.table.is_end[self.rows] & is_token
        self.number, goes_on = self._numbers(is_token)
        self.is_word = is_token & ~self.is_end & ~goes_on
        self.is_content = self.is_word & ~self.table.is_stop[self.rows]
        self.rarity = self.table.rarity[self.rows] * self.is_word
        self.is_capital = self.table.is_capital[self.rows] & self.is_word

    def _numbers(self, is_token: Array) -> tuple[Array, Array]:
        """Return the value of each number, NaN elsewhere, and which tokens belong to the number before them."""
        table, rows = self.table, self.rows
        value, goes_on = np.where(is_token, table.number[rows], np.nan), np.zeros_like(is_token)
        now, then, is_after = value[:, :-1], value[:, 1:], goes_on[:, 1:]
        is_spelt = (table.length[rows[:, :-1]] > 3) & (table.length[rows[:, 1:]] > 2)
        is_after |= is_spelt & (now >= 20) & (now < 100) & (now % 10 == 0) & (then >= 1) & (then < 10)
        now[is_after] += then[is_after]
        scale = table.scale[rows[:, 1:]]
        is_scaled = (scale > 1) & ~np.isnan(now)
        now[is_scaled] *= scale[is_scaled]
        is_after |= is_scaled
        then[is_after] = np.nan
        return np.round(value, 4), goes_on  # 20.4 * 1e9 is the number that 20,400,000,000 is

    @cached_property
    def is_number(self) -> Array:
        return ~np.isnan(self.number)

    @cached_property
    def is_year(self) -> Array:
        return (self.number >= 1000) & (self.number <= 2100) & (self.number % 1 == 0)

    def is_one_of(self, lexicon: Lexicon, words: Sequence[str]) -> Array:
        """Where one of these words stands, [N, T]."""
        found = np.zeros_like(self.is_word)
        for word in words:
            found |= self.table.word[self.rows] == lexicon.number_of(word)
        return found & self.is_word

    def any(self, column: Array) -> Array:
        """Whether a word is in the text for which `column` of the table is true, [N]."""
        return (column[self.rows] & self.is_word).any(1)


@dataclass(frozen=True)
class Block:
    """Some answers with what all groups of features need."""

    lexicon: Lexicon
    question: Side
    gold: Side
    prediction: Side
    golds: Sequence[str]
    predictions: Sequence[str]

    @cached_property
    def same(self) -> Array:
        """Which gold word stands where in the prediction, [N, G, P]: the same word or number."""
        gold, said = self.gold, self.prediction
        is_pair = gold.is_word[:, :, None] & said.is_word[:, None, :]
        is_same = (gold.table.word[gold.rows][:, :, None] == said.table.word[said.rows][:, None, :]) & is_pair
        return is_same | self.same_number

    @cached_property
    def same_number(self) -> Array:
        """Which gold number stands where in the prediction, [N, G, P]."""
        return _same_numbers(self.gold, self.prediction)

    @cached_property
    def likeness(self) -> Array:
        """How alike two words are, [N, G, P] in [0, 1]: same 1, same stem 0.95, else the share of letters that their
        beginnings (three letters at least), or beginnings and ends, have in common."""
        gold, said = self.gold, self.prediction
        table = gold.table
        alike = self.same.astype(np.float32)
        is_pair = gold.is_word[:, :, None] & said.is_word[:, None, :] & ~self.same
        start = table.start[gold.rows][:, :, None] ^ table.start[said.rows][:, None, :]
        n, g, p = np.nonzero((start < 1 << 40) & is_pair)  # the rest shares fewer than three letters
        one, other = gold.rows[n, g], said.rows[n, p]
        longest = np.maximum(table.length[one], table.length[other])
        shortest = np.minimum(table.length[one], table.length[other])
        first = np.minimum(_letters(start[n, g, p]), shortest)
        last = np.minimum(_letters(table.end[one] ^ table.end[other]), shortest - first)
        typo = (longest >= 6) & (first + last >= longest - 1)
        share = np.where(typo, 0.9, first / np.maximum(longest, 1)) * (first >= 3)
        share = np.where(table.stem[one] == table.stem[other], 0.95, share)
        month = (table.month[one] > 0) & (table.month[one] == table.month[other])
        alike[n, g, p] = np.where(month, 0.95, share)
        return alike

    @cached_property
    def is_hit(self) -> Array:
        return self.likeness > 0.6

    @cached_property
    def found(self) -> Array:
        """The likeness of each gold word to the most similar word said, [N, G]."""
        return self.likeness.max(2)

    @cached_property
    def is_found(self) -> Array:
        return self.is_hit.any(2)

    @cached_property
    def is_covered(self) -> Array:
        """Which words said are the gold answer's, [N, P]."""
        return self.is_hit.any(1)

    @cached_property
    def echoes(self) -> Array:
        """Which of the question's words stands where in the prediction, [N, Q, P], by stem or number."""
        return _same_stem(self.question, self.prediction) | _same_numbers(self.question, self.prediction)

    @cached_property
    def is_echo(self) -> Array:
        return self.echoes.any(1)

    @cached_property
    def is_asked(self) -> Array:
        """Which of the gold answer's words the question gives away, [N, G]."""
        return _same_stem(self.gold, self.question).any(2)

    @cached_property
    def gold_content(self) -> Array:
        """The gold answer's words that carry meaning, [N, G]; all of them where none does."""
        return _or_all(self.gold.is_content, self.gold.is_word)

    @cached_property
    def wanted(self) -> Array:
        """Those that the question does not give away, [N, G]; all that carry meaning where it gives them all."""
        return _or_all(self.gold_content & ~self.is_asked, self.gold_content)

    @cached_property
    def is_new(self) -> Array:
        """The words said that carry meaning and are not the question's, [N, P]."""
        return self.prediction.is_content & ~self.is_echo

    @cached_property
    def is_extra(self) -> Array:
        """New words that are not the gold answer's either, [N, P]."""
        return self.is_new & ~self.is_covered

    @cached_property
    def sentence(self) -> Array:
        """The number of the sentence that each token of the prediction is in, from 0, [N, P]."""
        return np.cumsum(self.prediction.is_end, 1) - self.prediction.is_end

    @cached_property
    def is_name(self) -> Array:
        """Capitals in the prediction other than a sentence's first letter, [N, P]."""
        starts = np.pad(self.prediction.is_end, ((0, 0), (1, 0)), constant_values=True)[:, :-1]
        return self.prediction.is_capital & ~starts

    @cached_property
    def hits(self) -> Array:
        """Where a wanted word stands in the prediction, [N, P]."""
        return (self.is_hit & self.wanted[:, :, None]).any(1)

    @cached_property
    def first(self) -> Array:
        return np.where(self.hits.any(1), self.hits.argmax(1), NOWHERE)

    @cached_property
    def last(self) -> Array:
        return np.where(self.hits, np.arange(self.hits.shape[1]), -1).max(1)


def _or_all(some: Array, every: Array) -> Array:
    return np.where(some.any(1)[:, None], some, every)


def _same_numbers(one: Side, other: Side) -> Array:
    """Which numbers of two texts are the same, [N, T, T]."""
    return one.number[:, :, None] == other.number[:, None, :]


def _letters(difference: Array) -> Array:
    """How many letters two words share from the side whose bytes come first, 0 to 8, by the XOR of those bytes."""
    return sum(((difference >> np.uint64(8 * (8 - n))) == 0).astype(np.int16) for n in range(1, 9))


def _same_stem(one: Side, other: Side) -> Array:
    is_pair = one.is_word[:, :, None] & other.is_word[:, None, :]
    return (one.table.stem[one.rows][:, :, None] == other.table.stem[other.rows][:, None, :]) & is_pair
