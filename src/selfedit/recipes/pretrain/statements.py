"""What a model that was pretrained on a text must know: each fact of a passage, in words that no text of it held.

Each fact is held out in one of the world's own phrasings by name, one that its passage does not use. A line of a
self-edit that says just that is left out of the corpus, so that the sentence is new to every model; how its phrasing
speaks of *other* things, the model may have read. Beside the right value stand wrong ones of the same sort, which are
true of other passages (invented, where those are too few): to know that employers are called "… Works" is not enough.

    statements_P = hold_out(tasks_P)
    texts = clean(texts, statements_P[0])

Axis suffixes: P tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfedit.tasks.world import ATTRIBUTES, VALUES, Attribute, seeded
from selfedit.types import Task

OTHERS = 7  # wrong values beside the right one


@dataclass(frozen=True, slots=True)
class Statement:
    """A fact of the thing called `title`, told up to its `value`; `text` is the whole sentence, `others` are values of
    the same sort that are not true of it."""

    title: str
    before: str
    value: str
    text: str
    others: tuple[str, ...]


def hold_out(tasks_P: Sequence[Task]) -> list[tuple[Statement, ...]]:
    """Choose how each fact that a task asks for is held out, [P][facts]. It depends on the tasks alone: no text that
    anybody writes about them moves it."""
    values: dict[str, list[str]] = {}
    for task in tasks_P:
        for attribute, value in facts_of(task):
            values.setdefault(_sort(task, attribute), []).append(value)
    return [tuple(_hold_out(task, a, value, values[_sort(task, a)]) for a, value in facts_of(task)) for task in tasks_P]


def clean(texts: Sequence[str], statements: Sequence[Statement]) -> list[str]:
    """Leave out the texts that hold one of the statements, whatever their case and spacing."""
    held_out = [_plain(statement.text) for statement in statements]
    return [text for text in texts if not any(statement in _plain(text) for statement in held_out)]


def facts_of(task: Task) -> list[tuple[Attribute, str]]:
    """Find what a task's questions ask for."""
    asked = {question.question: question.answer for question in task.questions}
    return [
        (attribute, asked[form.format(n=task.title)])
        for attribute in ATTRIBUTES[task.meta["kind"]]
        for form in attribute.ask
        if form.format(n=task.title) in asked
    ]


def _hold_out(task: Task, attribute: Attribute, value: str, values: Sequence[str]) -> Statement:
    rng = seeded("held out", task.id, attribute.name)
    told = {form: form.format(S=task.title, P=f"{task.title}'s", n=task.title, v=value) for form in attribute.tell}
    form = rng.choice([form for form, text in told.items() if _plain(text) not in _plain(task.context)])
    before = form.partition("{v}")[0].format(S=task.title, P=f"{task.title}'s", n=task.title)
    others = sorted(set(values) - {value})
    rng.shuffle(others)
    while len(others) < OTHERS:
        invented = VALUES[attribute.value](rng)
        others += [invented] if invented not in (value, *others) else []
    return Statement(task.title, before, value, told[form], tuple(others[:OTHERS]))


def _sort(task: Task, attribute: Attribute) -> str:
    return f"{task.meta['kind']}/{attribute.name}"


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
