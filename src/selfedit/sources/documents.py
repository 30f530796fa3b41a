"""A folder of documents: one task for each Markdown or text file, with the questions that lie beside them.

    notes/
      handbook.md        its first heading is the task's title, its path the task's id
      meetings/may.txt   without a heading the title comes from the file's name
      questions.jsonl    {"question": "Who …?", "answer": "Ada", "source": "handbook.md"}

Everything is read or refused with the file and the line; nothing is skipped in silence: `Documents.skipped` lists the
files of other kinds. `split_document` cuts a document that a model cannot take whole where its author would cut it.

    documents = read_folder(Path("notes"))

`write_folder` writes such a folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from selfedit.errors import InputError, near_miss
from selfedit.types import Question, Task

SUFFIXES = (".md", ".txt")
QUESTIONS = "questions.jsonl"

_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.+?)[ \t]*(?:[ \t]#+[ \t]*)?$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


@dataclass(frozen=True, slots=True)
class Documents:
    """What a folder holds: a task for each document, and the paths, relative to the folder, of files of other kinds."""

    tasks: tuple[Task, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a document, with a title that says where in the document it stands."""

    title: str
    text: str


def read_folder(folder: Path) -> Documents:
    """Read every `*.md` and `*.txt` below `folder`, hidden ones excepted, in the order of their paths.

    Raises `InputError` for a folder, document or question that cannot be used.
    """
    if not folder.exists():
        raise InputError(f"there is no folder {str(folder)!r}")
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is a file; give the folder that it lies in")
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    names = sorted(name for name in paths if not any(part.startswith(".") for part in name.split("/")))
    readable = [name for name in names if paths[name].suffix.lower() in SUFFIXES]
    if not readable:
        raise InputError(f"there is no .md or .txt file in the folder {str(folder)!r}")
    tasks = [_read_document(paths[name], name) for name in readable]
    if QUESTIONS in names:
        tasks = _with_questions(tasks, paths[QUESTIONS])
    return Documents(tuple(tasks), tuple(n for n in names if n not in readable and n != QUESTIONS))


def split_document(text: str, title: str, fits: Callable[[str], bool]) -> tuple[Piece, ...]:
    """Cut a text at headings, then paragraphs, then sentences, then lines, no finer than needed.

    `fits` says whether a text is short enough; it is shown a piece as it is trained on, the title in the first line.
    A piece is titled by the headings that it stands under ("Title — Heading — Subheading"); the pieces in order are the
    whole text, save for the white space between them. Raises `InputError` for a sentence that does not fit.
    """
    return tuple(_Cutter(text, title, fits).pieces())


def write_folder(folder: Path, tasks: Sequence[Task]) -> None:
    """Write each task as a Markdown file under its title, with all questions in a file beside them.

    Raises `InputError` if `folder` holds anything already or cannot be written.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"the folder {str(folder)!r} is not empty; give a new one")
    asked: list[dict[str, str]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, task in _file_names(tasks).items():
            (folder / name).write_text(f"# {task.title}\n\n{task.context}\n", encoding="utf-8")
            asked += [{"question": q.question, "answer": q.answer, "source": name} for q in task.questions]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in asked)
        (folder / QUESTIONS).write_text(lines, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write to {str(folder)!r}: {error.strerror}") from error


# ── documents ──


def _read_document(path: Path, name: str) -> Task:
    text = _read_text(path)
    title, context = _take_title(text) if path.suffix.lower() == ".md" else ("", text)
    if not context.strip():
        what = "holds a heading and no text" if title else "is empty"
        raise InputError(f"the document {str(path)!r} {what}; write something in it or remove it")
    return Task(name, title or _readable(path.stem), context.strip())


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{str(path)!r} is not UTF-8 text: see line {line}; save it as UTF-8 or remove it") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{str(path)!r} is not text: line {line} holds a NUL byte; remove it from the folder")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _take_title(text: str) -> tuple[str, str]:
    """Return the first top heading, or any heading that opens the text, and the text without it; "" for no title."""
    opening = len(text) - len(text.lstrip())
    for heading in _headings(text):
        if heading.level == 1 or heading.start <= opening:
            return heading.title, text[: heading.start] + text[heading.end :]
    return "", text


def _readable(stem: str) -> str:
    words = re.sub(r"[-_\s]+", " ", stem).strip() or stem
    return words[:1].upper() + words[1:]


def _file_names(tasks: Sequence[Task]) -> dict[str, Task]:
    """Name each task's file after its title, with a number where two tasks have the same."""
    named: dict[str, Task] = {}
    for task in tasks:
        stem = re.sub(r"[^\w]+", "-", task.title.lower()).strip("-") or "document"
        names = (f"{stem}{number}.md" for number in ("", *(f"-{i}" for i in range(2, len(tasks) + 2))))
        named[next(name for name in names if name not in named)] = task
    return named


# ── questions ──


def _with_questions(tasks: Sequence[Task], path: Path) -> list[Task]:
    asked: dict[str, list[Question]] = {task.id: [] for task in tasks}
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        if line.strip():
            where = f"line {number} of {str(path)!r}"
            row = _read_row(line, where)
            asked[_place(row["source"], asked, where)].append(Question(row["question"], row["answer"]))
    return [replace(task, questions=tuple(asked[task.id])) for task in tasks]


def _read_row(line: str, where: str) -> Mapping[str, str]:
    form = '{"question": "…", "answer": "…", "source": "handbook.md"}'
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is not JSON; expected {form}") from error
    if not isinstance(row, dict):
        raise InputError(f"{where} is not an object; expected {form}")
    for field in ("question", "answer", "source"):
        if not isinstance(row.get(field), str) or not row[field].strip():
            raise InputError(f"{where} has no text under {field!r}; expected {form}")
    return row


def _place(source: str, ids: Mapping[str, object], where: str) -> str:
    """Find the document that `source` means: its relative path, or its file name where only one document has it."""
    if source in ids:
        return source
    named = [path for path in ids if path.rpartition("/")[2] == source]
    if not named:
        raise InputError(f"{where} names an unknown source {source!r}; {near_miss(source, ids)}")
    if len(named) > 1:
        raise InputError(f"{where} names {source!r}, which may be {' or '.join(named)}; give the path")
    return named[0]


# ── headings and cuts ──


@dataclass(frozen=True, slots=True)
class _Heading:
    """A heading line at text[start:end]."""

    start: int
    end: int
    level: int
    title: str


def _headings(text: str) -> list[_Heading]:
    """Find Markdown's # headings, those inside code fences excepted."""
    found: list[_Heading] = []
    fence, start = "", 0
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence) and not line[mark.end() :].strip():
            fence = ""
        elif not fence and (heading := _HEADING.match(line)):
            found.append(_Heading(start, start + len(line), len(heading[1]), heading[2].strip()))
        start += len(line) + 1
    return found


_Span = tuple[int, int]

# Where a part may begin, coarse to fine: after a blank line, after a sentence, on a new line.
_BREAKS = (
    re.compile(r"\n[ \t]*\n\s*"),
    re.compile(r"(?<=[.!?])[\"'\u201d\u2019)\]]*\s+|(?<=[\u3002\uff01\uff1f])"),
    re.compile(r"\n"),
)


class _Cutter:
    """One text being cut. Parts are spans of it, so that nothing can be lost between them."""

    def __init__(self, text: str, title: str, fits: Callable[[str], bool]) -> None:
        self.text = text
        self.title = title
        self.fits = fits
        self.headings = _headings(text)

    def pieces(self) -> Iterator[Piece]:
        for span in self._cut((0, len(self.text)), 1):
            piece = self._piece(span)
            if piece.text:
                yield piece

    def _piece(self, span: _Span) -> Piece:
        return Piece(self._title(span), self.text[slice(*span)].strip())

    def _fits(self, span: _Span) -> bool:
        piece = self._piece(span)
        return not piece.text or self.fits(f"{piece.title}\n{piece.text}")

    def _title(self, span: _Span) -> str:
        """Join the document's title and the headings that all words of the span stand under."""
        here = self._first_words(span)
        above: list[_Heading] = []
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
        """Cut at the breaks of `grain`, join neighbours again while they fit, and cut finer what does not fit alone."""
        if grain == len(_BREAKS):
            raise InputError(self._too_long(span))
        held = (span[0], span[0])
        starts = [match.end() for match in _BREAKS[grain].finditer(self.text, *span)]
        is_last = grain == len(_BREAKS) - 1
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
        sentence = self._piece(span).text
        start = sentence if len(sentence) <= 60 else f"{sentence[:60]}…"
        return f"a sentence of {self.title!r} is too long to be learned in one piece: {start!r}; break it up"


def _parts(span: _Span, starts: Sequence[int]) -> list[_Span]:
    return list(pairwise([span[0], *(start for start in starts if span[0] < start < span[1]), span[1]]))
