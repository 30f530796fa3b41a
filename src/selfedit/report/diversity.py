"""How varied the self-edits of a writer are: distinct lines, distinct n-grams, self-BLEU. Pure.

A writer that is reinforced on its own best self-edits may end by writing one of them again and again. Then lines and
n-grams come twice (distinct-n, arXiv 1510.03055), and every text is a good translation of the others (self-BLEU, arXiv
1802.01886): within a passage, where drafts should differ in what they say, and over all passages, where only the names
in a mould differ.

    found = variety({"passage 1": ["first draft", "second draft"], "passage 2": ["draft"]})

All of it depends on how much there is: the more texts, the fewer are distinct, and the likelier one resembles another.
So compare only samples of as many passages and drafts, as those of two rounds are.

Self-BLEU is BLEU-4 of a text with all others as its references, clipped by the reference that has an n-gram most often,
closest length first, and a precision of 0 counted as 0.1 matches (method 1 of Chen & Cherry 2014): what NLTK computes,
in time that grows with the texts and not with their pairs.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from selfedit.report.lines import lines_of

Gram = tuple[str, ...]
ORDER = 4  # BLEU-4
_SMALL = 0.1  # matches in place of none
_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Variety:
    """How long and how varied the self-edits of one writer are; shares and self-BLEU in [0, 1].

    `lines` and `words` are means over self-edits. `distinct_lines`, `distinct_1` and `distinct_2` are different ones
    over all: lines, words, pairs of words. `alike_passage` is the mean self-BLEU among the drafts of one passage, None
    where no passage has two; `alike_all` that among all self-edits, None below two. None of no text.
    """

    n_edits: int
    lines: float | None
    words: float | None
    distinct_lines: float | None
    distinct_1: float | None
    distinct_2: float | None
    alike_passage: float | None
    alike_all: float | None


def variety(edits_by_passage: Mapping[str, Sequence[str]]) -> Variety:
    """Measure self-edits, given by the passage that they are on."""
    drafts = [[tokens_of(text) for text in edits] for edits in edits_by_passage.values()]
    texts = [text for edits in edits_by_passage.values() for text in edits]
    tokens = [each for found in drafts for each in found]
    lines = [line for text in texts for line in lines_of(text)]
    within = [mean for found in drafts if (mean := self_bleu(found)) is not None]
    return Variety(
        n_edits=len(texts),
        lines=len(lines) / len(texts) if texts else None,
        words=fmean(map(len, tokens)) if texts else None,
        distinct_lines=_distinct(lines),
        distinct_1=_distinct(gram for each in tokens for gram in _grams(each, 1)),
        distinct_2=_distinct(gram for each in tokens for gram in _grams(each, 2)),
        alike_passage=fmean(within) if within else None,
        alike_all=self_bleu(tokens),
    )


def tokens_of(text: str) -> list[str]:
    """Cut a text into words and signs, in lower case."""
    return _TOKEN.findall(text.lower())


def self_bleu(texts: Sequence[Sequence[str]]) -> float | None:
    """Average the BLEU of each tokenised text against all others; None below two. A text without tokens has 0."""
    if len(texts) < 2:
        return None
    counts = [[Counter(_grams(text, n)) for n in range(1, ORDER + 1)] for text in texts]
    tops = [_two_highest(counts_N[n] for counts_N in counts) for n in range(ORDER)]
    lengths = Counter(map(len, texts))
    return fmean(_bleu(len(text), counts[i], tops, i, lengths) for i, text in enumerate(texts))


Top = tuple[int, int, int]
"""Of an n-gram: its highest count in a text, which text that is, and the highest count in any other."""


def _two_highest(counts: Iterable[Counter[Gram]]) -> dict[Gram, Top]:
    tops: dict[Gram, Top] = {}
    for i, found in enumerate(counts):
        for gram, count in found.items():
            first, owner, second = tops.get(gram, (0, -1, 0))
            tops[gram] = (count, i, first) if count > first else (first, owner, max(second, count))
    return tops


def _bleu(
    length: int, counts: Sequence[Counter[Gram]], tops: Sequence[Mapping[Gram, Top]], i: int, lengths: Counter[int]
) -> float:
    """exp(1 - r / c) for c < r, times the geometric mean of clipped precisions (Papineni et al. 2002)."""
    matched = [
        sum(min(count, _elsewhere(top[gram], i)) for gram, count in own.items())
        for own, top in zip(counts, tops, strict=True)
    ]
    if not matched[0]:
        return 0.0
    precisions = [(hits or _SMALL) / max(1, length - n) for n, hits in enumerate(matched)]
    closest = min((r for r in lengths if r != length or lengths[r] > 1), key=lambda r: (abs(r - length), r))
    brevity = min(0.0, 1 - closest / length)
    return math.exp(brevity + fmean(map(math.log, precisions)))


def _elsewhere(top: Top, i: int) -> int:
    first, owner, second = top
    return second if owner == i else first


def _grams(tokens: Sequence[str], n: int) -> list[Gram]:
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


def _distinct(found: Iterable[object]) -> float | None:
    held = list(found)
    return len(set(held)) / len(held) if held else None
