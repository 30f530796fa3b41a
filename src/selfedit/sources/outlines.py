"""Where the functions and classes of a source file stand.

Python is parsed by the standard library; the other languages by tree-sitter with the grammars of its own project:
wheels that hold the compiled parser, so that nothing is fetched later (`pip install 'selfedit[documents]'`).

    find_definitions("class A:\\n    def f(self): ...", "python", "a.py")  # A in lines 0 to 2, f inside it
"""

from __future__ import annotations

import ast
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING

from selfedit.errors import from_extra

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Definition:
    """A function or class in lines[first:end], counted from 0, and the definitions inside it."""

    name: str
    first: int
    end: int
    inside: tuple[Definition, ...] = ()


def find_definitions(text: str, language: str, title: str) -> tuple[Definition, ...]:
    """Find the functions and classes of a text, in their order; none where it cannot be parsed.

    `title` names the text in messages. Raises `MissingExtra` where the language's parser is missing.
    """
    if language != "python":
        return _apart(_found_in(open_parser(language, title).parse(text.encode(errors="replace")).root_node))
    try:
        body = _parse_python(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = str(error).replace("<unknown>, ", "")
        log.warning("%s cannot be parsed as Python: %s; it is cut at blank lines", title, reason)
        return ()
    lines = text.split("\n")
    return tuple(_among(body, lines, 0, len(lines)))


def open_parser(language: str, title: str) -> Parser:
    """Open the parser of a language for the code called `title`. Raises `MissingExtra` where it is not installed."""
    package, entry = _GRAMMARS.get(language, (language, "language"))
    with from_extra("documents", f"the code {title!r}"):
        from tree_sitter import Language, Parser

        return Parser(Language(getattr(import_module(f"tree_sitter_{package}"), entry)()))


# ── Python ──


def _parse_python(text: str) -> list[ast.stmt]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what the code does; it is not ours
        return ast.parse(text.replace("\r", " ")).body


def _among(body: Sequence[ast.stmt], lines: Sequence[str], first: int, end: int) -> Iterator[Definition]:
    """Yield the functions and classes among statements, which stand in lines[first:end]."""
    spans = [_span(node) for node in body]
    ceilings = [*(start for start, _ in spans[1:]), end]
    at = first
    for node, (start, stop), ceiling in zip(body, spans, ceilings, strict=False):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            start = _with_comments_above(lines, at, start)
            stop = _with_comments_below(lines, stop, ceiling, node.col_offset)
            inside = _among(node.body, lines, node.lineno, stop) if isinstance(node, ast.ClassDef) else ()
            yield Definition(node.name, start, stop, tuple(inside))
        at = stop


def _span(node: ast.stmt) -> tuple[int, int]:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)]) - 1, node.end_lineno or node.lineno


def _with_comments_above(lines: Sequence[str], floor: int, start: int) -> int:
    while start > floor and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return start


def _with_comments_below(lines: Sequence[str], stop: int, ceiling: int, indent: int) -> int:
    """Take in the comments that close a body: those indented deeper than its head."""
    for i in range(stop, ceiling):
        line = lines[i].lstrip()
        if line and not (line.startswith("#") and len(lines[i]) - len(line) > indent):
            break
        stop = i + 1 if line else stop
    return stop


# ── other languages ──

_FUNCTIONS = {
    "function_declaration",
    "generator_function_declaration",
    "function_definition",
    "function_item",
    "macro_definition",
    "method_definition",
    "method_declaration",
    "constructor_declaration",
    "compact_constructor_declaration",
    "destructor_declaration",
    "operator_declaration",
    "method",
    "singleton_method",
}
_CLASSES = {
    "class_declaration",
    "abstract_class_declaration",
    "interface_declaration",
    "annotation_type_declaration",
    "enum_declaration",
    "record_declaration",
    "struct_declaration",
    "trait_declaration",
    "namespace_declaration",
    "namespace_definition",
    "internal_module",
    "class_specifier",
    "struct_specifier",
    "enum_specifier",
    "type_spec",
    "struct_item",
    "enum_item",
    "union_item",
    "trait_item",
    "impl_item",
    "mod_item",
    "class",
    "module",
}
# What belongs to the one definition inside it, and what merely stands around several.
_WRAPPERS = {
    "export_statement",
    "ambient_declaration",
    "expression_statement",
    "lexical_declaration",
    "variable_declaration",
    "template_declaration",
    "type_declaration",
}
_AROUND = {
    "ERROR",
    "linkage_specification",
    "declaration_list",
    "enum_body_declarations",
    "preproc_if",
    "preproc_ifdef",
    "preproc_elif",
    "preproc_else",
}
# Grammars that are not named as their language, or hold two.
_GRAMMARS = {
    "typescript": ("typescript", "language_typescript"),
    "tsx": ("typescript", "language_tsx"),
    "php": ("php", "language_php"),
}
_BODILESS = {"type_spec", "class", "module"}  # other classes without a body are mentioned, not defined
_ATTACHED = {"comment", "line_comment", "block_comment", "attribute_item", "decorator"}
_FUNCTION_VALUES = {"arrow_function", "function_expression", "generator_function", "class"}


def _found_in(node: Node) -> Iterator[Definition]:
    """Yield the definitions among a node's children, in their order."""
    for child in node.named_children:
        inner = _unwrapped(child)
        if inner:
            yield _definition(child, inner)
        elif child.type in _AROUND:
            yield from _found_in(child)


def _unwrapped(node: Node) -> Node | None:
    """Return the definition that a node is or wraps; None for any other node, and for one without a name or body."""
    if node.type in _FUNCTIONS | _CLASSES:
        is_whole = node.type in _FUNCTIONS | _BODILESS or _body(node) is not None
        return node if is_whole and _name(node) else None
    if node.type == "variable_declarator":
        value = node.child_by_field_name("value")
        return node if value and value.type in _FUNCTION_VALUES else None
    if node.type in _WRAPPERS:
        inner = [found for child in node.named_children if (found := _unwrapped(child))]
        return inner[0] if len(inner) == 1 else None
    return None


def _definition(node: Node, inner: Node) -> Definition:
    """Describe a definition that covers the lines of `node` and the comments above; `inner` says what it is."""
    body = _body(inner) if inner.type in _CLASSES else None
    inside = _apart(each for each in _found_in(body) if each.first > inner.start_point.row) if body else ()
    return Definition(_name(inner), _first_line(node), _end_line(node), inside)


def _body(node: Node) -> Node | None:
    return node.child_by_field_name("body")


def _name(node: Node) -> str:
    """Return what a definition is called, with the type that a Go method belongs to; "" for none."""
    named = node.child_by_field_name("name")
    declarator = node.child_by_field_name("declarator")
    while declarator and not named:  # C: int *f(void) is a pointer declarator around a function declarator
        deeper = declarator.child_by_field_name("declarator")
        named, declarator = (None, deeper) if deeper else (declarator, None)
    if not named and node.type == "impl_item":
        named = node.child_by_field_name("type")
    receiver = node.child_by_field_name("receiver")
    words = re.findall(r"\w+", _text(receiver)) if receiver else []  # (s *Server), or (Server) alone
    of = words[1:2] or words[:1]
    return " — ".join([*of, " ".join(_text(named).split())]) if named else ""


def _text(node: Node) -> str:
    return (node.text or b"").decode(errors="replace")


def _first_line(node: Node) -> int:
    """Return a node's first line, or that of the comments and attributes that stand directly above it."""
    first, above = node.start_point.row, node.prev_sibling
    while above and above.type in _ATTACHED and _end_line(above) >= first:
        before = above.prev_sibling
        if before and _end_line(before) > above.start_point.row:
            break  # it ends a line of something else
        first, above = above.start_point.row, before
    return first


def _end_line(node: Node) -> int:
    """Return the line after a node's last one."""
    return node.end_point.row + (node.end_point.column > 0)


def _apart(definitions: Iterator[Definition]) -> tuple[Definition, ...]:
    """Let definitions that share a line be one, since pieces are whole lines."""
    found: list[Definition] = []
    for each in definitions:
        if found and each.first < found[-1].end:
            found[-1] = replace(found[-1], end=max(found[-1].end, each.end), inside=())
        else:
            found.append(each)
    return tuple(found)
