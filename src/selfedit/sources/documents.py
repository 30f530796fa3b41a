"""A folder of documents: one task for each file that can be read, with the questions that lie beside them.

    notes/
      handbook.md        its first heading is the task's title, its path the task's id
      meetings/may.txt   without a heading the title comes from the file's name
      manual.pdf         so do HTML and PDF (`formats.py`)
      api/client.py      code is titled by its path and cut by function and class (`code.py`)
      questions.jsonl    {"question": "Who …?", "answer": "Ada", "source": "handbook.md"}

Everything is read or refused with the file and the line; nothing is skipped in silence: `Documents.skipped` lists the
files of other kinds, and `skip_bad` turns refusals into the sentences of `Documents.bad`. Hidden files, `node_modules`
and `__pycache__` are nobody's documents; a code file without a word (`__init__.py`) is no document either.

    documents = read_folder(Path("notes"))
    pieces = split_task(documents.tasks[0], lambda text: len(text) <= 2000)

`write_folder` writes such a folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfedit.errors import InputError, near_miss
from selfedit.sources.code import LANGUAGES, read_code, split_code
from selfedit.sources.files import leaving_out, read_text, title_of
from selfedit.sources.formats import READERS, read_page
from selfedit.sources.splitting import Fits, Piece, split_document
from selfedit.types import Question, Task

QUESTIONS = "questions.jsonl"
KINDS = ".md, .txt, .html, .pdf and source code"

_NOT_WRITTEN = {"node_modules", "__pycache__"}


@dataclass(frozen=True, slots=True)
class Documents:
    """What was read: a task for each document, the paths of files of other kinds, and a sentence for what is `bad`.

    `skipped` are relative to the folder. `bad` names the documents and questions that could not be used and were left
    out.
    """

    tasks: tuple[Task, ...]
    skipped: tuple[str, ...]
    bad: tuple[str, ...] = ()


def read_folder(folder: Path, skip_bad: bool = False) -> Documents:
    """Read every document below `folder`, in the order of their paths.

    Raises `InputError` for a folder, document or question that cannot be used, `MissingExtra` where the library for a
    kind of document is missing. With `skip_bad`, such documents and questions are left out and named in `bad`; without
    any good document it still raises.
    """
    paths = _files(folder)
    kinds = READERS.keys() | LANGUAGES.keys()
    readable = [name for name, path in paths.items() if path.suffix.lower() in kinds]
    if not readable:
        raise InputError(f"there is no document in the folder {str(folder)!r}; {KINDS} are read")
    bad: list[str] | None = [] if skip_bad else None
    tasks: dict[str, Task] = {}
    for name in readable:
        with leaving_out(bad):
            tasks |= {task.id: task for task in _read_document(paths[name], name)}
    if not tasks:
        raise InputError(_nothing_good(folder, bad or []))
    if QUESTIONS in paths:
        asked = _read_questions(paths[QUESTIONS], readable, bad)
        tasks = {name: replace(task, questions=tuple(asked[name])) for name, task in tasks.items()}
    skipped = tuple(name for name in paths if name not in readable and name != QUESTIONS)
    return Documents(tuple(tasks.values()), skipped, tuple(bad or ()))


def split_task(task: Task, fits: Fits) -> tuple[Piece, ...]:
    """Cut a task's text as its kind asks: code by function and class, anything else no finer than needed.

    `fits` says whether a text is short enough. Raises `InputError` for a sentence or line that does not fit.
    """
    language = task.meta.get("language")
    if language:
        return split_code(task.context, task.title, fits, language)
    return split_document(task.context, task.title, fits)


def cut_task(task: Task, fits: Fits) -> list[Task]:
    """Cut a document as `split_task` does into tasks of their own, each asked what it can answer; a short one stays.

    A question goes to the piece in which its answer stands; of several, or where it stands in none, to the one that
    shares most words with question and answer. Raises `InputError` as `split_task` does.
    """
    pieces = split_task(task, fits)
    if len(pieces) == 1:
        return [task]
    asked: list[list[Question]] = [[] for _ in pieces]
    for question in task.questions:
        asked[max(range(len(pieces)), key=lambda i: _says(pieces[i].text, question))].append(question)
    return [
        Task(f"{task.id}#{i}", piece.title, piece.text, tuple(asked[i]), {**task.meta, "topic": task.title})
        for i, piece in enumerate(pieces)
    ]


def _says(text: str, question: Question) -> tuple[bool, int]:
    """How well a text answers a question: whether the answer stands in it, and how many of the words do."""
    found = _words(text)
    states = f" {' '.join(_words(question.answer))} " in f" {' '.join(found)} "
    return states, len({*_words(question.question), *_words(question.answer)} & set(found))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


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


def _files(folder: Path) -> dict[str, Path]:
    """Find the files below a folder that somebody wrote, by their paths relative to it, in order."""
    if not folder.exists():
        raise InputError(f"there is no folder {str(folder)!r}")
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is a file; give the folder that it lies in")
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: paths[name] for name in sorted(paths) if all(_is_written(part) for part in name.split("/"))}


def _is_written(name: str) -> bool:
    return not name.startswith(".") and name not in _NOT_WRITTEN


def _read_document(path: Path, name: str) -> list[Task]:
    """Read one document; no task for code without a word."""
    language = LANGUAGES.get(path.suffix.lower())
    if language:
        text = read_code(path, language)
        return [Task(name, name, text, meta={"language": language})] if text else []
    page = read_page(path)
    return [Task(name, page.title or title_of(path.stem), page.text)]


def _nothing_good(folder: Path, bad: Sequence[str]) -> str:
    if not bad:
        return f"the code in the folder {str(folder)!r} is empty; there is nothing to learn"
    others = f", and so with {len(bad) - 1} more" if len(bad) > 1 else ""
    return f"no document in the folder {str(folder)!r} can be used: {bad[0]}{others}"


def _file_names(tasks: Sequence[Task]) -> dict[str, Task]:
    """Name each task's file after its title, with a number where two tasks have the same."""
    named: dict[str, Task] = {}
    for task in tasks:
        stem = re.sub(r"[^\w]+", "-", task.title.lower()).strip("-") or "document"
        names = (f"{stem}{number}.md" for number in ("", *(f"-{i}" for i in range(2, len(tasks) + 2))))
        named[next(name for name in names if name not in named)] = task
    return named


# ── questions ──


def _read_questions(path: Path, ids: Sequence[str], bad: list[str] | None) -> dict[str, list[Question]]:
    """Read the questions of each document; those of a document that was left out go with it."""
    asked: dict[str, list[Question]] = {name: [] for name in ids}
    lines: list[str] = []
    with leaving_out(bad):
        lines = read_text(path).split("\n")
    for number, line in enumerate(lines, 1):
        where = f"line {number} of {str(path)!r}"
        with leaving_out(bad):
            if line.strip():
                row = _read_row(line, where)
                asked[_place(row["source"], asked, where)].append(Question(row["question"], row["answer"]))
    return asked


def _read_row(line: str, where: str) -> Mapping[str, str]:
    form = '{"question": "…", "answer": "…", "source": "handbook.md"}'
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
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
