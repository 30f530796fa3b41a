"""Datasets: a file of rows or a dataset of Hugging Face's, each made the tasks that it holds.

    read_dataset("squad/dev-v1.1.json")                  # SQuAD's own form, or a list of rows
    read_dataset("notes.jsonl")                          # a row a line
    read_dataset("rajpurkar/squad", "validation[:200]")  # of the hub, or a local folder or file of `datasets`

What rows may look like says `rows.py`. A task's id is the one that its row names, else "name/row", counted from 1: the
same each time, and the same when another row is left out.

Hugging Face datasets need `pip install 'selfedit[datasets]'`; the two JSON forms need nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from selfedit.errors import InputError, from_extra, near_miss
from selfedit.sources.documents import Documents
from selfedit.sources.files import check_size, leaving_out, read_text, title_of
from selfedit.sources.rows import FORMS, Reading, Row

_JSON = {".json", ".jsonl", ".ndjson"}
_BUILDERS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".arrow": "arrow"}
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def read_dataset(source: str, split: str | None = None, skip_bad: bool = False) -> Documents:
    """Read a JSON or JSONL file, or a Hugging Face dataset by its folder, file or hub id.

    `split` names the split of a Hugging Face dataset, or a part of it ("train[:100]"); it may be left out where there
    is one. Raises `InputError` for a dataset, row or question that cannot be used, with its file and line; with
    `skip_bad`, rows and questions are left out and named in `bad`, and it raises only where nothing is left. Raises
    `MissingExtra` where the library is missing.
    """
    bad: list[str] | None = [] if skip_bad else None
    path = Path(source)
    if path.suffix.lower() in _JSON and not path.is_dir():
        if split is not None:
            raise InputError(f"{source!r} is one file without splits; leave out the split {split!r}")
        rows = read_rows(path, bad)
    else:
        rows = _read_hugging_face(source, split)
    reading = Reading(title_of(path.stem), bad)
    for row in rows:
        reading.read(row)
    if not reading.tasks:
        raise InputError(_nothing_good(source, bad or []))
    return Documents(reading.finished(), (), tuple(bad or ()))


def _nothing_good(source: str, bad: list[str]) -> str:
    if not bad:
        return f"the dataset {source!r} holds no rows"
    others = f", and so with {len(bad) - 1} more" if len(bad) > 1 else ""
    return f"no row of {source!r} can be used: {bad[0]}{others}"


# ── JSON ──


def read_rows(path: Path, bad: list[str] | None) -> list[Row]:
    """Read the rows of a JSON or JSONL file, whatever they hold.

    Raises `InputError` for what is not JSON; where `bad` is a list, lines of JSONL are left out and named in it.
    """
    text = read_text(path)
    if not text.strip():
        raise InputError(f"{str(path)!r} is empty; expected rows with {FORMS}")
    if path.suffix.lower() == ".json" and not _has_a_row_a_line(text):
        return _read_whole(text, path)
    return _read_lines(text, path, bad)


def _has_a_row_a_line(text: str) -> bool:
    """Say whether a text's first two lines are objects by themselves: JSONL, whatever the file is called."""
    lines = [line for line in text.split("\n", 20) if line.strip()][:2]
    try:
        return len(lines) == 2 and all(isinstance(json.loads(line), dict) for line in lines)
    except (ValueError, RecursionError):
        return False


def _read_lines(text: str, path: Path, bad: list[str] | None) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        where = f"line {number} of {str(path)!r}"
        with leaving_out(bad):
            if line.strip():
                rows.append(Row(_parse(line, where), f"{path.stem}/{number}", where))
    return rows


def _read_whole(text: str, path: Path) -> list[Row]:
    """Read a list of rows, SQuAD's {"data": […]} around one, or a single row."""
    where = repr(str(path))
    content = _parse(text, where)
    is_squad = isinstance(content, dict) and isinstance(content.get("data"), list)
    rows = content["data"] if is_squad else content if isinstance(content, list) else [content]
    kind = "article" if is_squad else "row"
    return [Row(value, f"{path.stem}/{i}", f"{kind} {i} of {where}") for i, value in enumerate(rows, 1)]


def _parse(text: str, where: str) -> Any:
    """Parse JSON. Raises `InputError` with the line, and for half a character (a lone \\ud83d), which is no text."""
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        place = f" (line {error.lineno}, column {error.colno})" if "\n" in text.strip() else ""
        raise InputError(f"{where} is not JSON{place}: {error.msg}; repair it or remove it") from error
    except UnicodeEncodeError as error:
        raise InputError(f"{where} holds half a character (a lone surrogate); repair it or remove it") from error
    except RecursionError as error:
        raise InputError(f"{where} is not a row: its lists are nested too deeply; repair it or remove it") from error
    return value


# ── Hugging Face ──


def _read_hugging_face(source: str, split: str | None) -> list[Row]:
    path = Path(source)
    if not path.exists() and (path.suffix.lower() in _BUILDERS or not _HUB_ID.fullmatch(source)):
        raise InputError(f"there is no file, folder or hub id {source!r}; known files: {', '.join(_known())}")
    if path.is_file() and path.suffix.lower() not in _BUILDERS:
        raise InputError(f"{source!r} is of no kind that is read; known: {', '.join(_known())}, and folders")
    with from_extra("datasets", f"the dataset {source!r}"):
        import datasets
    try:
        loaded = _load(source, split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"the dataset {source!r} cannot be loaded: {reason or type(error).__name__}") from error
    rows = _one_split(source, loaded, split)
    check_size(rows.data.nbytes, f"the dataset {source!r}", "give a part of it, such as split 'train[:1000]'")
    return _numbered(rows, path.stem, source, split)


def _known() -> list[str]:
    return sorted(_JSON | _BUILDERS.keys())


def _load(source: str, split: str | None) -> Any:
    """Load a dataset with `datasets`: one that `save_to_disk` wrote, a file, a folder of files, or one of the hub."""
    import datasets

    path = Path(source)
    if path.is_file():
        given = {"sep": "\t"} if path.suffix.lower() == ".tsv" else {}
        return datasets.load_dataset(_BUILDERS[path.suffix.lower()], data_files=source, split=split, **given)
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        loaded = datasets.load_from_disk(source)
        return loaded if isinstance(loaded, Mapping) else {str(loaded.split or "all"): loaded}
    return datasets.load_dataset(source, split=split)


def _one_split(source: str, loaded: Any, split: str | None) -> Any:
    """Choose the split that was named, or the only one; what came as one split is it."""
    if not isinstance(loaded, Mapping):
        return loaded
    if split is None and len(loaded) == 1:
        return next(iter(loaded.values()))
    if split is None:
        raise InputError(f"the dataset {source!r} has the splits {', '.join(loaded)}; name one")
    if split not in loaded:
        raise InputError(f"the dataset {source!r} has no split {split!r}; {near_miss(split, loaded)}")
    return loaded[split]


def _numbered(rows: Iterable[Any], name: str, source: str, split: str | None) -> list[Row]:
    place = f"{source!r} ({split})" if split else repr(source)
    return [Row(value, f"{name}/{i}", f"row {i} of {place}") for i, value in enumerate(rows, 1)]
