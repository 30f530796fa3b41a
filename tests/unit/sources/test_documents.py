from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from selfedit.errors import InputError, MissingExtra
from selfedit.sources.documents import cut_task, read_folder, split_task, write_folder
from selfedit.sources.splitting import Piece
from selfedit.types import Question, Task

GOOD = {"question": "q", "answer": "a", "source": "a.md"}


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
    files = {"a.MD": "text", ".b.md": "\0", ".git/c.md": "\0", "d/e.png": "\x89PNG", "d/questions.jsonl": "x"}
    documents = read_folder(written(tmp_path, files))
    assert [task.id for task in documents.tasks] == ["a.MD"]
    assert documents.skipped == ("d/e.png", "d/questions.jsonl")


def test_what_programs_put_into_folders_is_left_alone(tmp_path: Path) -> None:
    files = {"a.py": "x = 1", "__pycache__/a.pyc": "\0", "web/node_modules/b/README.md": "theirs"}
    documents = read_folder(written(tmp_path, files))
    assert [task.id for task in documents.tasks] == ["a.py"]
    assert documents.skipped == ()


def test_code_is_titled_by_its_path_and_knows_its_language(tmp_path: Path) -> None:
    read = read_folder(
        written(tmp_path, {"api/client.py": "\n\nx = 1\n", "api/__init__.py": "\n", "web/a.ts": "let a"})
    )
    assert read.tasks == (
        Task("api/client.py", "api/client.py", "x = 1", meta={"language": "python"}),
        Task("web/a.ts", "web/a.ts", "let a", meta={"language": "typescript"}),
    )
    assert read.skipped == ()


def test_code_is_cut_as_code_and_a_document_as_a_document() -> None:
    text = "# one\ndef f(): ...\n# Two\ndef g(): ..."
    code, prose = (Task("a", "a", text, meta=meta) for meta in ({"language": "python"}, {}))
    assert [piece.title for piece in split_task(code, lambda text: True)] == ["a — f", "a — g"]
    assert split_task(prose, lambda text: True) == (Piece("a", text),)


def test_a_long_document_becomes_tasks_that_are_asked_what_they_answer() -> None:
    text = "## Keys\n\nThe key is under the mat.\n\n## Doors\n\nA door has no lock; the mat is red."
    where, colour, why = (
        Question("Where is the key?", "Under the mat"),
        Question("What colour is the mat?", "red"),
        Question("Why does nobody lock a door?", "There is nothing to lock it with"),
    )
    task = Task("guide.md", "Guide", text, (where, colour, why))
    keys, doors = (piece for piece in cut_task(task, lambda text: len(text) < 70) if piece.questions)
    assert (keys.title, keys.questions) == ("Guide — Keys", (where,))
    assert (doors.title, doors.questions) == ("Guide — Doors", (colour, why))
    assert keys.id != doors.id
    assert keys.meta["topic"] == doors.meta["topic"] == "Guide"
    assert cut_task(task, lambda text: True) == [task]


def test_a_hidden_folder_can_be_named(tmp_path: Path) -> None:
    folder = written(tmp_path, {".notes/a.md": "text"}) / ".notes"
    assert [task.id for task in read_folder(folder).tasks] == ["a.md"]


def test_a_missing_folder_is_refused_by_its_name(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == f"there is no folder {str(tmp_path / 'none')!r}"


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    assert "is a file; give the folder" in refusal(written(tmp_path, {"a.md": "text"}) / "a.md")


def test_a_folder_without_documents_is_refused(tmp_path: Path) -> None:
    message = refusal(written(tmp_path, {"a.png": "PNG"}))
    assert message.startswith("there is no document in the folder")
    assert message.endswith("; .md, .txt, .html, .pdf and source code are read")


def test_a_folder_of_empty_code_is_refused(tmp_path: Path) -> None:
    assert "is empty; there is nothing to learn" in refusal(written(tmp_path, {"a/__init__.py": ""}))


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


@pytest.mark.parametrize("name", ["a.md", "a.txt", "a.html", "a.pdf", "a.py", "a.go"])
def test_a_file_beyond_the_size_limit_is_refused_unread(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(100_000_000)  # a hole: it takes no room on the disk
    message = refusal(tmp_path)
    assert message == f"{str(tmp_path / name)!r} holds 100 MB and at most 50 are read; split it or remove it"


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refused)
    assert refusal(written(tmp_path, {"a.md": "text"})) == f"cannot read {str(tmp_path / 'a.md')!r}: Permission denied"


# ── what is bad can be left out ──


def test_bad_documents_and_questions_are_left_out_and_named(tmp_path: Path) -> None:
    rows = [
        {"question": "q", "answer": "a", "source": "good.md"},
        {"question": "q", "answer": "", "source": "good.md"},
        {"question": "q", "answer": "a", "source": "empty.md"},
    ]
    good = {"good.md": "text", "questions.jsonl": asked(*rows) + "{broken\n"}
    written(tmp_path, {**good, "empty.md": " ", "a.pdf": "no PDF", "b.js": "x" * 6000})
    (tmp_path / "c.txt").write_bytes(b"caf\xe9")
    read = read_folder(tmp_path, skip_bad=True)
    assert [(task.id, task.questions) for task in read.tasks] == [("good.md", (Question("q", "a"),))]
    names = ["a.pdf", "b.js", "c.txt", "empty.md", "line 2 of", "line 4 of"]
    assert [name in sentence for name, sentence in zip(names, read.bad, strict=True)] == [True] * len(names)


def test_unreadable_questions_leave_the_documents(tmp_path: Path) -> None:
    written(tmp_path, {"a.md": "text"})
    (tmp_path / "questions.jsonl").write_bytes(b"\xff\xfe")
    read = read_folder(tmp_path, skip_bad=True)
    assert [task.questions for task in read.tasks] == [()]
    assert len(read.bad) == 1


def test_nothing_is_bad_in_a_good_folder(tmp_path: Path) -> None:
    folder = written(
        tmp_path, {"a.md": "text", "questions.jsonl": asked({"question": "q", "answer": "a", "source": "a.md"})}
    )
    assert read_folder(folder, skip_bad=True) == read_folder(folder)


def test_a_folder_without_a_good_document_is_refused_whatever_may_be_left_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no document in the folder .* can be used: .*a\.md.* is empty.* with 1 more"):
        read_folder(written(tmp_path, {"a.md": "", "b.md": ""}), skip_bad=True)


@pytest.mark.parametrize(("name", "library"), [("a.html", "markdownify"), ("a.pdf", "pypdf"), ("a.rs", "tree_sitter")])
def test_a_missing_library_is_an_error_with_the_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    written(tmp_path, {name: "text", "good.md": "text"})
    with pytest.raises(MissingExtra, match=r"a\.\w+.* needs more libraries: pip install 'selfedit\[documents\]'"):
        read_folder(tmp_path)
    read = read_folder(tmp_path, skip_bad=True)
    assert [task.id for task in read.tasks] == ["good.md"]
    assert "pip install 'selfedit[documents]'" in read.bad[0]


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
