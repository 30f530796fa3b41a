"""Completions: self-edits that were written elsewhere, by another model or by hand, and which task each is for.

    [{"title", "context", "completions": ["…", "…"]}]        the form in which SEAL's authors published theirs
    {"id": "notes/3", "completion": "…"}                     JSONL, a row a line
    {"title": "Otrar", "completions": ["…"]}                 where one task has this title

A row names its task by "id", by "title" and "context", or by "title" alone. White space and the underscores of SQuAD's
titles make no difference. Other fields are passed over.

    found = read_completions(Path("gpt4.json"))
    texts, missing = match(found, tasks, n=1)
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfedit.errors import InputError
from selfedit.sources.datasets import read_rows
from selfedit.sources.files import leaving_out
from selfedit.sources.rows import Row
from selfedit.types import Task

Key = tuple[str, ...]

_FORM = '{"title", "context", "completions": ["…"]} or {"id", "completion": "…"}'
_NAMED = 3  # how many of those that lack something a message names


@dataclass(frozen=True, slots=True)
class Completions:
    """What a file holds: the texts of each row by what the row names its task with, and a sentence for what is `bad`.

    `name` is the file's with a digest of its content: the same string, the same completions.
    """

    name: str
    texts: Mapping[Key, tuple[str, ...]]
    bad: tuple[str, ...] = ()


def read_completions(path: Path, skip_bad: bool = False) -> Completions:
    """Read a JSON or JSONL file of completions.

    Raises `InputError` for a row that names no task, that holds no completion with a word in it, or that names the task
    of another row; with `skip_bad` such rows are left out and named in `bad`, and it raises only where nothing is left.
    """
    bad: list[str] | None = [] if skip_bad else None
    texts: dict[Key, tuple[str, ...]] = {}
    places: dict[Key, str] = {}
    for row in read_rows(path, bad):
        with leaving_out(bad):
            key = _key(row)
            if key in places:
                raise InputError(f"{row.where} is for {_named(key)}, and so is {places[key]}; keep one of them")
            texts[key], places[key] = _texts(row, bad), row.where
    if not texts:
        raise InputError(f"no row of {str(path)!r} holds a completion{f': {bad[0]}' if bad else ''}")
    digest = hashlib.sha256(json.dumps([[*key, *value] for key, value in texts.items()]).encode()).hexdigest()
    return Completions(f"{path.name}@{digest[:12]}", texts, tuple(bad or ()))


def match(found: Completions, tasks: Sequence[Task], n: int) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Give each task's first `n` completions by its id, and for each task with fewer a sentence that says so."""
    titles = [_spaced(task.title) for task in tasks]
    count = Counter(titles)
    texts: dict[str, tuple[str, ...]] = {}
    lacking: dict[str, str] = {}
    for task, title in zip(tasks, titles, strict=True):
        keys: list[Key] = [(task.id,), (title, _spaced(task.context))]
        keys += [("", title)] if count[title] == 1 else []
        held = next((found.texts[key] for key in keys if key in found.texts), ())
        if len(held) < n:
            lacking[task.id] = f"{found.name} holds {len(held)} of the {n} completions that {task.id!r} needs"
        texts[task.id] = held[:n]
    return texts, lacking


def refuse_lacking(lacking: Mapping[str, str], n_tasks: int) -> None:
    """Raise `InputError` that counts and names the tasks without completions, if there are any."""
    if lacking:
        named = ", ".join(repr(task_id) for task_id in list(lacking)[:_NAMED])
        more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
        raise InputError(
            f"{len(lacking)} of {n_tasks} tasks have no or too few completions ({named}{more}): "
            f"{next(iter(lacking.values()))}; add them, or leave these tasks unmeasured with skip_bad=true"
        )


def _key(row: Row) -> Key:
    """Name the task of a row: (id,), (title, context) or ("", title)."""
    if not isinstance(row.value, Mapping):
        raise InputError(f"{row.where} is no object; expected {_FORM}")
    named, title, context = (row.value.get(field) for field in ("id", "title", "context"))
    if isinstance(named, str | int) and str(named).strip():
        return (str(named),)
    if not isinstance(title, str) or not title.strip():
        raise InputError(f"{row.where} names no task by its id or title; expected {_FORM}")
    return (_spaced(title), _spaced(context)) if isinstance(context, str) and context.strip() else ("", _spaced(title))


def _texts(row: Row, bad: list[str] | None) -> tuple[str, ...]:
    """Return a row's completions with a word in them; what has none is as bad as a row without any."""
    given: Any = row.value.get("completions", row.value.get("completion"))
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, Sequence) or not texts or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{row.where} has no list of texts under 'completions'; expected {_FORM}")
    usable = []
    for number, text in enumerate(texts, 1):
        with leaving_out(bad):
            if not any(character.isalnum() for character in text):
                raise InputError(f"completion {number} of {row.where} holds no usable line; write one or remove it")
            usable.append(text)
    if not usable:
        raise InputError(f"{row.where} holds no completion with a usable line")
    return tuple(usable)


def _spaced(text: str) -> str:
    return " ".join((text if " " in text else text.replace("_", " ")).split())


def _named(key: Key) -> str:
    return repr(key[0] or key[1])
