"""Datasets: every form of row becomes a task, every bad row a sentence with its place."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfedit.errors import InputError, MissingExtra
from selfedit.sources.datasets import read_dataset
from selfedit.sources.rows import examples
from selfedit.types import Example, Question, Task


def written(folder: Path, content: Any, name: str = "my-data.json") -> str:
    """Write a file, JSON unless it is text already, a row a line where its name says so; give its path."""
    path = folder / name
    if not isinstance(content, str):
        lines = content if path.suffix == ".jsonl" else [content]
        content = "\n".join(json.dumps(line) for line in lines)
    path.write_text(content, encoding="utf-8")
    return str(path)


def refusal(source: str, split: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_dataset(source, split)
    message = str(caught.value)
    assert repr(source) in message
    assert "\n" not in message
    return message


# ── SQuAD ──


def official(*paragraphs: object) -> dict[str, Any]:
    return {"version": "1.1", "data": [{"title": "Super_Bowl_50", "paragraphs": list(paragraphs)}]}


def asks(question: str, *answers: str, **more: object) -> dict[str, Any]:
    return {"question": question, "answers": [{"text": text, "answer_start": 0} for text in answers], **more}


def test_squads_own_form_is_a_task_for_each_paragraph(tmp_path: Path) -> None:
    first = {"context": " It was played. ", "qas": [asks("Who?", "Denver", id="q1"), asks("When?", "2016", id="q2")]}
    second = {"context": "It ended.", "qas": []}
    read = read_dataset(written(tmp_path, official(first, second), "dev.json"))
    assert read.tasks == (
        Task("dev/1.1", "Super Bowl 50", "It was played.", (Question("Who?", "Denver"), Question("When?", "2016"))),
        Task("dev/1.2", "Super Bowl 50", "It ended."),
    )
    assert (read.skipped, read.bad) == ((), ())


def test_all_gold_answers_are_kept_and_the_first_is_the_answer(tmp_path: Path) -> None:
    paragraph = {"context": "c", "qas": [asks("Who?", "Denver", "Denver", "the Broncos"), asks("When?", "2016")]}
    (task,) = read_dataset(written(tmp_path, official(paragraph))).tasks
    assert [question.answer for question in task.questions] == ["Denver", "2016"]
    assert task.meta == {"answers": (("Denver", "the Broncos"), ("2016",))}


def test_what_squad_marks_as_impossible_is_no_question(tmp_path: Path) -> None:
    paragraph = {"context": "c", "qas": [asks("Who?", is_impossible=True), asks("When?", "2016", is_impossible=False)]}
    (task,) = read_dataset(written(tmp_path, official(paragraph))).tasks
    assert task.questions == (Question("When?", "2016"),)


def test_a_list_of_passages_is_a_task_for_each(tmp_path: Path) -> None:
    rows = [
        {"title": "Ada", "context": "She wrote.", "questions": [{"question": "Who?", "answer": "Ada"}]},
        {"id": 7, "context": "No title."},
    ]
    assert read_dataset(written(tmp_path, rows)).tasks == (
        Task("my-data/1", "Ada", "She wrote.", (Question("Who?", "Ada"),)),
        Task("7", "My data", "No title."),
    )


def test_rows_with_one_question_each_share_the_task_of_their_passage(tmp_path: Path) -> None:
    def row(number: int, context: str) -> dict[str, Any]:
        answers = {"text": [f"a{number}", "b"], "answer_start": [0, 1]}
        return {"id": f"q{number}", "title": "T", "context": context, "question": f"Q{number}", "answers": answers}

    rows = [row(1, "one"), row(2, "two"), row(3, "one")]
    tasks = read_dataset(written(tmp_path, rows, "my-data.jsonl")).tasks
    assert [(task.id, task.context, len(task.questions)) for task in tasks] == [
        ("my-data/1", "one", 2),
        ("my-data/2", "two", 1),
    ]
    assert tasks[0].meta == {"answers": (("a1", "b"), ("a3", "b"))}


def test_the_published_passages_are_read(data_folder: Path) -> None:
    tasks = read_dataset(str(data_folder / "seal" / "squad_val.json")).tasks
    assert (len(tasks), sum(len(task.questions) for task in tasks)) == (2067, 10570)
    assert len({task.id for task in tasks}) == len(tasks)
    assert (tasks[0].id, tasks[0].title) == ("squad_val/1", "Super Bowl 50")
    assert tasks[0].questions[0] == Question("Which NFL team represented the AFC at Super Bowl 50?", "Denver Broncos")


# ── text, training rows, chats ──


def test_a_row_of_text_is_a_task(tmp_path: Path) -> None:
    source = written(
        tmp_path, '{"text": "One."}\n\n{"text": " Two.\\n", "title": "Second", "id": "b"}\n', "notes.jsonl"
    )
    tasks = read_dataset(source).tasks
    assert tasks == (Task("notes/1", "Notes", "One."), Task("b", "Second", "Two."))
    assert examples(tasks[1]) == (Example("Second\nTwo."),)


def test_a_training_row_is_a_text_to_absorb_and_keeps_its_prompt_apart(tmp_path: Path) -> None:
    (task,) = read_dataset(written(tmp_path, [{"prompt": "Who? ", "completion": " Ada"}], "a.jsonl")).tasks
    assert task == Task("a/1", "A", "Who?\n\nAda", meta={"prompt": "Who? ", "completion": " Ada"})
    assert examples(task) == (Example(" Ada", "Who? "),)


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Who?"}, {"type": "image_url", "image_url": {}}]},
    {"role": "assistant", "content": None, "tool_calls": [{}]},
    {"role": "assistant", "content": "Ada."},
    {"role": "user", "content": "When?"},
    {"role": "assistant", "content": "1815."},
]


def test_a_chat_is_a_transcript_and_keeps_its_turns_apart(tmp_path: Path) -> None:
    (task,) = read_dataset(written(tmp_path, [{"messages": CHAT}], "a.jsonl")).tasks
    assert task.context == "System: Be brief.\n\nUser: Who?\n\nAssistant: Ada.\n\nUser: When?\n\nAssistant: 1815."
    assert task.meta["messages"][1] == {"role": "user", "content": "Who?"}
    assert examples(task) == (
        Example("Ada.", "System: Be brief.\n\nUser: Who?"),
        Example("1815.", "System: Be brief.\n\nUser: Who?\n\nAssistant: Ada.\n\nUser: When?"),
    )


def test_one_turn_before_the_assistants_is_the_prompt_as_it_stands(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada."}]
    (task,) = read_dataset(written(tmp_path, [{"messages": chat}], "a.jsonl")).tasks
    assert examples(task) == (Example("Ada.", "Who?"),)


# ── forms of file ──


def test_rows_a_line_are_recognised_whatever_the_file_is_called(tmp_path: Path) -> None:
    rows = '{"text": "one"}\n{"text": "two"}\n'
    assert [task.context for task in read_dataset(written(tmp_path, rows, "a.json")).tasks] == ["one", "two"]


def test_a_single_row_is_a_dataset(tmp_path: Path) -> None:
    assert [task.context for task in read_dataset(written(tmp_path, {"text": "one"}, "a.json")).tasks] == ["one"]


# ── bad input ──

GOOD = {"context": "c", "questions": [{"question": "q", "answer": "a"}]}
EXPECTED = '"paragraphs", "context" with "questions"'


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"text": ', "is not JSON: Expecting value"),
        ('{"text": "a"} x', "is not JSON: Extra data"),
        ("[" * 100_000, "its lists are nested too deeply"),
        (r'{"text": "\ud83d"}', "holds half a character"),
        ("[1]", "is a list; expected an object with"),
        ("3", "is the value 3; expected an object with"),
        (json.dumps({"txet": "a", "label": 1}), f"has the fields 'txet', 'label'; expected {EXPECTED}"),
        (json.dumps({"text": " "}), "has an empty text under 'text'; expected a text"),
        (json.dumps({"text": None}), "has nothing under 'text'"),
        (json.dumps({"prompt": "a", "completion": 3}), "has the value 3 under 'completion'"),
        (json.dumps({"context": "", "questions": []}), "has an empty text under 'context'"),
        (json.dumps({"context": "c", "question": "Who?", "answers": {"text": []}}), "asks 'Who?' and gives no answer"),
        (json.dumps({"context": "c", "question": "", "answer": "a"}), "has an empty text under 'question'"),
        (json.dumps({"context": "c", "questions": {}}), "has an object under 'questions'; expected a list"),
        (json.dumps({"messages": []}), "has no text in its messages"),
        (json.dumps({"messages": [{"content": "a"}]}), "has a message without a role"),
        (json.dumps({"messages": "a"}), "has a text under 'messages'; expected a list"),
    ],
)
def test_a_bad_row_is_refused_with_file_and_line_or_left_out(tmp_path: Path, line: str, what: str) -> None:
    source = written(tmp_path, f"{json.dumps(GOOD)}\n\n{line}\n{json.dumps(GOOD)}\n", "a.jsonl")
    assert refusal(source).startswith(f"line 3 of {source!r}")
    assert what in refusal(source)
    read = read_dataset(source, skip_bad=True)
    assert [task.id for task in read.tasks if task.questions] == ["a/1", "a/4"]
    assert read.bad == (refusal(source),)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([GOOD, {"context": "d", "questions": [GOOD, {"question": "Who?"}]}], "question 1 of row 2 of"),
        ([{"context": "d", "questions": [{"question": "Who?"}]}], "question 1 of row 1 of"),
        (official({"context": "c", "qas": []}, {"context": "", "qas": []}), "paragraph 2 of article 1 of"),
        (official({"context": "c", "qas": [asks("Who?")]}), "question 1 of paragraph 1 of article 1 of"),
        (official("text"), 'is a text without "qas"'),
        (official({"context": "c"}), 'is an object without "qas"'),
        (official({"context": "c", "qas": ["Who?"]}), "is a text; expected an object with a question and its answer"),
        ([{"id": "x", "text": "a"}, {"id": "x", "text": "b"}], "has the id 'x', which row 1 of"),
        (official({"context": "c", "qas": [asks("a", "b", id=1), asks("c", "d", id=1)]}), "has the id '1', which"),
    ],
)
def test_a_bad_passage_or_question_is_refused_with_its_place(tmp_path: Path, rows: object, what: str) -> None:
    assert what in refusal(written(tmp_path, rows))


def test_a_bad_question_leaves_its_passage(tmp_path: Path) -> None:
    paragraph = {"context": "c", "qas": [asks("Who?"), asks("When?", "now", "2016"), asks("")]}
    read = read_dataset(written(tmp_path, official(paragraph)), skip_bad=True)
    assert [task.questions for task in read.tasks] == [(Question("When?", "now"),)]
    assert read.tasks[0].meta == {"answers": (("now", "2016"),)}
    assert len(read.bad) == 2


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.json", "", "is empty; expected rows with"),
        ("a.jsonl", " \n", "is empty; expected rows with"),
        ("a.json", "[]", "holds no rows"),
        ("a.json", '[{"text": "a"},\n {"text": }]', "is not JSON (line 2, column 11): Expecting value"),
        ("a.json", "{}", "has the fields {}; expected"),
        ("a.xml", "<a/>", "is of no kind that is read; known: .arrow, .csv, .json"),
    ],
)
def test_a_file_that_is_no_dataset_is_refused(tmp_path: Path, name: str, content: str, what: str) -> None:
    assert what in refusal(written(tmp_path, content, name))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "caf\xe9"}')
    assert "is not UTF-8 text: see line 1" in refusal(str(tmp_path / "a.jsonl"))


def test_a_file_beyond_the_size_limit_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(100_000_000)
    assert "holds 100 MB and at most 50 are read" in refusal(str(tmp_path / "a.json"))


@pytest.mark.parametrize("source", ["nowhere.jsonl", "no/such/folder", "./here", "a b", "squad.parquet"])
def test_a_dataset_that_is_not_there_is_refused_without_a_look_at_the_hub(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    says = refusal(source)
    assert says.startswith(("there is no file, folder or hub id", "cannot read")), says


def test_a_split_of_a_file_is_refused(tmp_path: Path) -> None:
    assert "is one file without splits" in refusal(written(tmp_path, [GOOD]), "train")


def test_a_dataset_without_a_good_row_is_refused_whatever_may_be_left_out(tmp_path: Path) -> None:
    source = written(tmp_path, [{"a": 1}, {"text": ""}])
    with pytest.raises(InputError, match=r"no row of .* can be used: row 1 of .*, and so with 1 more"):
        read_dataset(source, skip_bad=True)


# ── laws ──

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda text: bool(text.strip()))
QUESTIONS = st.lists(st.fixed_dictionaries({"question": TEXTS, "answer": TEXTS}), max_size=3)
PASSAGES = st.lists(
    st.fixed_dictionaries({"title": TEXTS, "context": TEXTS, "questions": QUESTIONS}), min_size=1, max_size=4
)


@given(passages=PASSAGES)
def test_a_list_and_lines_and_squads_form_hold_the_same(
    passages: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    articles = [
        {"title": p["title"], "paragraphs": [{"context": p["context"], "qas": p["questions"]}]} for p in passages
    ]
    forms = [(passages, "a.json"), (passages, "a.jsonl"), ({"data": articles}, "a.json")]
    read = [read_dataset(written(folder, content, name)).tasks for content, name in forms]
    contents = [[(task.context, task.questions) for task in tasks] for tasks in read]
    assert contents[0] == contents[1] == contents[2]
    assert [task.context for task in read[0]] == [passage["context"].strip() for passage in passages]
    assert all(len({task.id for task in tasks}) == len(passages) for tasks in read)


@given(passages=PASSAGES, at=st.integers(0, 4))
def test_leaving_a_row_out_renames_no_other(
    passages: list[dict[str, Any]], at: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    rows = [*passages[:at], {"bad": 1}, *passages[at:]]
    read = read_dataset(written(folder, rows, "a.jsonl"), skip_bad=True)
    assert [task.id for task in read.tasks] == [f"a/{i}" for i, row in enumerate(rows, 1) if row in passages]
    assert len(read.bad) == 1


# ── Hugging Face ──


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Give the library, its cache in a folder of the test's and its progress bars off."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield datasets
    datasets.enable_progress_bars()


SQUAD_ROWS = [
    {"id": f"q{i}", "title": "Ada_L", "context": "one", "question": question, "answers": {"text": answers}}
    for i, (question, answers) in enumerate([("Who?", ["Ada"]), ("When?", ["1815", "then"])])
]
SQUAD_TASK = Task(
    "", "Ada L", "one", (Question("Who?", "Ada"), Question("When?", "1815")), {"answers": (("Ada",), ("1815", "then"))}
)


def without_ids(tasks: tuple[Task, ...]) -> list[Task]:
    return [Task("", task.title, task.context, task.questions, task.meta) for task in tasks]


def test_a_saved_dataset_is_read(hub: Any, tmp_path: Path) -> None:
    hub.Dataset.from_list(SQUAD_ROWS).save_to_disk(tmp_path / "saved")
    read = read_dataset(str(tmp_path / "saved"))
    assert without_ids(read.tasks) == [SQUAD_TASK]
    assert read.tasks[0].id == "saved/1"


def test_a_saved_dataset_with_splits_asks_for_one(hub: Any, tmp_path: Path) -> None:
    one, two = (hub.Dataset.from_list([{"text": text}]) for text in ("one", "two"))
    hub.DatasetDict({"train": one, "test": two}).save_to_disk(tmp_path / "saved")
    source = str(tmp_path / "saved")
    assert [task.context for task in read_dataset(source, "test").tasks] == ["two"]
    assert "has the splits train, test; name one" in refusal(source)
    assert "has no split 'tset'; did you mean 'test'?" in refusal(source, "tset")


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_file_is_read_by_the_library(hub: Any, tmp_path: Path, form: str) -> None:
    rows = hub.Dataset.from_list([{"title": "t", "text": text} for text in ("one", "two", " ")])
    getattr(rows, f"to_{form}")(str(tmp_path / f"a.{form}"))
    source = str(tmp_path / f"a.{form}")
    assert [task.context for task in read_dataset(source, "train[:2]").tasks] == ["one", "two"]
    assert refusal(source).startswith(f"row 3 of {source!r} has")
    assert len(read_dataset(source, skip_bad=True).bad) == 1


def test_a_folder_of_files_is_read_by_the_library(hub: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    written(tmp_path / "mine", [{"text": "one"}], "train.jsonl")
    assert [task.id for task in read_dataset(str(tmp_path / "mine")).tasks] == ["mine/1"]


def test_a_folder_without_data_is_refused(hub: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert "cannot be loaded" in refusal(str(tmp_path / "mine"))


def test_a_dataset_of_the_hub_is_loaded_by_its_id(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str, split: str | None) -> Any:
        asked.append((name, split))
        rows = hub.Dataset.from_list(SQUAD_ROWS)
        return rows if split else hub.DatasetDict({"train": rows})

    monkeypatch.setattr(hub, "load_dataset", load)
    assert without_ids(read_dataset("rajpurkar/squad").tasks) == [SQUAD_TASK]
    assert read_dataset("rajpurkar/squad", "train[:10]").tasks[0].id == "squad/1"
    assert asked == [("rajpurkar/squad", None), ("rajpurkar/squad", "train[:10]")]


def test_a_dataset_that_the_hub_does_not_give_is_refused_in_one_sentence(
    hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str, split: str | None) -> Any:
        raise hub.exceptions.DatasetNotFoundError(f"Dataset '{name}' doesn't exist\nor cannot be accessed.")

    monkeypatch.setattr(hub, "load_dataset", load)
    says = "the dataset 'no/such' cannot be loaded: Dataset 'no/such' doesn't exist or cannot be accessed."
    assert refusal("no/such") == says


def test_a_dataset_beyond_the_size_limit_is_refused_with_a_way_out(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfedit.sources.files.LARGEST", 10)
    monkeypatch.setattr(hub, "load_dataset", lambda name, split: hub.Dataset.from_list([{"text": "more than that"}]))
    assert "give a part of it, such as split 'train[:1000]'" in refusal("some/data")


def test_without_the_library_the_pip_line_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"the dataset 'some/data' needs .*pip install 'selfedit\[datasets\]'"):
        read_dataset("some/data")
    assert len(read_dataset(written(tmp_path, [GOOD])).tasks) == 1
