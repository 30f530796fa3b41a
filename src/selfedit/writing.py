"""Bulk writing: self-edits for a whole corpus, as training data for any trainer.

    {"text": "Title\\nA fact.", "source": "notes.md", "format": "rewrite", "edit": 0, "seed": 0, "writer": "pup@…"}

A line is one training text, or as `messages` a user's turn with the title and the assistant's with the text; a text
that is there already is not written twice. Beside FILE lies FILE.progress, a line a batch with the size of FILE after
it: what a kill left behind is cut off again and written anew, so that the file ends up as if nobody had stopped it. Of
n shards, each into a file of its own, shard i has the sources whose id falls to it.

    job = make_job("notes", load_recipe("clean", ["model=…"]), Path("notes.jsonl"))
    totals = write_corpus(job)
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from selfedit.engine.base import find_device, half_fits
from selfedit.errors import ConfigError, InputError, RunError, boundary
from selfedit.experiment.writers import Writers, open_writers
from selfedit.loop.inner import Written, is_bad_edit, propose
from selfedit.recipe import Recipe, recipe_hash
from selfedit.runs import write_atomic
from selfedit.sources.datasets import read_dataset
from selfedit.sources.documents import Documents, cut_task, read_folder
from selfedit.tasks.base import Domain
from selfedit.tasks.knowledge import over_documents
from selfedit.types import Failure, Task

AT_ONCE = 32  # sources: enough for a batch, and what a kill can cost
LONGEST_FOR_A_SERVER = 12_000  # characters of a piece, some 3,000 tokens: a server's tokenizer is not here to ask
Layout = Literal["text", "messages"]


@dataclass(frozen=True, slots=True)
class Totals:
    """What was written so far, this time and before. `duplicates` are texts that were there, `unusable` self-edits of
    which nothing could be read, `failed` sources for which nothing could be written, `why` in the first case; they are
    tried again next time.
    `tokens` and `seconds` are of the sampling; a server that gives no token ids counts for 0 tokens."""

    sources: int = 0
    lines: int = 0
    duplicates: int = 0
    unusable: int = 0
    failed: int = 0
    tokens: int = 0
    seconds: float = 0.0
    why: str = ""

    @property
    def pace(self) -> str:
        """How fast the writer is, in words; of one whose tokens are not known, in lines."""
        if not self.seconds:
            return ""
        unit, n = ("tokens", self.tokens) if self.tokens else ("lines", self.lines)
        return f"{n / self.seconds:,.0f} {unit}/s"

    def plus(self, other: Totals) -> Totals:
        """Add up, field by field."""
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Totals(**sums | {"why": self.why or other.why})


Progress = Callable[[int, int, Totals], None]  # sources done, sources in all, what came of them


@dataclass(frozen=True, slots=True)
class Job:
    """A corpus to write self-edits for: `shard` (i, n) is the i-th of n parts, counted from 1."""

    documents: Documents
    recipe: Recipe
    to: Path
    layout: Layout = "text"
    shard: tuple[int, int] = (1, 1)

    @property
    def tasks(self) -> list[Task]:
        """The sources of this shard, in their order."""
        i, n = self.shard
        return [task for task in self.documents.tasks if int(_digest(task.id), 16) % n == i - 1]


def make_job(source: str, recipe: Recipe, to: Path, layout: str = "text", shard: str = "1/1") -> Job:
    """Read the sources and the settings of a job, as they are given on a command line.

    Raises `ConfigError` for a layout or shard that is none, `InputError` for sources that cannot be used.
    """
    if layout not in get_args(Layout):
        raise ConfigError(f"a line is written as {' or '.join(get_args(Layout))}, not as {layout!r}")
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    i, n = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= i <= n:
        raise ConfigError(f"the shard is {shard!r}; expected I/N with I from 1 to N, such as 2/8")
    return Job(read_sources(source, recipe), recipe, to, cast(Layout, layout), (i, n))


def read_sources(source: str, recipe: Recipe) -> Documents:
    """Read a folder of documents, cut to what the writer's context holds, or a data set; ids are unique.

    Raises `InputError` for what cannot be used, or leaves it out and names it where the recipe says `skip_bad`.
    """
    path = Path(source)
    if not path.is_dir():
        return read_dataset(source, recipe.data_split or None, recipe.skip_bad)
    found = read_folder(path, recipe.skip_bad)
    fits = _fits_a_server if recipe.writer.url else half_fits(recipe.writer.model or recipe.model)
    return replace(found, tasks=tuple(piece for task in found.tasks for piece in cut_task(task, fits)))


def _fits_a_server(text: str) -> bool:
    return len(text) <= LONGEST_FOR_A_SERVER


def write_corpus(job: Job, device: str = "auto", progress: Progress | None = None) -> Totals:
    """Write what is missing of a job; killed and started again, it goes on. `progress` hears of every batch.

    Raises `InputError` for a shard without sources, `RunError` for a file of another job or of somebody's, and whatever
    opening the writer raises.
    """
    tasks = job.tasks
    if not tasks:
        raise InputError(f"shard {job.shard[0]} of {job.shard[1]} has none of the {len(job.documents.tasks)} sources")
    writers = open_writers(job.recipe, None, find_device(device))
    domain = over_documents(
        tasks, job.recipe.format, job.recipe.inner, job.recipe.split_lines, job.recipe.template, job.recipe.menu
    )
    with _open_output(job, writers) as output:
        totals = output.totals
        missing = [task for task in tasks if _key(task) not in output.done]
        n_done, n_all = len(tasks) - len(missing), len(tasks)
        for start in range(0, len(missing), AT_ONCE):
            batch = missing[start : start + AT_ONCE]
            started = time.monotonic()
            written = propose(batch, domain, writers.begins, writers.writes, job.recipe.sample, job.recipe.seed)
            found = [_read(task, edits, domain) for task, edits in zip(batch, written, strict=True)]
            totals = output.add(batch, found, time.monotonic() - started)
            n_done += len(batch)
            if progress:
                progress(n_done, n_all, totals)
    return totals


@dataclass(frozen=True, slots=True)
class _Source:
    """What a source gave: (edit, text) of every training text, how much was unusable, how many tokens were drawn."""

    texts: list[tuple[int, str]]
    unusable: int
    tokens: int
    failure: str = ""


def _read(task: Task, written: Written, domain: Domain) -> _Source:
    """Read the usable self-edits of a source. What breaks for no fault of the model's fails the source."""
    if isinstance(written, Failure):
        return _Source([], 0, 0, written.message)
    texts: list[tuple[int, str]] = []
    unusable = 0
    for number, sample in enumerate(written):
        with boundary("parse") as caught:
            texts += [(number, example.text) for example in domain.parse(task, sample).examples]
        if caught.failure and not is_bad_edit(caught.failure):
            return _Source([], 0, 0, caught.failure.message)
        unusable += caught.failure is not None
    return _Source(texts, unusable, sum(len(sample.tokens) for sample in written))


# ── the file and its progress ──


@dataclass(slots=True)
class _Output:
    """The file being written. `done` are the keys of sources that are in it, `known` the digests of its texts."""

    job: Job
    writer: str
    size: int
    done: set[str]
    known: set[str]
    totals: Totals

    @property
    def progress(self) -> Path:
        return _beside(self.job.to)

    def add(self, tasks: Sequence[Task], found: Sequence[_Source], seconds: float) -> Totals:
        """Write what a batch gave; on the disk before its line of progress is. Return the totals of all batches."""
        lines, n_texts = [], 0
        for task, source in zip(tasks, found, strict=True):
            n_texts += len(source.texts)
            lines += [self._line(task, edit, text) for edit, text in source.texts if self._is_new(text)]
        batch = Totals(
            sources=sum(not source.failure for source in found),
            lines=len(lines),
            duplicates=n_texts - len(lines),
            unusable=sum(source.unusable for source in found),
            failed=sum(bool(source.failure) for source in found),
            tokens=sum(source.tokens for source in found),
            seconds=seconds,
            why=next((source.failure for source in found if source.failure), ""),
        )
        self.size += _append(self.job.to, "".join(lines))
        done = [_key(task) for task, source in zip(tasks, found, strict=True) if not source.failure]
        kept = replace(batch, failed=0, why="")  # they are tried again
        _append(self.progress, json.dumps({"done": done, "size": self.size, **asdict(kept)}) + "\n")
        self.done |= set(done)
        self.totals = self.totals.plus(batch)
        return self.totals

    def _is_new(self, text: str) -> bool:
        digest = _text_digest(text)
        is_new = digest not in self.known
        self.known.add(digest)
        return is_new

    def _line(self, task: Task, edit: int, text: str) -> str:
        recipe = self.job.recipe
        turns = [{"role": "user", "content": task.title}, {"role": "assistant", "content": _under(task.title, text)}]
        said = {"text": text} if self.job.layout == "text" else {"messages": turns}
        origin = {"source": task.id, "format": recipe.format, "edit": edit, "seed": recipe.seed, "writer": self.writer}
        return json.dumps(said | origin, ensure_ascii=False) + "\n"


@contextmanager
def _open_output(job: Job, writers: Writers) -> Iterator[_Output]:
    """Take up a job's file where it was left, or begin it; another's is refused."""
    about = {
        "recipe": recipe_hash(writers.recipe),
        "writer": writers.name,
        "layout": job.layout,
        "shard": list(job.shard),
    }
    progress = _beside(job.to)
    try:
        job.to.parent.mkdir(parents=True, exist_ok=True)
        if not progress.exists():
            if job.to.exists():
                raise RunError(f"{str(job.to)!r} exists and was not written by `selfedit write`; give another file")
            write_atomic(progress, json.dumps(about) + "\n")
        yield _taken_up(job, writers.name, about, progress)
    except OSError as error:
        raise RunError(f"cannot write {str(job.to)!r}: {error.strerror}") from error


def _taken_up(job: Job, writer: str, about: dict[str, Any], progress: Path) -> _Output:
    """Read the whole lines of the progress, and cut the file back to what they tell of."""
    *whole, torn = progress.read_text(encoding="utf-8").split("\n")
    try:
        header, *batches = [json.loads(line) for line in whole]
        size = batches[-1]["size"] if batches else 0
        done = {key for batch in batches for key in batch["done"]}
        counted = [Totals(**{f.name: batch[f.name] for f in fields(Totals)}) for batch in batches]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{str(progress)!r} is damaged; give another file, or delete both and begin again") from error
    differing = [key for key, value in about.items() if header.get(key) != value]
    if differing:
        raise RunError(f"{str(job.to)!r} was begun with another {' and '.join(differing)}; give another file")
    if torn:
        os.truncate(progress, len("".join(f"{line}\n" for line in whole).encode()))
    job.to.touch()
    if job.to.stat().st_size < size:
        raise RunError(f"{str(job.to)!r} is shorter than it was; restore it, or delete it and {progress.name!r}")
    os.truncate(job.to, size)
    known = {_text_digest(_text_of(json.loads(line))) for line in _lines_of(job.to)}
    totals = Totals()
    for batch in counted:
        totals = totals.plus(batch)
    return _Output(job, writer, size, done, known, totals)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.progress")


def _append(path: Path, text: str) -> int:
    """Append to a file and see it to the disk; return how many bytes it were."""
    data = text.encode()
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return len(data)


def _lines_of(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        yield from file


def _text_of(row: dict[str, Any]) -> str:
    """The text of a line, as it was before it became turns."""
    if "text" in row:
        return str(row["text"])
    title, text = (turn["content"] for turn in row["messages"])
    return f"{title}\n{text}"


def _under(title: str, text: str) -> str:
    return text.removeprefix(f"{title}\n")


def _key(task: Task) -> str:
    return f"{task.id}@{_digest(task.title, task.context)}"


def _text_digest(text: str) -> str:
    return _digest(" ".join(text.split()).casefold())


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
