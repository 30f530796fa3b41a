"""Source code, cut by function and class, so that a framework can be taught place by place.

    split_code(text, "billing/invoice.py", fits, "python")
    # Piece("billing/invoice.py", "import …"), Piece("billing/invoice.py — Invoice", "class Invoice: …"),
    # Piece("billing/invoice.py — Invoice — total", "    def total(self): …"), …

Unlike prose, code is cut however much would fit: a function is what a developer asks about, and one self-edit on a
whole file would pass most of it over. A piece is whole lines. Decorators, attributes and the comments directly above
stay with their function; so does a docstring, which is inside. What stands between (imports, constants, a class's head
and fields) is a piece under the title of what it stands in. What does not fit is cut at blank lines, then lines.

Where the definitions stand is found in `outlines.py`. Code that cannot be parsed (a syntax error, a template, a newer
Python) is still text worth learning: Python's is cut at blank lines, with a warning in the log; in other languages the
functions around the error are found all the same.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

from selfedit.errors import InputError
from selfedit.sources.files import decode, read_bytes
from selfedit.sources.outlines import Definition, find_definitions, open_parser
from selfedit.sources.splitting import Fits, Piece, split_lines, trim

LONGEST_LINE = 5_000  # characters: nobody wrote that line

LANGUAGES = {
    ".py": "python",
    ".pyi": "python",
    ".js": "javascript",
    ".mjs": "javascript",
    ".cjs": "javascript",
    ".jsx": "javascript",
    ".ts": "typescript",
    ".mts": "typescript",
    ".cts": "typescript",
    ".tsx": "tsx",
    ".java": "java",
    ".go": "go",
    ".rs": "rust",
    ".c": "c",
    ".h": "cpp",
    ".cc": "cpp",
    ".cpp": "cpp",
    ".cxx": "cpp",
    ".hh": "cpp",
    ".hpp": "cpp",
    ".cs": "c_sharp",
    ".rb": "ruby",
    ".php": "php",
}


def read_code(path: Path, language: str) -> str:
    """Read a source file; "" for one without a word.

    Raises `InputError` for one that cannot be read or that no person wrote (a line of more than `LONGEST_LINE`
    characters), `MissingExtra` where the language's parser is missing.
    """
    content = read_bytes(path)
    text = trim(decode(content, repr(str(path)), _encoding(content, path, language)))
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > LONGEST_LINE:
            raise InputError(f"{str(path)!r} was generated: its line {number} has {len(line)} characters; remove it")
    if text and language != "python":
        open_parser(language, str(path))
    return text


def split_code(text: str, title: str, fits: Fits, language: str) -> tuple[Piece, ...]:
    """Cut source code into one piece for each function, method and part between them, titled by its place.

    `fits` says whether a text is short enough; it is shown a piece as it is trained on, the title in the first line.
    The pieces in order are the whole text, save for blank lines between them. Raises `InputError` for a line that does
    not fit, `MissingExtra` where the language's parser is missing.
    """
    lines = text.split("\n")
    found = find_definitions(text, language, title)
    pieces: list[Piece] = []
    for where, first, end in _joined(_sections(title, 0, len(lines), found), lines):
        part = trim("\n".join(lines[first:end]))
        pieces += [Piece(where, part)] if fits(f"{where}\n{part}") else split_lines(part, where, fits)
    return tuple(pieces)


# ── from an outline to pieces ──

_Section = tuple[str, int, int]

# What closes a class, a namespace or a condition, apart from the brackets themselves.
_CLOSING = re.compile(r"\bend\b|#\s*endif\b.*|\}\s*//.*")


def _sections(title: str, first: int, end: int, definitions: Sequence[Definition]) -> Iterator[_Section]:
    """Part lines[first:end] into the definitions and what stands between them; what has parts of its own likewise."""
    at = first
    for each in definitions:
        yield title, at, each.first
        yield from _sections(f"{title} — {each.name}", each.first, each.end, each.inside)
        at = each.end
    yield title, at, end


def _joined(sections: Iterator[_Section], lines: Sequence[str]) -> list[_Section]:
    """Drop blank sections; let one that merely closes something end the section before it."""
    kept: list[_Section] = []
    for title, first, end in sections:
        part = "\n".join(lines[first:end])
        if kept and part.strip() and not re.search(r"\w", _CLOSING.sub("", part)):
            kept[-1] = (kept[-1][0], kept[-1][1], end)
        elif part.strip():
            kept.append((title, first, end))
    return kept


# ── reading ──


def _encoding(content: bytes, path: Path, language: str) -> str:
    """Return the encoding that a Python file declares (PEP 263), else UTF-8."""
    if language != "python":
        return "utf-8-sig"
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    except SyntaxError as error:
        raise InputError(f"{str(path)!r} is not text in the encoding that it declares, or UTF-8; save it so") from error
    return "utf-8-sig" if encoding == "utf-8" else encoding
