"""What reading every kind of file shares: the size limit, the encoding and leaving out what is bad.

with leaving_out(bad):
    tasks.append(read(path))
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selfedit.errors import InputError, MissingExtra

LARGEST = 50_000_000  # bytes: some twelve million tokens of text, far more than one lesson can hold


def read_bytes(path: Path) -> bytes:
    """Read a file. Raises `InputError` for one of more than `LARGEST` bytes, or that cannot be read."""
    try:
        check_size(path.stat().st_size, repr(str(path)), "split it or remove it")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from error


def check_size(n: int, where: str, advice: str) -> None:
    """Raise `InputError` for more than `LARGEST` bytes."""
    if n > LARGEST:
        raise InputError(f"{where} holds {n / 1e6:.0f} MB and at most {LARGEST / 1e6:.0f} are read; {advice}")


def decode(content: bytes, where: str, encoding: str = "utf-8-sig") -> str:
    """Decode a text; its lines end in \\n. Raises `InputError` for what is no text in `encoding`, with the line."""
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{where} is not {name} text: see line {line}; save it as {name} or remove it") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{where} is not text: line {line} holds a NUL byte; remove it from the folder")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text(path: Path) -> str:
    """Read a UTF-8 file. Raises `InputError` as `read_bytes` and `decode` do."""
    return decode(read_bytes(path), repr(str(path)))


def title_of(stem: str) -> str:
    """Make a file's name readable: "user-guide" is "User guide"."""
    words = re.sub(r"[-_\s]+", " ", stem).strip() or stem
    return words[:1].upper() + words[1:]


@contextmanager
def leaving_out(bad: list[str] | None) -> Iterator[None]:
    """Leave out what cannot be used and keep the sentence about it in `bad`; where `bad` is None, let it raise."""
    try:
        yield
    except (InputError, MissingExtra) as error:
        if bad is None:
            raise
        bad.append(str(error))
