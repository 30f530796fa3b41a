"""Grading a file: every line of answers back in its order, with what a grader says of it.

    {"question": "Where?", "gold": "Otrar", "prediction": "In the town of Otrar.", "id": 7}
    {"question": "Where?", "gold": "Otrar", "prediction": "In the town of Otrar.", "id": 7, "probability": 0.98,
     "correct": true}

All other keys are kept; a "probability" or "correct" that was there is replaced. The grader `calibrated` gives the
probability that GPT-4.1 would say correct, and null for "correct" where it is not sure, unless it is to decide them
all. The others have no probability (null). Rules call a mark from 0.5 up correct; a judge says so itself, or null where
the call failed or it said neither, and `calibrated+judge` asks it only where `calibrated` is not sure. A line without a
gold answer has null for both. Files named .gz are compressed. Nothing is left at the target unless all lines were
graded, and memory holds a batch at a time; a judge's verdicts are kept beside the target (`verdicts.jsonl`), so that
grading again, after a kill or because calls failed, asks only for those that are missing.

    grade_file(Path("answers.jsonl.gz"), "calibrated", Path("graded.jsonl"))
"""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from selfedit.errors import ConfigError, InputError
from selfedit.judges import check_grader, open_grader
from selfedit.tasks.base import Grader
from selfedit.tasks.judge import FAILED, REFUSED
from selfedit.types import ExamSettings, JudgeSettings, Question, Score

AT_ONCE = 8192  # lines
KEYS = ("question", "gold", "prediction")


@dataclass(frozen=True, slots=True)
class Graded:
    """How many lines were graded, and how they were found. `open` counts the others by what kept them undecided, and
    `example` is what the server said to the first of the calls that failed."""

    correct: int = 0
    wrong: int = 0
    open: Mapping[str, int] = field(default_factory=dict)
    example: str = ""

    @property
    def undecided(self) -> int:
        return sum(self.open.values())

    @property
    def lines(self) -> int:
        return self.correct + self.wrong + self.undecided


def grade_file(
    source: Path, grader: str, to: Path, decide_all: bool = False, judge: JudgeSettings | None = None
) -> Graded:
    """Grade the lines of `source` into `to`; return the counts.

    Raises `ConfigError` for an unknown grader or a judge that it does not ask, `ModelError` for a server that is not
    there, and `InputError` for a file or line that cannot be used, or a target that cannot be written.
    """
    judge = judge or JudgeSettings()
    check_grader(grader, judge)  # said before anything is read
    if judge != JudgeSettings() and not ExamSettings(grader).asks_judge:
        raise ConfigError(
            f"a judge is named and the grader {grader!r} asks none; choose --grader judge or calibrated+judge"
        )
    if to.is_dir() or not to.absolute().parent.is_dir():
        raise InputError(f"cannot write to {str(to)!r}; name a file in a folder that exists")
    if to.exists() and to.samefile(source):
        raise InputError(f"{str(to)!r} is the file to grade itself; name another one for --out")
    grade = open_grader(grader, judge, to.absolute().parent)
    verdicts: Counter[bool] = Counter()
    undecided: Counter[str] = Counter()
    examples: list[str] = []
    with _whole(to) as target:
        unread = read_rows(source)
        while rows := list(islice(unread, AT_ONCE)):
            for row, score in zip(rows, _scores(rows, grade), strict=True):
                found = _found(score, grader == "calibrated", decide_all)
                target.write(json.dumps(row | found, ensure_ascii=False) + "\n")
                if found["correct"] is None:
                    undecided[score.why.partition(": ")[0]] += 1
                    examples += [score.why] if score.why.startswith((FAILED, REFUSED)) and not examples else []
                else:
                    verdicts[found["correct"]] += 1
        counts = Graded(verdicts[True], verdicts[False], dict(undecided.most_common()), "".join(examples))
        if not counts.lines:
            raise InputError(f"there is no line in {str(source)!r}; expected one {_expected()} a line")
    return counts


def _scores(rows: Sequence[Mapping[str, Any]], grade: Grader) -> list[Score]:
    questions = [Question(row["question"], row["gold"]) for row in rows]
    return grade(questions, [row["prediction"] for row in rows])


def _found(score: Score, is_probability: bool, decide_all: bool) -> dict[str, Any]:
    """Return what a line gets. A probability is a verdict where the grader is sure, or all are to be decided."""
    mark = score.value
    if mark is None:
        return {"probability": None, "correct": None}
    if not is_probability:
        return {"probability": None, "correct": mark >= 0.5}
    return {"probability": round(mark, 4), "correct": mark >= 0.5 if decide_all else _verdict(mark)}


def _verdict(probability: float) -> bool | None:
    from selfedit.tasks.calibrated import load_calibrated

    return load_calibrated().verdict(probability)


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
