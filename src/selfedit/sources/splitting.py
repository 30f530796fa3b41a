"""Cutting a text that a model cannot take whole where its author would cut it.

    pieces = split_document(text, "Guide", lambda piece: len(piece) <= 2000)

Pieces are spans of the text, so that nothing can be lost between them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from selfedit.errors import InputError

_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.+?)[ \t]*(?:[ \t]#+[ \t]*)?$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")

Fits = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a document, with a title that says where in the document it stands."""

    title: str
    text: str


def split_document(text: str, title: str, fits: Fits) -> tuple[Piece, ...]:
    """Cut a text at headings, then paragraphs, then sentences, then lines, no finer than needed.

    `fits` says whether a text is short enough; it is shown a piece as it is trained on, the title in the first line.
    A piece is titled by the headings that it stands under ("Title — Heading — Subheading"); the pieces in order are the
    whole text, save for the white space between them. Raises `InputError` for a sentence that does not fit.
    """
    return tuple(_Cutter(text, title, fits, headings(text), PROSE).pieces())


def split_lines(text: str, title: str, fits: Fits) -> tuple[Piece, ...]:
    """Cut what has neither headings nor sentences, such as code, at blank lines, then lines, no finer than needed.

    Every piece has the same title. Raises `InputError` for a line that does not fit.
    """
    return tuple(_Cutter(text, title, fits, [], LINES).pieces())


# ── headings and cuts ──


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading line at text[start:end]."""

    start: int
    end: int
    level: int
    title: str


def headings(text: str) -> list[Heading]:
    """Find Markdown's # headings, those inside code fences excepted."""
    found: list[Heading] = []
    fence, start = "", 0
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence) and not line[mark.end() :].strip():
            fence = ""
        elif not fence and (heading := _HEADING.match(line)):
            found.append(Heading(start, start + len(line), len(heading[1]), heading[2].strip()))
        start += len(line) + 1
    return found


_Span = tuple[int, int]

# A paragraph begins after a blank line; its indentation belongs to it.
_PARAGRAPH = re.compile(r"\n(?:[^\S\n]*\n)+")
_SENTENCE = re.compile(r"(?<=[.!?])[\"'\u201d\u2019)\]]*\s+|(?<=[\u3002\uff01\uff1f])")
_LINE = re.compile(r"\n")
_BLANK_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")


@dataclass(frozen=True, slots=True)
class _Grains:
    """Where a part may begin, coarse to fine, and what the finest part worth learning is called."""

    breaks: tuple[re.Pattern[str], ...]
    finest: str


PROSE = _Grains((_PARAGRAPH, _SENTENCE, _LINE), "sentence")
LINES = _Grains((_PARAGRAPH, _LINE), "line")


class _Cutter:
    """One text being cut. Parts are spans of it, so that nothing can be lost between them."""

    def __init__(self, text: str, title: str, fits: Fits, headings: Sequence[Heading], grains: _Grains) -> None:
        self.text = text
        self.title = title
        self.fits = fits
        self.headings = headings
        self.grains = grains

    def pieces(self) -> Iterator[Piece]:
        for span in self._cut((0, len(self.text)), 1):
            piece = self._piece(span)
            if piece.text:
                yield piece

    def _piece(self, span: _Span) -> Piece:
        return Piece(self._title(span), trim(self.text[slice(*span)]))

    def _fits(self, span: _Span) -> bool:
        piece = self._piece(span)
        return not piece.text or self.fits(f"{piece.title}\n{piece.text}")

    def _title(self, span: _Span) -> str:
        """Join the document's title and the headings that all words of the span stand under."""
        here = self._first_words(span)
        above: list[Heading] = []
        for heading in (h for h in self.headings if h.start < span[1]):
            above = [h for h in above if h.level < heading.level]
            if heading.start < here:
                above.append(heading)
        return " — ".join([self.title, *(h.title for h in above)])

    def _cut(self, span: _Span, level: int) -> Iterator[_Span]:
        """Cut at headings of `level` and above, and what does not fit then one level deeper."""
        if self._fits(span):
            yield span
        elif level <= 6:
            starts = [h.start for h in self.headings if h.level <= level]
            for part in _parts(span, self._below_words(span, starts)):
                yield from self._cut(part, level + 1)
        else:
            yield from self._pack(span, 0)

    def _pack(self, span: _Span, grain: int) -> Iterator[_Span]:
        """Cut at the breaks of one grain, join neighbours again while they fit, and cut finer what does not fit."""
        if grain == len(self.grains.breaks):
            raise InputError(self._too_long(span))
        held = (span[0], span[0])
        starts = [match.end() for match in self.grains.breaks[grain].finditer(self.text, *span)]
        is_last = grain == len(self.grains.breaks) - 1
        for part in _parts(span, starts if is_last else self._below_words(span, starts)):
            if self._fits((held[0], part[1])):
                held = (held[0], part[1])
                continue
            yield held
            held = part
            if not self._fits(part):
                yield from self._pack(part, grain + 1)
                held = (part[1], part[1])
        yield held

    def _below_words(self, span: _Span, starts: Sequence[int]) -> list[int]:
        """Leave out the starts that would part a heading from what it stands above."""
        first = self._first_words(span)
        return [start for start in starts if start > first]

    def _first_words(self, span: _Span) -> int:
        """Find where a span's first words are that are no heading; its end if there are none."""
        here, end = span
        while here < end:
            heading = next((h for h in self.headings if h.start <= here < h.end), None)
            if heading:
                here = heading.end
            elif self.text[here].isspace():
                here += 1
            else:
                return here
        return end

    def _too_long(self, span: _Span) -> str:
        whole = self._piece(span).text.strip()
        start = whole if len(whole) <= 60 else f"{whole[:60]}…"
        return (
            f"a {self.grains.finest} of {self.title!r} is too long to be learned in one piece: {start!r}; break it up"
        )


def trim(text: str) -> str:
    """Take off blank lines at both ends and white space at the end; the first line keeps its indentation."""
    return _BLANK_LINES.sub("", text.rstrip())


def _parts(span: _Span, starts: Sequence[int]) -> list[_Span]:
    return list(pairwise([span[0], *(start for start in starts if span[0] < start < span[1]), span[1]]))
