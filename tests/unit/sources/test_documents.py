from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfedit.errors import InputError
from selfedit.sources.documents import Piece, read_folder, split_document, write_folder
from selfedit.types import Question, Task


def written(folder: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8", newline="")
    return folder


def asked(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_folder(folder)
    return str(caught.value)


# ── documents ──


def test_each_document_is_a_task_in_the_order_of_the_paths(tmp_path: Path) -> None:
    written(tmp_path, {"b.md": "# The B\n\nAbout b.\n", "a/z.txt": " About z. \n", "README.md": "Read me."})
    assert read_folder(tmp_path).tasks == (
        Task("README.md", "README", "Read me."),
        Task("a/z.txt", "Z", "About z."),
        Task("b.md", "The B", "About b."),
    )


@pytest.mark.parametrize(
    ("text", "title", "context"),
    [
        ("# Title\ntext", "Title", "text"),
        ("# Title #\ntext", "Title", "text"),
        ("\n\n  ## Opening heading  \ntext", "Opening heading", "text"),
        ("badge\n\n# Title\n\ntext", "Title", "badge\n\n\n\ntext"),
        ("intro\n\n## Install\n\ntext", "User guide v2", "intro\n\n## Install\n\ntext"),
        ("```\n# comment\n```\n# Title\ntext", "Title", "```\n# comment\n```\n\ntext"),
        ("~~~sh\n```\n# comment\n~~~", "User guide v2", "~~~sh\n```\n# comment\n~~~"),
        ("#hashtag", "User guide v2", "#hashtag"),
        ("    # code", "User guide v2", "# code"),
        ("\ufeff# Title\r\none\r\ntwo", "Title", "one\ntwo"),
    ],
)
def test_the_title_is_the_first_heading_or_the_readable_file_name(
    tmp_path: Path, text: str, title: str, context: str
) -> None:
    (task,) = read_folder(written(tmp_path, {"user-guide_v2.md": text})).tasks
    assert (task.title, task.context) == (title, context)


def test_a_text_file_has_no_headings(tmp_path: Path) -> None:
    (task,) = read_folder(written(tmp_path, {"set-up.txt": "# install it\nmake\n"})).tasks
    assert (task.title, task.context) == ("Set up", "# install it\nmake")


def test_hidden_files_are_left_alone_and_others_are_listed_as_skipped(tmp_path: Path) -> None:
    files = {"a.MD": "text", ".b.md": "\0", ".git/c.md": "\0", "d/e.pdf": "%PDF", "d/questions.jsonl": "x"}
    documents = read_folder(written(tmp_path, files))
    assert [task.id for task in documents.tasks] == ["a.MD"]
    assert documents.skipped == ("d/e.pdf", "d/questions.jsonl")


def test_a_hidden_folder_can_be_named(tmp_path: Path) -> None:
    folder = written(tmp_path, {".notes/a.md": "text"}) / ".notes"
    assert [task.id for task in read_folder(folder).tasks] == ["a.md"]


def test_a_missing_folder_is_refused_by_its_name(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == f"there is no folder {str(tmp_path / 'none')!r}"


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    assert "is a file; give the folder" in refusal(written(tmp_path, {"a.md": "text"}) / "a.md")


def test_a_folder_without_documents_is_refused(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, {"a.pdf": "%PDF"})).startswith("there is no .md or .txt file in the folder")


@pytest.mark.parametrize("content", [b"one\ncaf\xe9", b"one\n\0\0", b"one\n\x89PNG\r\n"])
def test_a_file_that_is_no_text_is_refused_with_its_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    message = refusal(tmp_path)
    assert str(tmp_path / "a.txt") in message
    assert "line 2" in message


@pytest.mark.parametrize(
    ("text", "what"), [("", "is empty"), (" \n\t", "is empty"), ("# Title\n\n", "holds a heading")]
)
def test_an_empty_document_is_refused_by_its_name(tmp_path: Path, text: str, what: str) -> None:
    message = refusal(written(tmp_path, {"a.md": "text", "b.md": text}))
    assert message.startswith(f"the document {str(tmp_path / 'b.md')!r} {what}")


# ── questions ──


def test_questions_go_to_the_document_that_they_name_by_path_or_file_name(tmp_path: Path) -> None:
    rows = [
        {"question": "Who?", "answer": "Ada", "source": "a.md"},
        {"question": "Where?", "answer": "Paris", "source": "sub/b.md"},
        {"question": "When?", "answer": "1815", "source": "b.md"},
    ]
    files = {"a.md": "text", "sub/b.md": "text", "questions.jsonl": "\n" + asked(*rows) + "\n"}
    documents = read_folder(written(tmp_path, files))
    assert [task.questions for task in documents.tasks] == [
        (Question("Who?", "Ada"),),
        (Question("Where?", "Paris"), Question("When?", "1815")),
    ]
    assert documents.skipped == ()


def test_a_path_wins_over_an_equal_file_name(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "a", "source": "a.md"}
    files = {"a.md": "text", "sub/a.md": "text", "questions.jsonl": asked(row)}
    assert [len(task.questions) for task in read_folder(written(tmp_path, files)).tasks] == [1, 0]


GOOD = {"question": "q", "answer": "a", "source": "a.md"}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"question": ', "is not JSON; expected {"),
        ("[1, 2]", "is not an object; expected {"),
        (json.dumps({"question": "q", "answer": "a"}), "has no text under 'source'"),
        (json.dumps(GOOD | {"answer": 3}), "has no text under 'answer'"),
        (json.dumps(GOOD | {"question": " "}), "has no text under 'question'"),
        (json.dumps(GOOD | {"source": "a.mdd"}), "names an unknown source 'a.mdd'; did you mean 'a.md'?"),
        (json.dumps(GOOD | {"source": "b.md"}), "names 'b.md', which may be x/b.md or y/b.md; give the path"),
    ],
)
def test_a_question_that_cannot_be_used_is_refused_with_file_and_line(tmp_path: Path, line: str, what: str) -> None:
    files = {"a.md": "text", "x/b.md": "text", "y/b.md": "text", "questions.jsonl": f"{asked(GOOD)}\n{line}\n"}
    message = refusal(written(tmp_path, files))
    assert message.startswith(f"line 3 of {str(tmp_path / 'questions.jsonl')!r} {what}")


# ── writing ──


def test_a_written_folder_is_read_back(tmp_path: Path) -> None:
    questions = (Question("Wo?", "In Köln."), Question('"Who"?', "Ada"))
    tasks = [
        Task("1", "Belmora Works", "Text about it.\n\n# A heading\nmore", questions),
        Task("2", "Belmora  works!", "Others of that name.", (Question("q", "a"),)),
        Task("3", "山", "Mountain."),
        Task("4", "?", "Unknown."),
    ]
    write_folder(tmp_path / "new" / "notes", tasks)
    read = read_folder(tmp_path / "new" / "notes").tasks
    assert sorted(task.id for task in read) == ["belmora-works-2.md", "belmora-works.md", "document.md", "山.md"]
    assert {(t.title, t.context, t.questions) for t in read} == {(t.title, t.context, t.questions) for t in tasks}


def test_a_folder_that_holds_something_is_not_written_over(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not empty; give a new one"):
        write_folder(written(tmp_path, {"a.md": "mine"}), [Task("1", "A", "theirs")])
    assert (tmp_path / "a.md").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write to"):
        write_folder(written(tmp_path, {"a.md": ""}) / "a.md" / "b", [])


# ── cutting ──

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
