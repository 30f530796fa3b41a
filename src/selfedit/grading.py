"""Grading a file: every line of answers back in its order, with what a grader says of it.

    {"question": "Where?", "gold": "Otrar", "prediction": "In the town of Otrar.", "id": 7}
    {"question": "Where?", "gold": "Otrar", "prediction": "In the town of Otrar.", "id": 7, "probability": 0.98,
     "correct": true}

All other keys are kept; a "probability" or "correct" that was there is replaced. The grader `calibrated` gives the
probability that GPT-4.1 would say correct, and null for "correct" where it is not sure, unless it is to decide them
all. The others are rules: they have no probability (null), and a mark from 0.5 up is correct. A line without a gold
answer has null for both. Files named .gz are compressed. Nothing is left at the target unless all lines were graded,
and memory holds a batch at a time.

    grade_file(Path("answers.jsonl.gz"), "calibrated", Path("graded.jsonl"))
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from selfedit.errors import InputError
from selfedit.tasks.graders import load_grader
from selfedit.types import Question

AT_ONCE = 8192  # lines
KEYS = ("question", "gold", "prediction")


@dataclass(frozen=True, slots=True)
class Graded:
    """How many lines were graded, and how they were found; the rest had no gold answer or was left undecided."""

    lines: int = 0
    correct: int = 0
    wrong: int = 0

    @property
    def undecided(self) -> int:
        return self.lines - self.correct - self.wrong


def grade_file(source: Path, grader: str, to: Path, decide_all: bool = False) -> Graded:
    """Grade the lines of `source` into `to`; return the counts.

    Raises `ConfigError` for an unknown grader and `InputError` for a file or line that cannot be used, or a target
    that cannot be written.
    """
    load_grader(grader)  # unknown: say so before anything is read
    if to.is_dir() or not to.absolute().parent.is_dir():
        raise InputError(f"cannot write to {str(to)!r}; name a file in a folder that exists")
    if to.exists() and to.samefile(source):
        raise InputError(f"{str(to)!r} is the file to grade itself; name another one for --out")
    counts = Graded()
    with _whole(to) as target:
        unread = read_rows(source)
        while rows := list(islice(unread, AT_ONCE)):
            for row in grade_rows(rows, grader, decide_all):
                found = row["correct"]
                counts = replace(
                    counts,
                    lines=counts.lines + 1,
                    correct=counts.correct + (found is True),
                    wrong=counts.wrong + (found is False),
                )
                target.write(json.dumps(row, ensure_ascii=False) + "\n")
        if not counts.lines:
            raise InputError(f"there is no line in {str(source)!r}; expected one {_expected()} a line")
    return counts


def grade_rows(rows: Sequence[dict[str, Any]], grader: str, decide_all: bool = False) -> list[dict[str, Any]]:
    """Return the rows with "probability" and "correct"."""
    questions = [Question(row["question"], row["gold"]) for row in rows]
    scores = load_grader(grader)(questions, [row["prediction"] for row in rows])
    marks = [score.value for score in scores]
    if grader != "calibrated":
        return [row | {"probability": None, "correct": _decided(mark)} for row, mark in zip(rows, marks, strict=True)]
    verdicts = [_decided(mark) if decide_all else _verdict(mark) for mark in marks]
    return [
        row | {"probability": mark if mark is None else round(mark, 4), "correct": verdict}
        for row, mark, verdict in zip(rows, marks, verdicts, strict=True)
    ]


def _decided(mark: float | None) -> bool | None:
    return None if mark is None else mark >= 0.5


def _verdict(probability: float | None) -> bool | None:
    from selfedit.tasks.calibrated import load_calibrated

    return None if probability is None else load_calibrated().verdict(probability)


def read_rows(source: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a .jsonl or .jsonl.gz. Raises `InputError`, with the line's number, for one without the keys.

    Blank lines are passed over.
    """
    number = 0
    try:
        with gzip.open(source) if source.suffix == ".gz" else source.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _row(line, f"line {number} of {str(source)!r}")
    except FileNotFoundError:
        raise InputError(f"there is no file {str(source)!r}") from None
    except (gzip.BadGzipFile, EOFError) as error:
        raise InputError(f"{str(source)!r} is no whole .gz file after line {number} ({error})") from error
    except (IsADirectoryError, PermissionError) as error:
        raise InputError(f"cannot read {str(source)!r}: {error.strerror}") from error


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError:
        raise InputError(f"{where} is not UTF-8 text; save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is no JSON ({error}); expected {_expected()}") from None
    if not isinstance(row, dict):
        raise InputError(f"{where} is no object; expected {_expected()}")
    for key in KEYS:
        if not isinstance(row.get(key), str):
            has = "no" if key not in row else "something other than text as"
            raise InputError(f"{where} has {has} {key!r}; expected {_expected()}")
    return row


def _expected() -> str:
    return '{"question": "…", "gold": "…", "prediction": "…"}'


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """Open a file to write that appears under its name when all is written, and not at all after an error."""
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        with (
            gzip.open(unfinished, "wt", encoding="utf-8", newline="\n")
            if path.suffix == ".gz"
            else unfinished.open("w", encoding="utf-8", newline="\n")
        ) as file:
            yield file
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
