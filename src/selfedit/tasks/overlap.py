"""What an answer shares with the gold answer and with the question, as numbers for a grader to learn from.

A base model answers in sentences, so most of an answer repeats the question. What counts is the rest: whether the gold
answer's words are in it (those that the question does not give away, above all), what else is claimed beside them, and
whether they stand where the answer is due. Numbers are compared by value ("nineteenth" and 19), other words by stem or
by their first letters; initials match acronyms. Nothing looks at more than one answer.

    features_NF = overlap(lexicon, ["Where is it?"], ["Otrar"], ["It is in the town of Otrar."])

Axis suffixes: N answers, F features, T tokens: Q of the question, G of the gold answer, P of the prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from selfedit.tasks.alignment import NOWHERE, Block, Side
from selfedit.tasks.words import Array, Lexicon

LONGEST = {"question": 48, "gold": 24, "prediction": 72}  # tokens; what is beyond is not looked at
ROWS = 1024  # answers compared at once, of similar length
FAR = 9.0  # the distance between numbers (natural log of their ratio) where there is none
_ASKS = ("who", "when", "where", "why", "how", "what", "many", "did", "does", "is", "are", "or")
_TO_BE = ("is", "was", "were", "are")

Features = dict[str, Array]


def overlap(lexicon: Lexicon, questions: Sequence[str], golds: Sequence[str], predictions: Sequence[str]) -> Array:
    """Return the features of each answer, [N, F] float32; a row depends on its own three texts alone."""
    cuts = {text: lexicon.rows(text, LONGEST["question"]) for text in set(questions)}
    gold_cuts = {text: lexicon.rows(text, LONGEST["gold"]) for text in set(golds)}
    rows_N = [lexicon.rows(text, LONGEST["prediction"]) for text in predictions]
    order_N = np.argsort([100 * len(rows) + len(gold_cuts[g]) for rows, g in zip(rows_N, golds, strict=True)])
    features_NF = np.zeros((len(predictions), len(names())), np.float32)
    for at in range(0, len(order_N), ROWS):
        block_N = order_N[at : at + ROWS]
        block = Block(
            lexicon,
            Side(lexicon, [cuts[questions[i]] for i in block_N]),
            Side(lexicon, [gold_cuts[golds[i]] for i in block_N]),
            Side(lexicon, [rows_N[i] for i in block_N]),
            [golds[i] for i in block_N],
            [predictions[i] for i in block_N],
        )
        features_NF[block_N] = np.stack(list(_all_features(block).values()), axis=1)
    return features_NF


@cache
def names() -> tuple[str, ...]:
    """Return the features' names, [F]."""
    lexicon = Lexicon({}, 0.0)
    nothing = Side(lexicon, [[]])
    return tuple(_all_features(Block(lexicon, nothing, nothing, nothing, [""], [""])))


def _all_features(block: Block) -> Features:
    return {name: value for group in GROUPS for name, value in group(block).items()}


def recall(b: Block) -> Features:
    """How much of the gold answer is said."""
    wanted, rarity, every = b.wanted, b.gold.rarity, np.arange(len(b.golds))
    rarest = np.where(wanted, rarity, -1).argmax(1)
    first_sentence = (b.likeness * (b.sentence == 0)[:, None, :]).max(2)
    ends = b.gold_content.shape[1] - 1 - b.gold_content[:, ::-1].argmax(1)
    is_same = b.same.any(2)
    missing = (1 - b.found) * rarity * wanted
    capital = b.gold.is_capital & wanted
    return {
        "recall": _share(is_same, b.gold.is_word),
        "recall/stem": _share(b.is_found, b.gold.is_word),
        "recall/content": _share(is_same, b.gold_content),
        "recall/content-soft": _share(b.found, b.gold_content),
        "recall/wanted": _share(b.is_found, wanted),
        "recall/wanted-soft": _share(b.found, wanted),
        "recall/wanted-same": _share(is_same, wanted),
        "recall/rarity": _share(b.found, rarity),
        "recall/wanted-rarity": _share(b.found, rarity * wanted),
        "recall/first-sentence": _share(first_sentence, wanted),
        "recall/least": np.where(wanted, b.found, FAR).min(1),
        "recall/most": np.where(wanted, b.found, 0).max(1),
        "recall/rarest": b.found[every, rarest],
        "recall/first": b.found[every, b.gold_content.argmax(1)],
        "recall/last": b.found[every, ends],
        "recall/names": _share(b.is_found, capital),
        "recall/others": _share(b.is_found, wanted & ~capital),
        "missing": (wanted & ~b.is_found).sum(1),
        "missing/rarity": missing.sum(1),
        "missing/rarest": missing.max(1),
    }


def precision(b: Block) -> Features:
    """What else is said."""
    said, opening = b.prediction, b.sentence == 0
    covered = np.where(said.is_word, b.likeness.max(1), 0)
    return {
        "precision/new": _share(b.is_covered, b.is_new),
        "precision/content": _share(b.is_covered, said.is_content),
        "precision/rarity": _share(covered, said.rarity * b.is_new),
        "precision/first-sentence": _share(b.is_covered, b.is_new & opening),
        "new": b.is_new.sum(1),
        "new/first-sentence": (b.is_new & opening).sum(1),
        "new/rarity": _share(said.rarity, b.is_new),
        "new/names": (b.is_name & b.is_new).sum(1),
        "extra": b.is_extra.sum(1),
        "extra/names": (b.is_name & b.is_extra).sum(1),
        "extra/rarity": ((1 - covered) * said.rarity * b.is_new).sum(1),
        "extra/likeness": (covered * b.is_extra).max(1),
    }


def form(b: Block) -> Features:
    """The sizes of the three texts and what sort of question and gold answer they are."""
    gold, said, asks = b.gold, b.prediction, b.question
    ends = np.where(said.is_end, np.arange(said.rows.shape[1]), -1).max(1)
    last_word = np.where(said.is_word, np.arange(said.rows.shape[1]), -1).max(1)
    length = np.array([len(text) for text in b.golds])
    return {
        "gold/words": gold.is_word.sum(1),
        "gold/content": b.gold_content.sum(1),
        "gold/wanted": (b.gold_content & ~b.is_asked).sum(1),
        "gold/length": length,
        "gold/names": _share(gold.is_capital, b.gold_content),
        "gold/numbers": gold.is_number.sum(1),
        "gold/numeric": _share(gold.is_number, b.gold_content),
        "gold/years": gold.is_year.any(1),
        "gold/month": gold.any(gold.table.month > 0),
        "gold/rarity": _share(gold.rarity, b.gold_content),
        "gold/rarest": (gold.rarity * b.wanted).max(1),
        "gold/given": ~(b.gold_content & ~b.is_asked).any(1),
        "gold/content-less": ~gold.is_content.any(1),
        "said/words": said.is_word.sum(1),
        "said/content": said.is_content.sum(1),
        "said/length": np.array([len(text) for text in b.predictions]),
        "said/sentences": (b.sentence * said.is_word).max(1),
        "said/ended": said.is_end.any(1) & (ends >= last_word),
        "said/commas": np.array([text.count(",") for text in b.predictions]),
        "said/lines": np.array([text.count("\n") for text in b.predictions]),
        "said/question": np.array(["?" in text for text in b.predictions]),
        "said/quotes": np.array([text.count('"') for text in b.predictions]),
        **{f"asks/{word}": asks.is_one_of(b.lexicon, [word]).any(1) for word in _ASKS},
    }


def echo(b: Block) -> Features:
    """How much of the question is said again: where its names are missing, another question is answered."""
    asks, is_said = b.question, b.echoes.any(2)
    names = asks.is_capital & asks.is_content & (np.arange(asks.rows.shape[1]) > 0)
    return {
        "echo": _share(b.is_echo, b.prediction.is_content),
        "echo/words": _share(is_said, asks.is_word),
        "echo/rarity": _share(is_said, asks.rarity * asks.is_content),
        "echo/names": np.where(names.any(1), _share(is_said, names), -1),
        "unsaid/names": (names & ~is_said).sum(1),
        "unsaid/numbers": (asks.is_number & ~is_said).sum(1),
    }


def place(b: Block) -> Features:
    """Where the gold answer's words stand, and what stands beside them."""
    said, every, is_there = b.prediction, np.arange(len(b.golds)), b.first < NOWHERE
    at, last = np.minimum(b.first, said.rows.shape[1] - 1), np.maximum(b.last, 0)
    sentence = (b.sentence == b.sentence[every, at][:, None]) & said.is_word
    new, extra, again = (np.cumsum(of, 1) for of in (b.is_new, b.is_extra, b.is_echo & said.is_content))
    is_verb = said.is_one_of(b.lexicon, _TO_BE)
    where = np.arange(said.rows.shape[1])
    said_there = (b.echoes & sentence[:, None, :]).any(2)

    def there(value: Array) -> Array:
        return np.where(is_there, value, -1)

    around = {"before": at - 1, "before-that": at - 2, "after": last + 1, "after-that": last + 2}
    is_stop = said.is_word & ~said.is_content
    kinds = {"stop": is_stop, "new": b.is_new, "name": b.is_name, "echo": b.is_echo & said.is_content}
    return {
        "place": b.first,
        "place/share": b.first / np.maximum(said.is_word.sum(1), 1),
        "place/last": b.last,
        "place/sentence": there(b.sentence[every, at]),
        "place/span": np.where(is_there, b.last - b.first + 1, 0) - b.wanted.sum(1),
        "place/run": (run := _longest_run(b.same | (b.likeness >= 0.95))),
        "place/run-share": run / np.maximum(b.gold.is_word.sum(1), 1),
        "place/new-before": there(new[every, at] - b.is_new[every, at]),
        "place/new-after": there(new[:, -1] - new[every, at]),
        "place/extra-before": there(extra[every, at]),
        "place/echo-before": there(again[every, at] / np.maximum(again[:, -1], 1)),
        "place/verb-before": there((is_verb & (where < at[:, None])).sum(1)),
        "place/verb-after": there((is_verb & sentence & (where > last[:, None])).sum(1)),
        "sentence/echo": there(_share(said_there, b.question.is_content)),
        "sentence/echo-rarity": there(_share(said_there, b.question.rarity * b.question.is_content)),
        "sentence/extra": there((b.is_extra & sentence).sum(1)),
        "sentence/extra-names": there((b.is_extra & b.is_name & sentence).sum(1)),
        "sentence/extra-numbers": there((_new_numbers(b) & ~b.same_number.any(1) & sentence).sum(1)),
        "sentence/negation": (said.table.is_negation[said.rows] & said.is_word & (np.abs(where - b.first[:, None]) < 5))
        .any(1),
        **{
            f"{side}/{kind}": np.where(is_there, _look(is_kind, spot), -1)
            for side, spot in around.items()
            for kind, is_kind in kinds.items()
        },
    }  # fmt: skip


def numbers(b: Block) -> Features:
    """Whether the numbers agree, and if not, how far apart they are and whether a bound ("over 20") is kept."""
    gold, said, new = b.gold, b.prediction, _new_numbers(b)
    is_same = b.same_number
    size, of_gold = (np.log(np.abs(side.number) + 1e-3).astype(np.float32) for side in (said, gold))
    apart = np.abs(size[:, None, :] - of_gold[:, :, None])
    apart = np.minimum(np.where(np.isnan(apart), np.float32(FAR), apart), np.float32(FAR))
    least = np.where(gold.is_number, gold.number, np.inf).min(1)
    most = np.where(gold.is_number, gold.number, -np.inf).max(1)
    above = (new & (said.number > most[:, None])).any(1) & gold.is_number.any(1)
    below = (new & (said.number < least[:, None])).any(1) & gold.is_number.any(1)
    within = (said.number >= least[:, None]) & (said.number <= most[:, None])
    bounds = {"least": 1, "most": -1, "about": 2}
    given = {name: gold.any(gold.table.bound == code) for name, code in bounds.items()}
    first = np.where(new.any(1), is_same.any(1)[np.arange(len(new)), new.argmax(1)], -1)
    gold_month, said_month = (side.table.month[side.rows] * side.is_word for side in (gold, said))
    return {
        "numbers/found": _share(is_same.any(2), gold.is_number),
        "numbers/right": _share(is_same.any(1), new),
        "numbers/first": first,
        "numbers/said": said.is_number.sum(1),
        "numbers/new": new.sum(1),
        "numbers/years": (new & said.is_year).sum(1),
        "numbers/apart": apart.min((1, 2)),
        "numbers/new-apart": np.where(new[:, None, :], apart, FAR).min((1, 2)),
        "numbers/within": within.any(1) & (gold.is_number.sum(1) > 1),
        "numbers/above": above,
        "numbers/below": below,
        "numbers/bound-kept": np.where(
            gold.is_number.any(1) & new.any(1), (above & given["least"]) | (below & given["most"]), -1
        ),
        "months/found": ((gold_month[:, :, None] == said_month[:, None, :]) & (gold_month > 0)[:, :, None]).any((1, 2)),
        "months/said": (said_month > 0).any(1),
        **{f"gold/{name}": given[name] for name in bounds},
        **{f"said/{name}": said.any(said.table.bound == code) for name, code in bounds.items()},
    }


def wording(b: Block) -> Features:
    """Negations, doubts, lists, percentages, acronyms, and whether one text holds the other."""
    gold, said = b.gold, b.prediction
    opening = said.is_word & (b.sentence == 0)
    bare = {text: _bare(text) for text in {*b.golds}}
    bare_pairs = [(bare[gold], _bare(prediction)) for gold, prediction in zip(b.golds, b.predictions, strict=True)]
    percent, either, both = ("%", "percent"), ("or",), ("and",)
    return {
        "words/negations": (said.table.is_negation[said.rows] & said.is_word).sum(1),
        "words/negated": (said.table.is_negation[said.rows] & opening).any(1),
        "words/gold-negations": (gold.table.is_negation[gold.rows] & gold.is_word).sum(1),
        "words/asked-negations": (b.question.table.is_negation[b.question.rows] & b.question.is_word).sum(1),
        "words/hedges": (said.table.is_hedge[said.rows] & said.is_word & ~b.is_echo).sum(1),
        "words/yes": said.is_one_of(b.lexicon, ["yes"])[:, 0],
        "words/no": said.is_one_of(b.lexicon, ["no"])[:, 0],
        "words/or": said.is_one_of(b.lexicon, either).sum(1),
        "words/and": said.is_one_of(b.lexicon, both).sum(1),
        "words/gold-or": gold.is_one_of(b.lexicon, either).sum(1),
        "words/gold-and": gold.is_one_of(b.lexicon, both).sum(1),
        "words/percent": said.is_one_of(b.lexicon, percent).any(1),
        "words/gold-percent": gold.is_one_of(b.lexicon, percent).any(1),
        "acronym/gold": _spelt_out(gold, said, b.lexicon),
        "acronym/said": _spelt_out(said, gold, b.lexicon),
        "acronym/there": gold.any(gold.table.is_acronym) + 2 * said.any(said.table.is_acronym),
        "text/holds": np.array([gold in prediction for gold, prediction in bare_pairs]),
        "text/held": np.array([prediction in gold for gold, prediction in bare_pairs]),
    }


GROUPS: tuple[Callable[[Block], Features], ...] = (recall, precision, form, echo, place, numbers, wording)


def _share(part: Array, of: Array) -> Array:
    """The weighted mean of `part` under `of`, by row; 0 where nothing weighs."""
    return (part * of).sum(1) / np.maximum(of.sum(1), 1e-6)


def _longest_run(is_same: Array) -> Array:
    """The most gold words that stand side by side and in order in the prediction, [N], from [N, G, P]."""
    longest, run = np.zeros(len(is_same)), np.zeros((is_same.shape[0], is_same.shape[2]))
    for g in range(is_same.shape[1]):
        run[:, 1:] = run[:, :-1].copy()
        run[:, 0] = 0
        run = (run + 1) * is_same[:, g]
        longest = np.maximum(longest, run.max(1))
    return longest


def _bare(text: str) -> str:
    return text.lower().replace(" ", "").replace("-", "").strip(".")


def _look(is_kind: Array, spot: Array) -> Array:
    """What stands at each row's `spot`, [N]; False beyond the ends."""
    inside = (spot >= 0) & (spot < is_kind.shape[1])
    return is_kind[np.arange(len(spot)), np.where(inside, spot, 0)] & inside


def _new_numbers(b: Block) -> Array:
    return b.prediction.is_number & ~b.is_echo


def _spelt_out(short: Side, long: Side, lexicon: Lexicon) -> Array:
    """Whether an acronym of one text is the initials of words of the other, [N]. Stop words are skipped."""
    found = np.zeros(len(short.rows), bool)
    is_initial = long.is_word & ~(long.table.is_stop[long.rows] & (long.table.length[long.rows] > 1))
    for n, t in np.argwhere(short.table.is_acronym[short.rows] & short.is_word):
        letters = bytes(ord(c) % 251 or 1 for c in lexicon.spellings[short.rows[n, t]])
        found[n] |= letters in long.table.initial[long.rows[n][is_initial[n]]].tobytes()
    return found
