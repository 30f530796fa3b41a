"""Words as a grader compares them: their stem, their number, whether they carry meaning. Pure, without a model.

`TOKEN` cuts a text into words, numbers, signs and the ends of sentences. A `Lexicon` gives every spelling a row in a
table of columns, so that a batch of texts becomes arrays of row numbers and everything after that is numpy's. What a
row holds depends on its word alone, never on what was read before it.

    lexicon = Lexicon(rarity={"otrar": 9.2}, rarest=10.0)
    rows_NT, is_token_NT = padded([lexicon.rows("In the town of Otrar, in 1219.", longest=72)])
    lexicon.columns().number[rows_NT]

The lists of words below are closed classes of English and spellings of numbers; nothing in them was fitted to data.

Axis suffixes: N texts, T tokens, W words in the table.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

Array = Any  # an array of numpy, whose stubs hold that `any(axis)` may give a scalar and `x + y` anything

TOKEN = re.compile(
    r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?"  # don't
    r"|\d+(?:,\d{3})*(?:\.\d+)?"  # 1,000.5
    r"|[.?!](?=\s|$)|[%$£€°\n]"
)


def _list(words: str) -> list[str]:
    return words.split()


_UNITS = _list(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_TENS = _list("thirty forty fifty sixty seventy eighty ninety")
_ORDINALS = _list(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth"
)
NUMBERS: Mapping[str, float] = (
    {word: float(i) for i, word in enumerate(_UNITS)}
    | {word: 10.0 * i for i, word in enumerate(_TENS, 3)}
    | {word: float(i) for i, word in enumerate(_ORDINALS, 1)}
    | {"once": 1.0, "single": 1.0, "twice": 2.0, "both": 2.0, "couple": 2.0, "double": 2.0, "triple": 3.0, "half": 0.5}
    | {"dozen": 12.0, "hundred": 100.0, "ii": 2.0, "iii": 3.0, "iv": 4.0, "vi": 6.0, "vii": 7.0, "viii": 8.0}
)
SCALES: Mapping[str, float] = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
STOP = frozenset(
    _list(
        """a an the of in on at to for from by with as and or is was were are be been being it its this that these those
    which who whom whose what when where why how did do does has have had his her their he she they him them we us our
    you your i there also such into than then but if not no can could would will may might s over about between during
    through after before under up out more most some any all other one many much very so only each own same"""
    )
)
NEGATIONS = frozenset(
    _list("no not none never neither nor cannot without nothing nobody nowhere lack lacks lacked fail fails failed")
)
HEDGES = frozenset(
    _list(
        """unknown unclear unspecified specify specified mentioned provided sure sorry unable uncertain disputed debated
    possible likely probably perhaps varies vary available information question context passage text"""
    )
)
_MONTHS = _list("january february march april may june july august september october november december")
MONTHS = {m: i for i, m in enumerate(_MONTHS, 1)} | {m[:3]: i for i, m in enumerate(_MONTHS, 1)} | {"sept": 9}
BOUNDS: Mapping[str, int] = {  # 1 at least, -1 at most, 2 about
    **dict.fromkeys(("over", "more", "least", "exceeding", "above", "after"), 1),
    **dict.fromkeys(("under", "less", "fewer", "below", "almost", "nearly", "up", "before"), -1),
    **dict.fromkeys(("about", "approximately", "around", "roughly"), 2),
}
_SUFFIXES = _list(
    """ations ation ities ingly ments ement ment ings ness ists isms ions ates ated ally ical ably ist ism ity ing ies
    ied ion ian ans ors ers est ous ive ful ate als es ed ly er or ic al an s e y"""
)
# The peoples whose names do not begin like their country's.
_PEOPLES: Mapping[str, str] = {
    "french": "france", "dutch": "netherlands", "holland": "netherlands", "greek": "greece", "greeks": "greece",
    "swiss": "switzerland", "welsh": "wales", "danish": "denmark", "danes": "denmark", "dane": "denmark",
    "spanish": "spain", "spaniards": "spain", "polish": "poland", "poles": "poland", "turks": "turkey",
    "turkish": "turkey", "swedes": "sweden", "finnish": "finland", "finns": "finland", "scots": "scotland",
    "irish": "ireland", "british": "britain", "english": "england", "thai": "thailand", "czech": "czechia",
    "us": "america", "usa": "america", "american": "america", "americans": "america",
}  # fmt: skip
_SIGNS = frozenset("%$£€°")
_ENDS = frozenset(".?!\n")
PREFIX = 8  # letters


@dataclass(frozen=True, slots=True)
class Columns:
    """The table of words, [W] each; row 0 is no word.

    `word` and `stem` are numbers that are equal where the words or stems are; `number` is NaN for what is none, and
    `scale` 1 but for "million" and its like. `start` and `end` hold the first and last `PREFIX` letters as integers
    whose high bytes come first, `initial` the first letter's code. `length` is in letters.
    """

    word: Array
    stem: Array
    number: Array
    scale: Array
    start: Array
    end: Array
    length: Array
    initial: Array
    rarity: Array
    month: Array
    bound: Array
    is_stop: Array
    is_capital: Array
    is_acronym: Array
    is_negation: Array
    is_hedge: Array
    is_end: Array


_TYPES = (
    np.int32, np.int32, np.float64, np.float64, np.uint64, np.uint64, np.int16, np.uint8, np.float32, np.int8, np.int8,
    np.bool_, np.bool_, np.bool_, np.bool_, np.bool_, np.bool_,
)  # fmt: skip


class Lexicon(dict[str, int]):
    """From spellings to rows of a table that grows with what is read.

    `rarity` is the inverse document frequency (natural log) of the words that the grader has met, `rarest` that of
    all others.
    """

    def __init__(self, rarity: Mapping[str, float], rarest: float) -> None:
        super().__init__()
        self._rarity, self._rarest = rarity, rarest
        self._words: dict[str, int] = {}
        self._stems: dict[str, int] = {}
        self.spellings = [""]
        self._rows: list[tuple[Any, ...]] = [(0, 0, np.nan, 1.0, 0, 0, 0, 0, 0.0, 0, 0, *[False] * 6)]
        self._columns: Columns | None = None

    def __missing__(self, spelling: str) -> int:
        self[spelling] = row = len(self._rows)
        self._rows.append(self._describe(spelling))
        return row

    def rows(self, text: str, longest: int) -> list[int]:
        """Return the rows of the first `longest` tokens of one text."""
        return list(map(self.__getitem__, TOKEN.findall(text)[:longest]))

    def number_of(self, word: str) -> int:
        """Return the number that stands in `Columns.word` for a word in lower case."""
        return self._words.setdefault(word, len(self._words) + 1)

    def columns(self) -> Columns:
        """Return the table of all words read so far."""
        if self._columns is None or len(self._columns.word) < len(self._rows):
            columns = zip(zip(*self._rows, strict=True), _TYPES, strict=True)
            self._columns = Columns(*(np.array(column, dtype) for column, dtype in columns))
        return self._columns

    def _describe(self, spelling: str) -> tuple[Any, ...]:
        word = plain(spelling)
        self.spellings.append(word)
        stem = stem_of(_PEOPLES.get(word, word))
        letters = _PEOPLES.get(word, word).encode()
        is_letter = len(word) == 1 and word.isalpha() and (spelling.islower() or word in "ai")
        return (
            self.number_of(word),
            self._stems.setdefault(stem, len(self._stems) + 1),
            _number(word),
            SCALES.get(word, 1.0),
            int.from_bytes(letters[:PREFIX].ljust(PREFIX, b"\0")),
            int.from_bytes(letters[::-1][:PREFIX].ljust(PREFIX, b"\0")),
            len(word),
            ord(spelling[0].lower()) % 251 or 1,
            self._rarity.get(word, self._rarest),
            MONTHS.get(word, 0),
            BOUNDS.get(word, 0),
            word in STOP or is_letter,
            spelling[0].isupper(),
            spelling.isupper() and 2 <= len(spelling) <= 5,
            word in NEGATIONS or word.endswith("n't"),
            word in HEDGES,
            word in _ENDS,
        )


def plain(spelling: str) -> str:
    """Put a token into lower case, without accents and without a possessive 's."""
    word = spelling.lower().replace("\u2019", "'")
    if not word.isascii():
        bare = "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))
        word = bare or word
    return word.removesuffix("'s") or word


def stem_of(word: str) -> str:
    """Cut up to two endings off a word, leaving three letters at least. Crude, and the same for both sides."""
    for _ in range(2):
        ending = next((s for s in _SUFFIXES if word.endswith(s) and len(word) - len(s) >= 3), "")
        word = word.removesuffix(ending)
    return word


def padded(rows: Sequence[Sequence[int]]) -> tuple[Array, Array]:
    """Return ragged rows as one array, [N, T], padded with 0, and where they are, [N, T]; T is at least 1."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    is_token_NT = np.arange(max(1, lengths.max(initial=0))) < lengths[:, None]
    rows_NT = np.zeros(is_token_NT.shape, np.int32)
    rows_NT[is_token_NT] = np.fromiter(chain.from_iterable(rows), np.int32, lengths.sum())
    # By column, so that what numpy computes from them lies by column too and sums over the few tokens go along N.
    return np.asfortranarray(rows_NT), np.asfortranarray(is_token_NT)


def _number(word: str) -> float:
    if not word[0].isdigit():
        return NUMBERS.get(word, np.nan)
    try:
        return float(word.replace(",", ""))
    except ValueError:  # digits that Unicode knows and Python's numbers do not, such as a superscript
        return np.nan
