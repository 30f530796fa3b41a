"""Strict JSON: what is not as expected is one sentence that names its place, never a number that is quietly wrong.

fields = as_object(parse_json(line, "line 3"), "line 3")
share = as_share(fields.get("mean"), "line 3")
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfedit.errors import InputError


def read_json(path: Path) -> Any:
    """Read a file as `parse_json` does; messages name it without its folder."""
    try:
        return parse_json(path.read_text(encoding="utf-8"), path.name)
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 text; get it again") from error


def parse_json(text: str, where: str) -> Any:
    """Parse strict JSON: a key given twice and a NaN are refused, where the standard library would take either."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = [key for key, n in Counter(key for key, _ in pairs).items() if n > 1]
        if twice:
            raise InputError(f"{where}: the key {twice[0]!r} is given twice")
        return dict(pairs)

    def no_number(word: str) -> float:
        raise InputError(f"{where}: {word} is not a number")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=no_number)
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is not JSON: {error}") from error


def as_object(value: object, where: str) -> dict[str, Any]:
    """Return `value` if it is a JSON object; `where` names its place in a message."""
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected a JSON object, found {_kind(value)}")
    return value


def as_list(value: object, where: str) -> list[Any]:
    """Return `value` if it is a JSON list."""
    if not isinstance(value, list):
        raise InputError(f"{where}: expected a JSON list, found {_kind(value)}")
    return value


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__


def text_of(fields: Mapping[str, Any], key: str, where: str) -> str:
    """Return the text under `key`."""
    if not isinstance(value := fields.get(key), str):
        raise InputError(f"{where}: expected text under {key!r}, found {_kind(value)}")
    return value


def count_of(fields: Mapping[str, Any], key: str, where: str) -> int:
    """Return the whole number from 0 under `key`."""
    value = fields.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InputError(f"{where}: expected a number from 0 under {key!r}, found {value!r}")
    return value


def as_number(value: object, where: str) -> float:
    """Return `value` if it is a number; true and false are none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(f"{where}: expected a number, found {value!r}")
    return float(value)


def as_share(value: object, where: str) -> float:
    """Return `value` if it is a number in [0, 1]."""
    if not 0.0 <= (share := as_number(value, where)) <= 1.0:
        raise InputError(f"{where}: expected an accuracy in [0, 1], found {value!r}")
    return share
