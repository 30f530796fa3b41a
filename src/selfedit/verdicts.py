"""A judge's verdicts on the disk, so that none is paid for twice: in a run, in one that goes on, in a file of answers.

    verdicts.jsonl   {"key": "5f0c…", "correct": true} a line, append-only; no text of a question or an answer

A verdict is known by what was asked: `verdict_key`. Several processes may write one file at once, since a line is one
write at its end; a line that a kill has torn is passed over, and the next one does not grow together with it. What was
no verdict is not here, so that it is asked again.

    verdicts = Verdicts(Path("runs/demo/verdicts.jsonl"))
    verdicts.add(verdict_key(model, extra, prompt), True)
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from selfedit.errors import RunError


def verdict_key(model: str, extra: Mapping[str, Any], prompt: str) -> str:
    """Digest what decides a verdict: the model's name, what goes into every request, the whole prompt."""
    return hashlib.sha256(json.dumps([model, dict(extra), prompt], sort_keys=True).encode()).hexdigest()


class Verdicts:
    """The verdicts of one file: all that were there, and with `refresh` those that others have added since."""

    def __init__(self, path: Path) -> None:
        """Open the file, or begin one. Raises `RunError` where it cannot be written."""
        self._path = path
        self._known: dict[str, bool] = {}
        self._read_to = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append(b"")
        except OSError as error:
            raise RunError(f"cannot keep a judge's verdicts in {path}: {error.strerror or error}") from error
        self.refresh()

    def get(self, key: str) -> bool | None:
        """Return what was decided; None where nothing was."""
        return self._known.get(key)

    def add(self, key: str, correct: bool) -> None:
        """Write down a verdict; it is in the file when this returns. A full disk raises `OSError`."""
        self._append(json.dumps({"key": key, "correct": correct}).encode() + b"\n")
        self._known[key] = correct

    def refresh(self) -> None:
        """Read what has been written since the last time, by whichever process."""
        with FileIO(self._path) as file:
            file.seek(self._read_to)
            new = file.readall()
        whole = new[: new.rfind(b"\n") + 1]
        self._read_to += len(whole)
        self._known |= dict(filter(None, map(_read, whole.splitlines())))

    def _append(self, line: bytes) -> None:
        with FileIO(self._path, "a+") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            is_torn = end > 0 and file.read(1) != b"\n"
            rest = b"\n" + line if is_torn else line
            while rest:  # a disk that fills up takes a part of the line first
                rest = rest[file.write(rest) :]


def _read(line: bytes) -> tuple[str, bool] | None:
    try:
        row = json.loads(line)
        key, correct = row["key"], row["correct"]
    except (ValueError, KeyError, TypeError):
        return None
    return (key, correct) if isinstance(key, str) and isinstance(correct, bool) else None
