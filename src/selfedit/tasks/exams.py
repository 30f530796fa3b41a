"""Exams: how a question is put to a model, with or without the passage in view, and exams that the model writes itself.

The answer form is the paper's (arXiv 2506.10943, appendix B): an instruction to be brief, `Question: Topic: {title}`,
the question, `Answer:`. `read_exam` reads what a model wrote when asked for an exam on a passage.
"""

from __future__ import annotations

import re

from selfedit.errors import BadEdit
from selfedit.types import Question

_BRIEF = "Answer the question briefly and directly."
_EXAM = "Write exam questions about the passage, with short answers."
_OPENING = "Question 1: "
_NUMBER = re.compile(r"Question \d+:")
_ITEM = re.compile(r"^[ \t]*Question \d+:[ \t]*(\S.*)\n\s*Answer:[ \t]*(\S.*)$", re.MULTILINE)


def answer_prompt(question: str, title: str = "", context: str = "", heading: str = "") -> str:
    """Put `question` to a model: under a `title` if there is one, closed-book unless a `context` is given.

    The context stands under `title`, or under a `heading` of its own.
    """
    view = f"{heading or title}\n{context}\n\n" if context else ""
    topic = f"Topic: {title}\n" if title else ""
    return f"{view}{_BRIEF}\n\nQuestion: {topic}{question}\nAnswer:\n"


def exam_prompt(title: str, passage: str) -> str:
    """Ask a model for an exam on a passage that is in view. It ends where the first question begins."""
    return f"{_EXAM}\n\nPassage:\n{title}\n{passage}\n\nExam:\n{_OPENING}"


def write_exam(questions: tuple[Question, ...] | list[Question]) -> str:
    """Word an exam as `read_exam` reads it, without the opening that `exam_prompt` has given."""
    items = [f"Question {i}: {q.question}\nAnswer: {q.answer}" for i, q in enumerate(questions, 1)]
    return "\n".join(items).removeprefix(_OPENING)


def read_exam(text: str) -> list[Question]:
    """Read the questions that a model wrote after `exam_prompt`, each in one line and its answer in the next.

    A question or answer that is missing costs its item and no other. Raises `BadEdit` if nothing is left.
    """
    opening = "" if _NUMBER.match(text.lstrip()) else _OPENING  # some models repeat it
    found = [Question(q.strip(), a.strip()) for q, a in _ITEM.findall(opening + text)]
    if not found:
        raise BadEdit("no question with an answer in the exam")
    return found
