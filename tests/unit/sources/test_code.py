"""Code is cut by function and class: every piece titled by its place, whole lines, nothing lost."""

from __future__ import annotations

import ast
import logging
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import selfedit
from selfedit.errors import InputError, MissingExtra
from selfedit.sources.code import LANGUAGES, LONGEST_LINE, read_code, split_code


def parts_of(text: str, language: str, limit: int = 10_000) -> list[tuple[str, str]]:
    """Cut a text called "f"; give the pieces as (place below "f", text)."""
    pieces = split_code(text, "f", lambda piece: len(piece) <= limit, language)
    return [(piece.title.removeprefix("f").removeprefix(" — "), piece.text) for piece in pieces]


def written_lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.split("\n") if line.strip()]


# ── Python ──

MODULE = '''"""What it is for."""

import os

NAMES = """
# not a comment of load's"""
# Loads it.
# Twice.
@cached
# between
def load():
    """Load."""

    return 1
    # still in load

# loose

class Store(dict):
    """Keeps."""

    size = 1

    # how full
    @property
    def full(self):
        def inner(): ...
        return inner

    # between methods

    async def close(self): ...
    class Row:
        def get(self): ...

if os:
    def other(): ...
'''


def test_python_is_cut_by_function_class_and_method_and_what_stands_between() -> None:
    assert parts_of(MODULE, "python") == [
        ("", '"""What it is for."""\n\nimport os\n\nNAMES = """\n# not a comment of load\'s"""'),
        (
            "load",
            "# Loads it.\n# Twice.\n@cached\n# between\n"
            'def load():\n    """Load."""\n\n    return 1\n    # still in load',
        ),
        ("", "# loose"),
        ("Store", 'class Store(dict):\n    """Keeps."""\n\n    size = 1'),
        (
            "Store — full",
            "    # how full\n    @property\n    def full(self):\n        def inner(): ...\n        return inner",
        ),
        ("Store", "    # between methods"),
        ("Store — close", "    async def close(self): ..."),
        ("Store — Row", "    class Row:"),
        ("Store — Row — get", "        def get(self): ..."),
        ("", "if os:\n    def other(): ..."),
    ]


def test_a_function_that_does_not_fit_is_cut_at_blank_lines_then_lines() -> None:
    text = "def f():\n    one = 1\n\n    two = 2\n    three = 3\n"
    assert parts_of(text, "python", limit=35) == [
        ("f", "def f():\n    one = 1"),
        ("f", "    two = 2\n    three = 3"),
    ]
    with pytest.raises(InputError, match=r"a line of 'f — f' is too long"):
        parts_of(text, "python", limit=12)


@pytest.mark.parametrize(
    "text",
    [
        "def f(:\n    pass\n\nx = 1",
        "print 'Python 2'\n",
        "class {{ name }}:\n    pass",
        "a\0b",
        "(" * 1_000,
        "-" * 9_000 + "1",
        "x = '\ud800'",
    ],
)
def test_python_that_cannot_be_parsed_is_cut_at_blank_lines_and_the_log_says_so(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert parts_of(text, "python") == [("", text.strip())]
    assert "f cannot be parsed as Python" in caplog.text


def test_doubtful_code_is_parsed_without_a_warning() -> None:
    assert [place for place, _ in parts_of("def f(): return '\\d' is 1\n", "python")] == ["f"]


@pytest.mark.parametrize("text", ["", "\n \n", "# only a comment\n", "x = 1"])
def test_code_without_definitions_is_one_piece_or_none(text: str) -> None:
    assert parts_of(text, "python") == ([("", text.strip())] if text.strip() else [])


PACKAGE = sorted(Path(selfedit.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", PACKAGE, ids=[path.stem for path in PACKAGE])
def test_every_function_of_this_package_is_one_whole_piece(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    pieces = split_code(text, "f", lambda piece: True, "python")
    assert written_lines("\n".join(piece.text for piece in pieces)) == written_lines(text)
    tree = ast.parse(text)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    bodies = [("f", tree.body), *((f"f — {node.name}", node.body) for node in classes)]
    for place, body in bodies:
        for node in body:
            if isinstance(node, ast.FunctionDef):
                source = ast.get_source_segment(text, node, padded=True)
                assert source is not None
                holding = [p for p in pieces if p.title == f"{place} — {node.name}" and source in p.text]
                assert len(holding) == 1


# ── other languages ──

JAVASCRIPT = """import x from "y";
const A = 1;

// adds
export const add = (a, b) => {
  return a + b;
};

/** Keeps. */
export default class Store extends Base {
  size = 1; // fields
  // opens it
  open() {
    return 1;
  }

  async close() {}
}
function old() {} // last
module.exports = { old };
"""
TYPESCRIPT = """import { A } from "a";
@Component({ a: 1 })
export class Store {
  constructor(private a: A) {}
  @Log()
  run(): void {}
}
export interface Row { a: number }
namespace N {
  export function g() {}
}
export abstract class Q {
  n() {}
}
"""
JAVA = """package a;
/** Keeps. */
@Deprecated
public class Store {
  int x; // field

  /** Opens. */
  @Override
  public int open() { return 1; }

  enum Kind { X; void f() {} }
  Store() {}
}
record Row(int a) {}
"""
GO = """package main

// Store keeps.
type Store struct { a int }

// Open opens.
func (s *Store) Open() error {
	return nil
}

func (Row) Get() {}

func main() {}
"""
RUST = """use a;
/// Keeps.
#[derive(Debug)]
pub struct Store { a: u8 }

impl Open for Store {
    /// Opens.
    fn open(&self) {}
    const X: u8 = 1;
}
mod other;
mod tests {
    fn t() {}
}
"""
C = """#include <x.h>
struct row { int a; };
/* opens */
static int *open(int a) {
  return 0;
}
int declared(void);
"""
CPP = """#ifndef X_H
#define X_H
namespace a {
// keeps
template <typename T>
class Store : public Base {
 public:
  Store() {}
  ~Store() {}
};
int Store::size() { return 2; }
}  // namespace a
extern "C" {
int c() {}
}
#endif  // X_H
"""
C_SHARP = """using System;
namespace A.B;
/// keeps
public class Store {
  public int X { get; set; }
  [Test]
  public void Open() {}
}
"""
RUBY = """require "x"
module A
  # keeps
  class Store < Base
    attr_reader :x
    # opens
    def open
      1
    end

    def self.make
    end
  end
end
"""
PHP = """<?php
namespace App;
/** keeps */
class Store {
  private $x;
  public function open() {}
}
function f() {}
"""

PLACES = {
    "javascript": (JAVASCRIPT, ["", "add", "Store", "Store — open", "Store — close", "old", ""]),
    "typescript": (
        TYPESCRIPT,
        ["", "Store", "Store — constructor", "Store — run", "Row", "N", "N — g", "Q", "Q — n"],
    ),
    "tsx": ("export function App() {\n  return <p>x</p>;\n}\n", ["App"]),
    "java": (JAVA, ["", "Store", "Store — open", "Store — Kind", "Store — Store", "Row"]),
    "go": (GO, ["", "Store", "Store — Open", "Row — Get", "main"]),
    "rust": (RUST, ["", "Store", "Store", "Store — open", "Store", "", "tests", "tests — t"]),
    "c": (C, ["", "row", "open", ""]),
    "cpp": (CPP, ["", "a", "a — Store", "a — Store — Store", "a — Store — ~Store", "a — Store::size", "", "c"]),
    "c_sharp": (C_SHARP, ["", "Store", "Store — Open"]),
    "ruby": (RUBY, ["", "A", "A — Store", "A — Store — open", "A — Store — make"]),
    "php": (PHP, ["", "Store", "Store — open", "f"]),
}


def test_every_language_that_is_read_is_tested() -> None:
    assert {*PLACES, "python"} == set(LANGUAGES.values())


@pytest.mark.parametrize("language", PLACES)
def test_other_languages_are_cut_by_function_and_class_too(language: str) -> None:
    text, places = PLACES[language]
    parts = parts_of(text, language)
    assert [place for place, _ in parts] == places
    assert written_lines("\n".join(part for _, part in parts)) == written_lines(text)


@pytest.mark.parametrize(
    ("language", "place", "part"),
    [
        ("javascript", "add", "// adds\nexport const add = (a, b) => {\n  return a + b;\n};"),
        ("javascript", "Store", "/** Keeps. */\nexport default class Store extends Base {\n  size = 1; // fields"),
        ("javascript", "Store — close", "  async close() {}\n}"),
        ("javascript", "old", "function old() {} // last"),
        ("typescript", "Store — run", "  @Log()\n  run(): void {}\n}"),
        ("java", "Store — open", "  /** Opens. */\n  @Override\n  public int open() { return 1; }"),
        ("rust", "Store", "/// Keeps.\n#[derive(Debug)]\npub struct Store { a: u8 }"),
        ("cpp", "a — Store::size", "int Store::size() { return 2; }\n}  // namespace a"),
        ("c_sharp", "Store — Open", "  [Test]\n  public void Open() {}\n}"),
        ("ruby", "A — Store — make", "    def self.make\n    end\n  end\nend"),
    ],
)
def test_comments_and_attributes_stay_with_what_they_stand_above(language: str, place: str, part: str) -> None:
    assert (place, part) in parts_of(PLACES[language][0], language)


def test_functions_around_an_error_are_found_all_the_same() -> None:
    places = [place for place, _ in parts_of("function a() {\n  x = (;\n}\nfunction b() {}\n", "javascript")]
    assert places == ["a", "b"]


def test_definitions_that_share_a_line_stay_together() -> None:
    assert parts_of("function a() {} function b() {\n}\n", "javascript") == [("a", "function a() {} function b() {\n}")]


# ── reading ──


def test_python_is_read_in_the_encoding_that_it_declares(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_bytes("# coding: latin-1\r\nx = 'é'\r\n".encode("latin-1"))
    assert read_code(path, "python") == "# coding: latin-1\nx = 'é'"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"y = '\xe9'\n", "is not text in the encoding that it declares"),
        (b"# coding: latin-1\nx = 1\n\0", "line 3 holds a NUL byte"),
        (b"# coding: no-such\n", "is not text in the encoding that it declares"),
        (b"# one\n\n# three: \xe9", "is not UTF-8 text: see line 3"),
        (b"one\n" + b"x" * (LONGEST_LINE + 1), f"was generated: its line 2 has {LONGEST_LINE + 1} characters"),
    ],
)
def test_code_that_cannot_be_used_is_refused_by_name(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(what)) as caught:
        read_code(path, "python")
    assert repr(str(path)) in str(caught.value)


def test_python_needs_no_library_and_other_languages_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tree_sitter", None)
    assert parts_of("def f(): ...", "python") == [("f", "def f(): ...")]
    with pytest.raises(MissingExtra, match=r"the code 'f' needs more libraries: pip install 'selfedit\[documents\]'"):
        parts_of("function f() {}", "javascript")


# ── nothing is lost ──

PYTHON_LINES = [
    "import a",
    "x = '''",
    "'''",
    "# comment",
    "    # inside",
    "@dec",
    "def f():",
    "async def g(): ...",
    "    return 1",
    "class A:",
    "    def m(self):",
    "        pass",
    "    y: int = 2",
    "if x:",
    "    def h(): ...",
    "",
    "  ",
]
C_LINES = [
    "// c",
    "class A {",
    "int f() {",
    "};",
    "}",
    "int x;",
    "#if X",
    "#endif",
    "",
    "template <class T>",
    "namespace n {",
]


def check_nothing_is_lost(text: str, language: str, limit: int) -> None:
    try:
        pieces = split_code(text, "f", lambda piece: len(piece) <= limit, language)
    except InputError as error:
        assert "a line of 'f" in str(error)
        return
    assert written_lines("\n".join(piece.text for piece in pieces)) == written_lines(text)
    assert all(len(f"{piece.title}\n{piece.text}") <= limit and piece.text.strip() for piece in pieces)


@given(lines=st.lists(st.sampled_from(PYTHON_LINES), max_size=14), limit=st.integers(20, 200))
def test_no_line_of_python_is_lost_their_order_is_kept_and_pieces_fit(lines: list[str], limit: int) -> None:
    check_nothing_is_lost("\n".join(lines), "python", limit)


@given(text=st.text(max_size=60) | st.text("def f():\n  #@x\r\f\t", max_size=60), limit=st.integers(10, 200))
def test_any_text_is_cut_as_python_without_loss(text: str, limit: int) -> None:
    check_nothing_is_lost(text, "python", limit)


@given(lines=st.lists(st.sampled_from(C_LINES), max_size=14), limit=st.integers(20, 200))
def test_no_line_of_another_language_is_lost_either(lines: list[str], limit: int) -> None:
    check_nothing_is_lost("\n".join(lines), "cpp", limit)


@given(data=st.data(), language=st.sampled_from(sorted(PLACES)))
def test_broken_code_is_cut_without_loss(data: st.DataObject, language: str) -> None:
    text, _ = PLACES[language]
    start, end = sorted(data.draw(st.integers(0, len(text))) for _ in range(2))
    check_nothing_is_lost(text[:start] + text[end:], language, 10_000)
