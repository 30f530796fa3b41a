"""The judge's verdicts: reading them, putting equal answers together, dividing them by question.

    verdicts = read_verdicts(Path("gpt41_verdicts.jsonl.gz"))
    answers = distinct(verdicts)

Axis suffixes: N lines of the file, M distinct answers.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from selfedit.errors import InputError
from selfedit.tasks.words import Array

FIELDS = ("title", "question", "gold", "prediction", "correct")
By = Literal["question", "title"]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The lines of a file of verdicts, as they stand in it, and the digest of the file."""

    rows_N: tuple[dict[str, Any], ...]
    sha256: str

    @property
    def correct_N(self) -> Array:
        return np.array([row["correct"] for row in self.rows_N], bool)


@dataclass(frozen=True, slots=True)
class Answers:
    """Each (title, question, gold, prediction) once: how often it was judged, and the share of verdicts "correct"."""

    keys_M: tuple[tuple[str, str, str, str], ...]
    count_M: Array
    share_M: Array
    line_to_answer_N: Array

    @property
    def texts(self) -> tuple[list[str], list[str], list[str]]:
        """Questions, gold answers and predictions, [M] each."""
        _, questions, golds, predictions = zip(*self.keys_M, strict=True)
        return list(questions), list(golds), list(predictions)

    def take(self, is_taken_M: Array) -> Answers:
        keys_M = tuple(key for key, is_taken in zip(self.keys_M, is_taken_M, strict=True) if is_taken)
        return Answers(keys_M, self.count_M[is_taken_M], self.share_M[is_taken_M], np.zeros(0, np.int64))


def read_verdicts(path: Path) -> Verdicts:
    """Read a .jsonl.gz of verdicts. Raises `InputError` for what is none."""
    try:
        packed = path.read_bytes()
        rows = [json.loads(line) for line in gzip.decompress(packed).decode().splitlines()]
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"cannot read {path}: expected gzipped lines of JSON ({error})") from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not all(name in row for name in FIELDS):
            raise InputError(f"{path} line {number} is no verdict; expected {', '.join(FIELDS)}")
    return Verdicts(tuple(rows), hashlib.sha256(packed).hexdigest())


def distinct(verdicts: Verdicts) -> Answers:
    """Put equal answers together, in the order in which they first stand in the file."""
    places: dict[tuple[str, str, str, str], int] = {}
    keys_N = [(row["title"], row["question"], row["gold"], row["prediction"]) for row in verdicts.rows_N]
    line_to_answer_N = np.array([places.setdefault(key, len(places)) for key in keys_N])
    count_M = np.bincount(line_to_answer_N)
    return Answers(
        tuple(places), count_M, np.bincount(line_to_answer_N, verdicts.correct_N) / count_M, line_to_answer_N
    )


def folds(answers: Answers, n: int, seed: int, by: By = "question") -> Array:
    """Return the fold of each answer, [M]. Answers to one question, however spelt, are in one fold, in any file.

    By "title", all questions on one article are.
    """
    groups_M = [
        _plain(title) if by == "title" else f"{_plain(title)}|{_plain(asked)}" for title, asked, *_ in answers.keys_M
    ]
    groups = sorted(set(groups_M))
    order = np.random.default_rng(seed).permutation(len(groups))
    fold_of = {groups[g]: i % n for i, g in enumerate(order)}
    return np.array([fold_of[group] for group in groups_M])


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
