"""What a student is trained on: texts with the passage out of view, and at each token what the teacher would say.

The teacher is the same model with the passage in view and no update. A `Lesson` is a text that both read: the student
as it stands, the teacher from `start` to `end` after its own prompt, which holds the passage. Whoever wrote that text,
the teacher's distributions over the next token become soft targets (`types.SoftTargets`).

    data = taught(lessons, engine, k=64)

Three sorts of material, all from one request to the model for each passage:

    lines      the lines of a self-edit, read by the teacher after the prompt that asked for them
    answers    the questions of a self-edit, each answered by the teacher
    on-policy  the same questions, each answered by the student as it is now

A question that says what one of the exam says, word for word, is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

from selfedit.engine.base import Backend, SampleJob
from selfedit.errors import BadEdit, RunError
from selfedit.loop.inner import seed_of
from selfedit.tasks.exams import answer_prompt, read_exam
from selfedit.tasks.graders import normalise
from selfedit.types import Adapter, Datum, Example, Failure, Sample, SelfEdit, Task, TrainSettings

T = TypeVar("T")
ANSWER_TOKENS = 24
PLAIN = TrainSettings()


@dataclass(frozen=True, slots=True)
class Lesson:
    """A student's text, and the part of it that a teacher reads after the prompt `view`."""

    datum: Datum
    start: int
    end: int
    view: tuple[int, ...]


def taught(lessons: Sequence[Lesson], engine: Backend, k: int) -> list[Datum]:
    """Put the `k` tokens that the teacher thinks likeliest beside each label of the parts that it reads."""
    parts = [(each.datum.tokens[each.start : each.end], each.datum.weights[each.start : each.end]) for each in lessons]
    read = [
        Datum(each.view + tokens, (0.0,) * len(each.view) + weights)
        for each, (tokens, weights) in zip(lessons, parts, strict=True)
    ]
    data = []
    for each, soft in zip(lessons, engine.top_logprobs(read, k), strict=True):
        before, after = ((),) * each.start, ((),) * (len(each.datum.tokens) - each.end)
        tokens, logprobs = ((*before, *rows[len(each.view) :], *after) for rows in (soft.tokens, soft.logprobs))
        data.append(replace(each.datum, soft=replace(soft, tokens=tokens, logprobs=logprobs)))
    return data


def lines(task: Task, edit: SelfEdit, prompt: str, engine: Backend) -> list[Lesson]:
    """Let the teacher read every line of a self-edit as the first that it would write; how the text ends, and the bare
    passage, it has nothing to say on."""
    title = len(engine.encode([Example(f"{task.title}\n")], PLAIN)[0].tokens) - 1
    view, passage = _prompt_tokens(prompt, engine), f"{task.title}\n{task.context}"
    data = engine.encode(edit.examples, PLAIN)
    return [
        Lesson(datum, title, title if example.text == passage else len(datum.tokens) - 1, view)
        for example, datum in zip(edit.examples, data, strict=True)
    ]


def questions_of(task: Task, sample: Sample) -> list[str]:
    """Read the questions of a self-edit, each once, but for those of the exam; without any, none."""
    seen = {_key(question.question) for question in task.questions}
    found = []
    with suppress(BadEdit):
        for item in read_exam(sample.text):
            if _key(item.question) not in seen:
                seen.add(_key(item.question))
                found.append(item.question)
    return found


def answered(
    tasks_P: Sequence[Task],
    questions_PQ: Sequence[Sequence[str]],
    engine: Backend,
    students_P: Sequence[Adapter | None] | None,
    seed: int,
) -> list[list[Lesson]]:
    """Have every question answered by the student of its passage, closed-book, or without students by the teacher:
    lessons, [P][Q].

    Answers are drawn at temperature 1 without a cut. Raises `RunError` where that fails.
    """
    asked = [(p, q, question) for p, questions in enumerate(questions_PQ) for q, question in enumerate(questions)]
    drawers_P = [None] * len(tasks_P) if students_P is None else students_P
    views = [answer_prompt(question, tasks_P[p].title, tasks_P[p].context) for p, _, question in asked]
    closed = [answer_prompt(question, tasks_P[p].title) for p, _, question in asked]
    jobs = [
        SampleJob(
            view if students_P is None else alone,
            1,
            seed_of(seed, tasks_P[p].id, q),
            drawers_P[p],
            top_p=1.0,
            max_tokens=ANSWER_TOKENS,
        )
        for (p, q, _), view, alone in zip(asked, views, closed, strict=True)
    ]
    lessons_P: list[list[Lesson]] = [[] for _ in tasks_P]
    for (p, _, _), view, alone, drawn in zip(asked, views, closed, engine.sample(jobs), strict=True):
        if isinstance(drawn, Failure):
            raise RunError(f"an answer could not be drawn: {drawn.message}; what was measured is kept")
        prompt, answer = _prompt_tokens(alone, engine), drawn[0].tokens
        datum = Datum(prompt + answer, (0.0,) * len(prompt) + (1.0,) * len(answer))
        lessons_P[p].append(Lesson(datum, len(prompt), len(datum.tokens), _prompt_tokens(view, engine)))
    return lessons_P


def turns(items: Sequence[T], n: int, seed: int) -> tuple[T, ...]:
    """Go round some items, each time in a new order, until there are `n`; of nothing there are none."""
    rng, found = Random(seed), list[T]()
    while items and len(found) < n:
        found += rng.sample(items, len(items))
    return tuple(found[:n])


def _prompt_tokens(prompt: str, engine: Backend) -> tuple[int, ...]:
    """Tokenise a prompt as the engine shows it."""
    return engine.encode([Example("", prompt)], PLAIN)[0].tokens[:-1]


def _key(question: str) -> str:
    return "".join(normalise(question))
