"""Exams: how a question is put to a model, with or without the passage in view, and exams that the model writes itself.

The answer form is the paper's (arXiv 2506.10943, appendix B): an instruction to be brief, `Question: Topic: {title}`,
the question, `Answer:`. `read_exam` reads what a model wrote when asked for an exam on a passage.

Most texts come without questions. Then the model that is to learn writes them, before any self-edit is drawn, and the
exam stands from then on: what is rewarded cannot be what is easily asked about a self-edit. Of what it wrote in several
draws, `set_exam` keeps what it answers with the passage in view and not without it: the passage says it and the weights
do not. `halve` parts these questions into a visible half, whose marks are the reward, and a hidden one that is only
reported, so that no fact is in both; `without_copies` keeps either out of what is trained on.

    drafted, n_written = gather(texts)
    exam = set_exam(task.id, drafted, n_written, in_view_Q, closed_book_Q)
    task = with_exam(task, exam.questions)

Axis suffixes: Q questions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from selfedit.errors import BadEdit
from selfedit.tasks.graders import normalise
from selfedit.types import Exam, Failure, Question, Score, SelfEdit, Task

OWN = "self-made"  # the kind of the questions that the model wrote itself
RIGHT = 0.5  # a mark above it is a right answer: graders may give parts of a mark
SHORTEST = 6  # letters and digits that a question has at least, lest it be found in texts that do not ask it

_BRIEF = "Answer the question briefly and directly."
_EXAM = "Write exam questions about the passage, with short answers."
_OPENING = "Question 1: "
_NUMBER = re.compile(r"Question \d+:")
_ITEM = re.compile(r"^[ \t]*Question \d+:[ \t]*(\S.*)\n\s*Answer:[ \t]*(\S.*)$", re.MULTILINE)
_ANSWER = re.compile(r"\s*(?:answer|a)\s*\d*\s*:", re.IGNORECASE)
_NAMED = 5  # of the texts without an exam


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
    found = _items(text)
    if not found:
        raise BadEdit("no question with an answer in the exam")
    return found


def _items(text: str) -> list[Question]:
    opening = "" if _NUMBER.match(text.lstrip()) else _OPENING  # some models repeat it
    return [Question(q.strip(), a.strip()) for q, a in _ITEM.findall(opening + text)]


# ── an exam of the model's own ──


def gather(texts: Sequence[str], forbidden: Sequence[Question] = ()) -> tuple[list[Question], int]:
    """Collect what a model wrote in several draws: each question with each of its answers once, and how many there were
    in all. What is too short to ask anything, and what asks for a `forbidden` fact, is left out of both."""
    asked = [item for text in texts for item in _items(text) if len(_key(item.question)) >= SHORTEST]
    n_secrets = len(_groups(forbidden))
    found = [item for item in asked if len(_groups([item, *forbidden])) > n_secrets]
    distinct: dict[tuple[str, str], Question] = {}
    for item in found:
        distinct.setdefault((_key(item.question), _key(item.answer)), item)
    return list(distinct.values()), len(found)


def set_exam(
    task_id: str,
    drafted: Sequence[Question],
    n_written: int,
    in_view_Q: Sequence[Score],
    closed_book_Q: Sequence[Score],
) -> Exam:
    """Keep the questions that were answered rightly with the text in view and wrongly without it, once each, in halves.

    `in_view_Q` and `closed_book_Q` mark the model's answers to the `drafted` questions.
    """
    kept: dict[str, Question] = {}
    counts = {"n_repeated": n_written - len(drafted), "n_wrong": 0, "n_known": 0, "n_unmarked": 0}
    for question, in_view, closed in zip(drafted, in_view_Q, closed_book_Q, strict=True):
        if in_view.value is None or closed.value is None:
            counts["n_unmarked"] += 1
        elif in_view.value <= RIGHT:
            counts["n_wrong"] += 1
        elif closed.value > RIGHT:
            counts["n_known"] += 1
        elif _key(question.question) in kept:
            counts["n_repeated"] += 1
        else:
            kept[_key(question.question)] = question
    failure = None
    if drafted and counts["n_unmarked"] == len(drafted):
        why = next(score.why for score in (*in_view_Q, *closed_book_Q) if score.value is None)
        failure = Failure("grade", "Unmarked", f"no answer to the exam could be marked: {why}")
    return Exam(task_id, halve(list(kept.values())), n_written, **counts, failure=failure)


def halve(questions: Sequence[Question]) -> tuple[Question, ...]:
    """Share out questions on one text, in their order: a visible half with the role "exam", a hidden one.

    What asks for one fact in several wordings goes to one half, or the visible half would tell what the hidden one
    asks. Two questions do so where all words of one's answer are in the other's ("1991", "in May 1991"), where they
    differ in the order of their words alone, or where each asks for what the other says ("Who wrote Emma?", "What did
    Jane Austen write?"); and so do two with a third. That is careful rather than sharp: "yes" goes with "yes". In the
    order of its first question, each group goes to the half that has fewer, the first to the visible one.
    """
    halves: tuple[list[int], list[int]] = ([], [])
    for group in _groups(questions):
        min(halves, key=len).extend(group)
    hidden = set(halves[1])
    return tuple(
        replace(question, kind=OWN, role="hidden" if place in hidden else "exam")
        for place, question in enumerate(questions)
    )


def with_exam(task: Task, questions: Sequence[Question]) -> Task:
    """Examine a task on questions of the model's own; the exam that came with it is marked beside them."""
    came = (replace(q, role="given") if q.role == "exam" else q for q in task.questions)
    return replace(task, questions=(*questions, *came))


def has_own_exam(task: Task) -> bool:
    """Say whether the model wrote the task's exam, or a part of it, itself."""
    return any(question.kind == OWN for question in task.questions)


def without_copies(edit: SelfEdit, task: Task) -> SelfEdit:
    """Leave out the lines of a self-edit that hold a question of the model's own exam on the task, with the answer that
    stands under one; they are counted. The passage itself stays.

    Raises `BadEdit` where nothing but the passage is left of it.
    """
    keys = [_key(question.question) for question in task.questions if question.kind == OWN]
    passage = f"{task.title}\n{task.context}"
    examples = []
    n_copied = 0
    for example in edit.examples if keys else ():
        title, _, piece = example.text.partition("\n")
        kept, n = ("", 0) if example.text == passage else _without(piece, keys)
        n_copied += n
        if kept or not n:
            examples.append(replace(example, text=f"{title}\n{kept}") if n else example)
    if not n_copied:
        return edit
    if all(example.text == passage for example in examples):
        raise BadEdit("every line of the self-edit copies a question of the exam")
    return replace(edit, examples=tuple(examples), n_copied=n_copied)


def describe(exams: Sequence[Exam]) -> str:
    """Say what became of the exams that a model wrote itself: what was kept, what was dropped and why, who has none."""
    kept = [question for exam in exams for question in exam.questions]
    n_visible = sum(question.role == "exam" for question in kept)
    without = [exam for exam in exams if not exam.questions]
    failure = next((f" ({exam.failure.message})" for exam in without if exam.failure), "")
    named = ", ".join(repr(exam.task_id) for exam in without[:_NAMED]) + (" …" if len(without) > _NAMED else "")

    def total(count: str) -> str:
        return f"{sum(getattr(exam, count) for exam in exams):,}"

    return (
        f"{len(exams) - len(without):,} of {len(exams):,} texts have an exam that the model wrote before any "
        f"self-edit. Of the {total('n_written')} questions it wrote, {total('n_repeated')} repeated others, "
        f"{total('n_wrong')} were answered wrongly with the text in view, {total('n_known')} rightly without it, "
        f"{total('n_unmarked')} could not be marked; {n_visible:,} choose, {len(kept) - n_visible:,} choose nothing "
        "and are reported." + (f" Without an exam, and so without a score: {named}{failure}." if without else "")
    )


def _groups(questions: Sequence[Question]) -> list[list[int]]:
    """Group the places of questions that ask for one fact, in the order of the groups' first questions."""
    asked = [frozenset(normalise(question.question)) for question in questions]
    answers = [frozenset(normalise(question.answer)) for question in questions]

    def is_one_fact(a: int, b: int) -> bool:
        return (
            answers[a] <= answers[b]
            or answers[b] <= answers[a]
            or asked[a] == asked[b]
            or (answers[a] <= asked[b] and answers[b] <= asked[a])
        )

    groups: list[list[int]] = []
    for place in range(len(questions)):
        linked = [group for group in groups if any(is_one_fact(place, other) for other in group)]
        groups = [group for group in groups if group not in linked]
        groups.append(sorted([place, *(other for group in linked for other in group)]))
    return sorted(groups)


def _key(text: str) -> str:
    """What a text comes to without case, punctuation, articles and spaces, which not all scripts have."""
    return "".join(normalise(text))


def _without(piece: str, keys: Sequence[str]) -> tuple[str, int]:
    """Leave out the lines that hold one of `keys` and the answers under them; return the rest, "" if nothing is said in
    it, and how many lines were copies."""
    kept: list[str] = []
    n_copied, is_answered = 0, True
    for line in piece.split("\n"):
        if _holds(line, keys):
            n_copied, is_answered = n_copied + 1, False
        elif is_answered or (line.strip() and not _ANSWER.match(line)):
            kept.append(line)
            is_answered = True
        else:
            is_answered = bool(line.strip())
    rest = "\n".join(kept)
    if _holds(rest, keys):  # a question that runs over several lines
        return "", n_copied + 1
    return (rest if _key(_NUMBER.sub("", rest)) else ""), n_copied


def _holds(text: str, keys: Sequence[str]) -> bool:
    key = _key(text)
    return any(each in key for each in keys)
