"""From the rows of a dataset to tasks. What a row is shows in its fields:

    {"title", "paragraphs": [{"context", "qas": [{"id", "question", "answers": [{"text"}]}]}]}   an article of SQuAD's
    {"title", "context", "questions": [{"question", "answer", "role"}]}                     a passage and its exam
    {"id", "title", "context", "question", "answers": {"text": […]}}                        SQuAD as the hub has it
    {"text"}    {"prompt", "completion"}    {"messages": [{"role", "content"}]}             text, training row, chat

Every row is a task, so that whatever takes tasks takes every dataset. A training row or chat is written out as the text
to absorb, and its `meta` keeps its fields apart: `examples` gives the training sequences that it is, with their
prompts. "title" and "id" may stand in any row.

A question's first gold answer is `Question.answer`, which graders compare with. Where a question has several, the
task's `meta["answers"]` holds them all: a tuple for each question. The role "forbidden" is of what must not be
learnt. What SQuAD 2.0 marks as impossible to answer is no question for a closed-book exam, and is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfedit.errors import InputError
from selfedit.sources.files import leaving_out
from selfedit.types import Example, Question, Role, Task

FORMS = (
    '"paragraphs", "context" with "questions", "context" with "question" and "answers", "text", '
    '"prompt" with "completion", or "messages"'
)


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was read, the id of its task where it names none, and the words for its place in messages."""

    value: Any
    id: str
    where: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question with all its gold answers."""

    question: str
    answers: tuple[str, ...]
    role: Role = "exam"


class Reading:
    """The tasks read so far. `bad` collects the sentences on what is left out; None lets the errors through."""

    def __init__(self, title: str, bad: list[str] | None) -> None:
        self.title = title
        self.bad = bad
        self.tasks: dict[str, Task] = {}
        self._asked: dict[str, list[_Asked]] = {}
        self._seen: dict[tuple[str, str], str] = {}
        self._passages: dict[tuple[str, str], str] = {}

    def read(self, row: Row) -> None:
        """Add a row's tasks and questions. Raises `InputError` for a row that cannot be used."""
        with leaving_out(self.bad):
            if not isinstance(row.value, Mapping):
                raise InputError(f"{row.where} is {_kind(row.value)}; expected an object with {FORMS}")
            read = next((read for fields, read in _READERS if all(name in row.value for name in fields)), None)
            if read is None:
                raise InputError(f"{row.where} has the fields {_names(row.value)}; expected {FORMS}")
            read(self, row)

    def finished(self) -> tuple[Task, ...]:
        """Return the tasks with their questions, in the order of their first rows."""
        return tuple(_with_questions(task, self._asked[task.id]) for task in self.tasks.values())

    def add(self, row: Row, task: Task) -> str:
        """Add a task. Raises `InputError` for an id that there is already."""
        self._note("task", task.id, row.where)
        self.tasks[task.id] = task
        self._asked[task.id] = []
        return task.id

    def ask(self, task_id: str, row: Row) -> None:
        """Add a question to a task. Raises `InputError` for one without text or answer, or with an id already taken."""
        with leaving_out(self.bad):
            if not isinstance(row.value, Mapping):
                raise InputError(
                    f"{row.where} is {_kind(row.value)}; expected an object with a question and its answer"
                )
            if row.value.get("is_impossible") is True:
                return
            question = _text(row, "question")
            answers = _answers(row.value)
            if not answers:
                raise InputError(f"{row.where} asks {_short(question)} and gives no answer; add one or remove it")
            if "id" in row.value:
                self._note("question", str(row.value["id"]), row.where)
            self._asked[task_id].append(_Asked(question, answers, _role(row)))

    def passage(self, row: Row, title: str, context: str) -> str:
        """Return the task of a passage that several rows ask about, adding it at the first."""
        key = (title, context)
        if key not in self._passages:
            self._passages[key] = self.add(row, Task(row.id, title, context))
        return self._passages[key]

    def title_of(self, row: Row) -> str:
        title = row.value.get("title")
        return " ".join(title.split()) if isinstance(title, str) and title.strip() else self.title

    def _note(self, kind: str, name: str, where: str) -> None:
        first = self._seen.setdefault((kind, name), where)
        if first != where:
            raise InputError(f"{where} has the id {name!r}, which {first} has already; ids must differ")


def examples(task: Task) -> tuple[Example, ...]:
    """Return the training sequences that a task's row is.

    A completion after its prompt; every turn of the assistant's after the turns before it; else the titled text.
    """
    if "messages" in task.meta:
        return tuple(_turns_as_examples(task.meta["messages"]))
    if "completion" in task.meta:
        return (Example(task.meta["completion"], task.meta["prompt"]),)
    return (Example(f"{task.title}\n{task.context}"),)


# ── the forms ──


def _read_article(reading: Reading, row: Row) -> None:
    title = _spaced(reading.title_of(row))
    for i, value in enumerate(_items(row, "paragraphs"), 1):
        paragraph = Row(value, f"{row.id}.{i}", f"paragraph {i} of {row.where}")
        with leaving_out(reading.bad):
            if not isinstance(value, Mapping) or "qas" not in value:
                raise InputError(f'{paragraph.where} is {_kind(value)} without "qas"; expected "context" and "qas"')
            task_id = reading.add(paragraph, Task(paragraph.id, title, _text(paragraph, "context")))
            for question in _within(paragraph, "qas"):
                reading.ask(task_id, question)


def _read_passage(reading: Reading, row: Row) -> None:
    task_id = reading.add(row, Task(_id(row), reading.title_of(row), _text(row, "context")))
    for question in _within(row, "questions") if "questions" in row.value else ():
        reading.ask(task_id, question)


def _read_question(reading: Reading, row: Row) -> None:
    task_id = reading.passage(row, _spaced(reading.title_of(row)), _text(row, "context"))
    reading.ask(task_id, row)


def _read_chat(reading: Reading, row: Row) -> None:
    messages = tuple(_message(value, row.where) for value in _items(row, "messages"))
    context = _transcript(messages)
    if not context:
        raise InputError(f"{row.where} has no text in its messages; write something in them or remove it")
    reading.add(row, Task(_id(row), reading.title_of(row), context, meta={"messages": messages}))


def _read_pair(reading: Reading, row: Row) -> None:
    prompt, completion = _text(row, "prompt"), _text(row, "completion")
    meta = {"prompt": row.value["prompt"], "completion": row.value["completion"]}
    reading.add(row, Task(_id(row), reading.title_of(row), f"{prompt}\n\n{completion}", meta=meta))


def _read_text(reading: Reading, row: Row) -> None:
    reading.add(row, Task(_id(row), reading.title_of(row), _text(row, "text")))


_READERS: tuple[tuple[tuple[str, ...], Callable[[Reading, Row], None]], ...] = (
    (("paragraphs",), _read_article),
    (("context", "questions"), _read_passage),
    (("context", "question"), _read_question),
    (("messages",), _read_chat),
    (("prompt", "completion"), _read_pair),
    (("context",), _read_passage),
    (("text",), _read_text),
)


# ── chats ──


def _message(value: Any, where: str) -> dict[str, str]:
    """Return a turn's role and text. Of a content in parts, the texts count; a call of a tool has none."""
    if not isinstance(value, Mapping) or not isinstance(value.get("role"), str):
        raise InputError(f'{where} has a message without a role; expected {{"role": "user", "content": "…"}}')
    content = value.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = "\n".join(str(part["text"]) for part in content if isinstance(part, Mapping) and part.get("text"))
    return {"role": value["role"], "content": content if isinstance(content, str) else ""}


def _transcript(messages: Sequence[Mapping[str, str]]) -> str:
    turns = ((turn["role"].capitalize(), turn["content"].strip()) for turn in messages)
    return "\n\n".join(f"{role}: {content}" for role, content in turns if content)


def _turns_as_examples(messages: Sequence[Mapping[str, str]]) -> Iterator[Example]:
    """Yield the assistant's turns. The prompt is the one turn before as it stands, or a transcript of several."""
    for i, turn in enumerate(messages):
        before = [each for each in messages[:i] if each["content"].strip()]
        if turn["role"] == "assistant" and turn["content"].strip():
            yield Example(turn["content"], before[0]["content"] if len(before) == 1 else _transcript(before))


# ── fields ──


def _text(row: Row, field: str) -> str:
    """Return a field's text, without white space around it. Raises `InputError` for none."""
    value = row.value.get(field)
    if not isinstance(value, str) or not value.strip():
        found = "an empty text" if isinstance(value, str) else _kind(value)
        raise InputError(f"{row.where} has {found} under {field!r}; expected a text")
    return value.strip()


def _id(row: Row) -> str:
    """Return the id that a row names, else its place in the dataset."""
    named = row.value.get("id")
    return str(named) if isinstance(named, str | int) and str(named).strip() else row.id


def _items(row: Row, field: str) -> Sequence[Any]:
    value = row.value[field]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InputError(f"{row.where} has {_kind(value)} under {field!r}; expected a list")
    return value


def _within(row: Row, field: str) -> list[Row]:
    items = enumerate(_items(row, field), 1)
    return [Row(value, f"{row.id}.{i}", f"question {i} of {row.where}") for i, value in items]


def _role(row: Row) -> Role:
    """Read whether a question is to be learnt, as it is without a word on it, or must not be."""
    match row.value.get("role"):
        case None | "exam":
            return "exam"
        case "forbidden":
            return "forbidden"
    raise InputError(f'{row.where} has the role {row.value["role"]!r}; expected "exam" or "forbidden"')


def _answers(value: Mapping[str, Any]) -> tuple[str, ...]:
    """Return all gold answers once each, in their order, from "answer" or any of the forms of "answers"."""
    given = [value.get("answer"), value.get("answers")]
    return tuple(dict.fromkeys(text.strip() for text in _texts(given) if text.strip()))


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts of a text, of {"text": …}, or of a list of such."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(value.get("text"))
    elif isinstance(value, Sequence):
        for each in value:
            yield from _texts(each)


def _with_questions(task: Task, asked: Sequence[_Asked]) -> Task:
    questions = tuple(Question(each.question, each.answers[0], role=each.role) for each in asked)
    has_several = any(len(each.answers) > 1 for each in asked)
    meta = {**task.meta, "answers": tuple(each.answers for each in asked)} if has_several else task.meta
    return replace(task, questions=questions, meta=meta)


def _spaced(title: str) -> str:
    """Undo SQuAD's file names: "Super_Bowl_50" is "Super Bowl 50"."""
    return title if " " in title else title.replace("_", " ").strip()


def _names(value: Mapping[str, Any]) -> str:
    names = [_short(str(name)) for name in value]
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "") if names else "{}"


def _kind(value: Any) -> str:
    kinds = ((type(None), "nothing"), (Mapping, "an object"), (str, "a text"), (Sequence, "a list"))
    return next((name for kind, name in kinds if isinstance(value, kind)), f"the value {value!r}")


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:59]}…")
