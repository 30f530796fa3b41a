"""A run folder: the ledger of an experiment, from which everything about it is computed.

    recipe.json     the resolved recipe, its hash, the base model's id, the versions of what ran
    trials.jsonl    one `Trial` a line, append-only
    exams.jsonl     one `Exam` a line, where the model wrote its own
    samples.jsonl   the self-edits as they were drawn, by the key of the request
    metrics.jsonl   {"name": "reward/mean", "value": 0.5, "step": 1}

A line is on the disk before `append` returns, so a kill or a power cut costs the unit in progress and nothing else.
Opening the folder again cuts a last line that was torn, and a trial counts once per key, so that nothing need be run
twice. Text is written in ASCII with escapes, so that what is read equals what was written, odd characters included.

    with open_run(folder, recipe, engine.base) as run:
        if key not in run.trials():
            run.append(trial)
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from io import FileIO
from pathlib import Path
from typing import Any, Self, TypeVar

from selfedit.errors import RunError
from selfedit.recipe import NOT_IN_HASH, Recipe, recipe_hash
from selfedit.types import Exam, Failure, Question, Sample, Score, Trial, lost_a_mark

R = TypeVar("R")

_LEDGERS = ("trials.jsonl", "exams.jsonl", "samples.jsonl", "metrics.jsonl")
_PACKAGES = ("selfedit", "torch", "transformers", "peft")


@dataclass(frozen=True, slots=True)
class Header:
    """What a run folder says about itself. `versions` holds one record for every set of versions that wrote to it."""

    hash: str
    base: str
    recipe: Mapping[str, Any]
    versions: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured number under a slash name, such as "reward/mean". What `step` counts goes with the name."""

    name: str
    value: float
    step: int


class Run:
    """A run folder that this process holds the lock of. Made by `open_run`; close it, or use it in a `with`."""

    def __init__(self, folder: Path, lock: FileIO) -> None:
        self.folder = folder
        self._lock = lock
        self._trials = read_trials(folder)
        self._exams = read_exams(folder)
        self._samples = read_drawn(folder)
        self._metrics = set(read_metrics(folder))
        self._listeners: list[Callable[[Metric], None]] = []

    def append(self, trial: Trial) -> None:
        """Write a trial. One whose key is there is left out, unless the earlier one failed before it was measured."""
        if _counts(trial, self._trials):
            self._write("trials.jsonl", trial)
            self._trials[trial.key] = trial

    def trials(self) -> dict[str, Trial]:
        """Return the trials by key, in the order in which the keys first appeared."""
        return dict(self._trials)

    def save_exam(self, exam: Exam) -> None:
        """Write an exam. The first of a task stands, unless it failed."""
        if _stands(exam, self._exams):
            self._write("exams.jsonl", exam)
            self._exams[exam.task_id] = exam

    def exams(self) -> dict[str, Exam]:
        """Return the exams that the model wrote itself, by task."""
        return dict(self._exams)

    def save_samples(self, key: str, samples: Sequence[Sample]) -> None:
        """Write what a request drew. A key that is there keeps what it has, unless more was drawn now."""
        if key not in self._samples or len(samples) > len(self._samples[key]):
            self._write("samples.jsonl", {"key": key, "samples": list(samples)})
            self._samples[key] = tuple(samples)

    def drawn(self) -> dict[str, tuple[Sample, ...]]:
        """Return what the requests so far drew, by their keys."""
        return dict(self._samples)

    def metric(self, name: str, value: float, step: int) -> None:
        """Write one measured number. What stands there to the same value is left out: a run that was taken up again
        tells it once more."""
        metric = Metric(name, value, step)
        if metric not in self._metrics:
            self._write("metrics.jsonl", metric)
            self._metrics.add(metric)
            for heard in self._listeners:
                heard(metric)

    def listen(self, heard: Callable[[Metric], None]) -> None:
        """Call `heard` with every metric from now on, once it is written."""
        self._listeners.append(heard)

    def close(self) -> None:
        """Give the lock back. Closing twice is no error."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _write(self, ledger: str, record: Any) -> None:
        with _writing(self.folder):
            _append_line(self.folder / ledger, json.dumps(record, default=_fields).encode("ascii") + b"\n")


def open_run(folder: Path, recipe: Recipe, base: str) -> Run:
    """Start a run in `folder`, or continue the one that is there.

    Raises `RunError` if the folder holds a run of another recipe or base, if another process is writing it, or if it
    cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; a run needs a folder")
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = _take_lock(folder)
    try:
        _write_header(folder, recipe, base)
        for ledger in _LEDGERS:
            _cut_torn_line(folder / ledger)
        return Run(folder, lock)
    except BaseException:
        lock.close()
        raise


def read_header(folder: Path) -> Header | None:
    """Read what a run folder says about itself; None if nothing was started there. Needs no lock."""
    path = folder / "recipe.json"
    if not path.exists():
        return None
    try:
        plain = json.loads(path.read_bytes())
        return Header(plain["hash"], plain["base"], plain["recipe"], tuple(plain["versions"]))
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged; restore it or choose another folder") from error


def read_trials(folder: Path) -> dict[str, Trial]:
    """Read a run's trials by key, as far as they are written. Needs no lock, so that a run can be watched."""
    trials: dict[str, Trial] = {}
    for trial in _records(folder / "trials.jsonl", _trial):
        if _counts(trial, trials):
            trials[trial.key] = trial
    return trials


def read_exams(folder: Path) -> dict[str, Exam]:
    """Read the exams that the model of a run wrote itself, by task. Needs no lock."""
    exams: dict[str, Exam] = {}
    for exam in _records(folder / "exams.jsonl", _exam):
        if _stands(exam, exams):
            exams[exam.task_id] = exam
    return exams


def read_drawn(folder: Path) -> dict[str, tuple[Sample, ...]]:
    """Read what the requests of a run drew, by their keys. Needs no lock."""
    return dict(_records(folder / "samples.jsonl", _drawn))


def count_trials_written(folder: Path) -> int:
    """Count the lines of a run's ledger without reading them as trials: fast enough to be asked twice a second."""
    path = folder / "trials.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def read_seconds(folder: Path) -> float:
    """Add up how many seconds a run took, over all the times it was taken up (its metric "time/run_s")."""
    return sum(metric.value for metric in read_metrics(folder) if metric.name == "time/run_s")


def read_metrics(folder: Path) -> list[Metric]:
    """Read a run's metrics in the order in which they were written. Needs no lock."""
    return list(_records(folder / "metrics.jsonl", _metric))


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that whoever opens it, at any time, sees all of the old content or all of the new."""
    content = data.encode("utf-8") if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _writing(path.parent):
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


# ── the header ──


def _write_header(folder: Path, recipe: Recipe, base: str) -> None:
    found = read_header(folder)
    plain = json.loads(json.dumps(recipe, default=_fields))
    if found:
        _refuse_another(folder, found, recipe, plain, base)
    elif any((folder / ledger).exists() for ledger in _LEDGERS):
        raise RunError(f"{folder} holds trials but no recipe.json to say of what; restore it or choose another folder")
    earlier = found.versions if found else ()
    versions = _versions()
    header = Header(recipe_hash(recipe), base, plain, earlier if versions in earlier else (*earlier, versions))
    if header != found:
        write_atomic(folder / "recipe.json", json.dumps(header, default=_fields, indent=2) + "\n")


def _refuse_another(folder: Path, found: Header, recipe: Recipe, plain: Mapping[str, Any], base: str) -> None:
    if found.base != base:
        raise RunError(
            f"{folder} holds a run of the model {found.base!r}, not of {base!r}; choose another folder, or that model"
        )
    if found.hash != recipe_hash(recipe):
        differences = "; ".join(_differences(found.recipe, plain)) or "written by another version of selfedit"
        raise RunError(
            f"{folder} holds a run of another recipe ({differences}); choose another folder, or the settings it has"
        )


def _differences(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in dict.fromkeys([*there, *here]):
        old, new = there.get(key), here.get(key)
        if prefix + key in NOT_IN_HASH:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key} is {old!r} there, {new!r} here"


def _versions() -> dict[str, str]:
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


# ── records as lines of JSON ──


def _fields(value: Any) -> Any:
    """Give `json` the fields of a record, or the entries of a mapping that is no dict."""
    if is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no place in a run's ledger")


def _trial(row: dict[str, Any]) -> Trial:
    return Trial(
        **row
        | {
            "sample": _sample(row["sample"]) if row["sample"] else None,
            "before_Q": tuple(Score(**score) for score in row["before_Q"]),
            "after_Q": tuple(Score(**score) for score in row["after_Q"]),
            "failure": Failure(**row["failure"]) if row["failure"] else None,
        }
    )


def _sample(row: dict[str, Any]) -> Sample:
    return Sample(**row | {field: tuple(row[field]) for field in ("prompt_tokens", "tokens", "logprobs")})


def _drawn(row: dict[str, Any]) -> tuple[str, tuple[Sample, ...]]:
    return row["key"], tuple(_sample(sample) for sample in row["samples"])


def _exam(row: dict[str, Any]) -> Exam:
    questions = tuple(Question(**question) for question in row["questions"])
    return Exam(**row | {"questions": questions, "failure": Failure(**row["failure"]) if row["failure"] else None})


def _stands(exam: Exam, exams: Mapping[str, Exam]) -> bool:
    """Say whether `exam` is news: its task has none, or one that failed."""
    earlier = exams.get(exam.task_id)
    return earlier is None or earlier.failure is not None


def _metric(row: dict[str, Any]) -> Metric:
    return Metric(row["name"], float(row["value"]), int(row["step"]))


def _counts(trial: Trial, trials: Mapping[str, Trial]) -> bool:
    """Say whether `trial` is news: its key is new, or its predecessor failed for a reason that was not the model's, or
    it has a mark that the predecessor lost."""
    earlier = trials.get(trial.key)
    if earlier is None or (earlier.failure is not None and earlier.reward is None):
        return True
    return trial.reward is not None and lost_a_mark(earlier)


# ── lines that survive a kill ──


def _append_line(path: Path, line: bytes) -> None:
    """Put a line on the disk, or leave the file as it was."""
    with FileIO(path, "a") as file:
        start = file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(line)
            while rest:  # a disk that fills up takes a part of the line first
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(start)
            raise


def _records(path: Path, decode: Callable[[dict[str, Any]], R]) -> Iterator[R]:
    """Read a ledger's whole lines. A torn last line is passed over; any other that cannot be read is a `RunError`."""
    content = path.read_bytes() if path.exists() else b""
    for number, line in enumerate(content[: _whole_length(content)].splitlines(), 1):
        try:
            record = decode(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"line {number} of {path} cannot be read; remove it, and what it held is run again"
            ) from error
        yield record


def _whole_length(content: bytes) -> int:
    """Count the bytes before a torn last line: one without its newline, or with gaps where the power went off."""
    end = content.rfind(b"\n") + 1
    start = content.rfind(b"\n", 0, max(end - 1, 0)) + 1
    try:
        json.loads(content[start:end] or "{}")
    except ValueError:
        return start
    return end


def _cut_torn_line(path: Path) -> None:
    content = path.read_bytes() if path.exists() else b""
    if _whole_length(content) < len(content):
        os.truncate(path, _whole_length(content))


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Word what the system says against writing in `folder`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"the disk that holds {folder} is full; free some space on it and give the same command again: "
                "nothing that was written is lost, and the run goes on where it stopped"
            ) from error
        raise RunError(f"cannot write to {folder}: {error.strerror or error}") from error


# ── one writer ──

if sys.platform == "win32":
    import msvcrt

    def _lock_file(file: FileIO) -> None:
        file.seek(1 << 20)  # beyond the process id, which others must be able to read
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock_file(file: FileIO) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _take_lock(folder: Path) -> FileIO:
    """Hold the run's lock. The system frees it with the process, so that a killed run leaves no stale one behind.

    The file itself stays: its content, the holder's process id, is for the reader alone.
    """
    with _writing(folder):
        lock = FileIO(folder / "lock", "a+")
        try:
            _lock_file(lock)
            lock.truncate(0)
            lock.write(str(os.getpid()).encode())
        except OSError as error:
            lock.seek(0)
            holder = lock.read().decode()
            lock.close()
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise
            raise RunError(
                f"{folder} is being written by process {holder}; wait until it has ended, or choose another folder"
            ) from error
    return lock
