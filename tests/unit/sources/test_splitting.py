from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfedit.errors import InputError
from selfedit.sources.splitting import Piece, split_document, split_lines, trim

GUIDE = """Intro.

## Install

### Linux
Run apt. Then run make.

### Mac
Use brew.

## Use
Call it.
"""


def shorter_than(limit: int, text: str = GUIDE) -> tuple[Piece, ...]:
    return split_document(text, "Guide", lambda piece: len(piece) <= limit)


def test_a_document_that_fits_is_left_whole() -> None:
    assert shorter_than(1000) == (Piece("Guide", GUIDE.strip()),)


def test_a_long_document_is_cut_at_its_top_headings_and_titled_by_place() -> None:
    assert shorter_than(90) == (
        Piece("Guide", "Intro."),
        Piece("Guide — Install", "## Install\n\n### Linux\nRun apt. Then run make.\n\n### Mac\nUse brew."),
        Piece("Guide — Use", "## Use\nCall it."),
    )


def test_a_long_section_is_cut_at_its_own_headings() -> None:
    assert [piece.title for piece in shorter_than(70)] == [
        "Guide",
        "Guide — Install — Linux",
        "Guide — Install — Mac",
        "Guide — Use",
    ]


def test_paragraphs_are_joined_while_they_fit() -> None:
    text = "One one.\n\nTwo two.\n\nThree three."
    assert [piece.text for piece in shorter_than(25, text)] == ["One one.\n\nTwo two.", "Three three."]


def test_a_long_paragraph_is_cut_after_sentences() -> None:
    text = 'It is 3.5 m. "Is it?" Yes! それは山です。高い。'
    assert [piece.text for piece in shorter_than(20, text)] == ["It is 3.5 m.", '"Is it?" Yes!', "それは山です。高い。"]


def test_a_heading_stays_with_the_sentence_below_it() -> None:
    text = "# Ada\n\nShe wrote. It ran."
    assert [piece.text for piece in shorter_than(36, text)] == ["# Ada\n\nShe wrote.", "It ran."]


def test_a_long_list_is_cut_at_its_lines() -> None:
    text = "- alpha\n- beta\n- gamma"
    assert [piece.text for piece in shorter_than(21, text)] == ["- alpha\n- beta", "- gamma"]


def test_a_heading_in_a_code_fence_cuts_nothing() -> None:
    text = "```\n# one\n```\n\n# Two\n\ntext"
    assert [piece.title for piece in shorter_than(30, text)] == ["Guide", "Guide — Two"]


def test_a_sentence_that_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"a sentence of 'Guide' is too long .*: 'Then run make\.'; break it up"):
        shorter_than(37)


BLOCKS = st.sampled_from(
    ["# One", "## Two", "### Three", "#### Four", "```", "# in\n```", "- item\n- item", "", "    code", "text\nwrapped"]
)
SENTENCES = st.lists(st.sampled_from(["Ada built it.", "Why?", 'He said "no." Then', "山。", "3.5 km", "e.g. x"]))
DOCUMENTS = st.lists(BLOCKS | SENTENCES.map(" ".join), max_size=12).map("\n\n".join) | st.text("# \n.`ab-", max_size=60)


def squeezed(text: str) -> str:
    return "".join(text.split())


@settings(deadline=None)
@given(text=DOCUMENTS, limit=st.integers(1, 120))
def test_no_text_is_lost_and_every_piece_fits(text: str, limit: int) -> None:
    def fits(piece: str) -> bool:
        return len(piece) <= limit

    try:
        pieces = split_document(text, "T", fits)
    except InputError:
        return
    assert squeezed("".join(piece.text for piece in pieces)) == squeezed(text)
    assert all(fits(f"{piece.title}\n{piece.text}") and piece.text for piece in pieces)


@settings(deadline=None)
@given(text=DOCUMENTS, limit=st.integers(120, 400))
def test_nothing_is_refused_where_every_line_fits(text: str, limit: int) -> None:
    split_document(text, "T", lambda piece: len(piece) <= limit)


# ── lines ──


def test_lines_are_cut_at_blank_lines_and_keep_their_indentation() -> None:
    text = "if a:\n    one. two()\n\n    three()\n"
    pieces = split_lines(text, "f.py", lambda piece: len(piece) <= 30)
    assert pieces == (Piece("f.py", "if a:\n    one. two()"), Piece("f.py", "    three()"))


def test_an_indented_code_block_keeps_its_indentation() -> None:
    text = "Run this, as root.\n\n    make\n    make install"
    assert shorter_than(32, text)[1].text == "    make\n    make install"


def test_a_line_that_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"a line of 'f\.py' is too long .*: 'twelve\(\)'; break it up"):
        split_lines("one()\ntwelve()", "f.py", lambda piece: len(piece) <= 10)


@given(text=st.text("ab .\n\t#\f\r", max_size=60), limit=st.integers(1, 40))
def test_no_line_is_lost_or_changed(text: str, limit: int) -> None:
    try:
        pieces = split_lines(text, "T", lambda piece: len(piece) <= limit)
    except InputError:
        return
    written = [line.rstrip() for line in text.split("\n") if line.strip()]
    assert [line.rstrip() for piece in pieces for line in piece.text.split("\n") if line.strip()] == written
    assert all(len(f"{piece.title}\n{piece.text}") <= limit for piece in pieces)


@given(text=st.text("a \n\t", max_size=20))
def test_trimming_takes_whole_blank_lines_at_the_start(text: str) -> None:
    trimmed = trim(text)
    assert trimmed.strip() == text.strip()
    assert trimmed == trim(trimmed)
    assert not trimmed or trimmed.split("\n")[0] in text.rstrip().split("\n")
