"""How far a writer has moved from the model that it was, and what it can no longer do.

Drift is KL in nats per token on texts drawn after prompts of three sorts: *task*, the request that the
writer is trained to answer, about passages that it is not trained on; *formats*, requests for other formats of
self-edits; and *plain*, a title with no request at all. The same base texts serve all writers of a seed.

What is lost is the share, of what the base did rightly, that the writer does not: *reading*, questions on a passage in
view; *recall*, closed-book questions on the things that the base was pretrained on; *asking*, requests for an exam or
for questions and answers, to which it gave some. Before an answer is lost it fades: *fading* is what the
log-probability of those answers has fallen by, in nats an answer; it tells writers apart that have lost nothing yet.

    memory = remember(engine, domain, grade, recipe, unseen_P)
    measures = memory.of(adapter)  # {"kl/task/forward": 0.02, …, "lost/reading": 0.0, …}

"forward" is KL(base ‖ writer), "reverse" KL(writer ‖ base), which is measured on the task alone.

Axis suffixes: P tasks, N prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from selfedit.engine.base import Backend, SampleJob
from selfedit.errors import BadEdit, RunError
from selfedit.loop.inner import examine, seed_of
from selfedit.loop.probes import PLAIN, divergence
from selfedit.recipe import Recipe
from selfedit.tasks.base import Domain, Grader
from selfedit.tasks.edits import FORMATS
from selfedit.tasks.exams import exam_prompt, read_exam
from selfedit.tasks.world import famous_tasks, fresh_tasks
from selfedit.types import Adapter, Datum, Example, ExamSettings, Failure, Sample, Score, Task

READ = 4  # passages in view, with some 30 questions
FAMOUS = 24  # things told in pretraining, with some 180 questions, of which about 6 in 10 are known
DRAWN = 8  # texts after requests
TOLD = 32  # texts after titles alone
PLAIN_TOKENS = 48
ASKED_TOKENS = 64  # enough for a question with its answer
OTHER_FORMATS = ("rewrite", "self-qa")

MEASURES = (
    *("kl/task/forward", "kl/task/reverse", "kl/formats/forward", "kl/plain/forward"),
    *("lost/reading", "lost/recall", "lost/asking", "fading/reading", "fading/recall"),
)


@dataclass(frozen=True, slots=True)
class Texts:
    """What a model drew after some prompts, with its log-probabilities of every token."""

    data: tuple[Datum, ...]
    logprobs: tuple[Sequence[float], ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """The right answers after their prompts, and what log-probability each had before, as a whole."""

    data: tuple[Datum, ...]
    before: tuple[float, ...]

    def fading(self, engine: Backend, adapter: Adapter) -> float:
        """Return what the log-probability of an answer has fallen by, in nats; below 0 where it has risen."""
        return fmean(old - new for old, new in zip(self.before, whole(engine, self.data, adapter), strict=True))


@dataclass(frozen=True, slots=True)
class Memory:
    """What the base was before any writer was trained: its texts after prompts of each sort, and what it did rightly:
    the questions of tasks `read` with their passage in view, of tasks `recalled` without, and the exams asked for by
    `asked`. `requests` are the task's prompts."""

    engine: Backend
    domain: Domain
    grade: Grader
    exam: ExamSettings
    seed: int
    requests: tuple[str, ...]
    max_tokens: int
    texts: Mapping[str, Texts]
    read: tuple[Task, ...]
    recalled: tuple[Task, ...]
    asked: tuple[str, ...]
    answers: Mapping[str, Answers]

    def of(self, adapter: Adapter) -> dict[str, float | None]:
        """Measure one writer; None where nothing could be marked."""
        found: dict[str, float | None] = {}
        for sort, texts in self.texts.items():
            now = self.engine.logprobs(texts.data, adapter)
            found[f"kl/{sort}/forward"] = divergence(texts.data, texts.logprobs, now)
        own = draw(self.engine, self.requests, adapter, self.seed, self.max_tokens)
        found["kl/task/reverse"] = divergence(own.data, own.logprobs, self.engine.logprobs(own.data, None))
        common = self.domain, self.engine, self.grade, self.exam
        found["lost/reading"] = _lost(_in_view(self.read, adapter, *common))
        found["lost/recall"] = _lost(_closed_book(self.recalled, adapter, *common))
        found["lost/asking"] = 1 - fmean(asks(self.engine, self.asked, adapter, self.seed))
        for part, answers in self.answers.items():
            found[f"fading/{part}"] = answers.fading(self.engine, adapter)
        return found


def remember(engine: Backend, domain: Domain, grade: Grader, recipe: Recipe, unseen_P: Sequence[Task]) -> Memory:
    """Examine the base, and have it draw. Raises `RunError` where it can do nothing that could be lost."""
    seed, others = seed_of(recipe.seed, "memory"), fresh_tasks("card", max(READ + DRAWN, TOLD // 2), recipe.seed)
    requests, tokens = tuple(domain.prompt(task) for task in unseen_P), recipe.sample.max_tokens
    prompts = {
        "task": requests,
        "formats": tuple(
            FORMATS[OTHER_FORMATS[i % len(OTHER_FORMATS)]].prompt(task.title, task.context)
            for i, task in enumerate(others[READ : READ + DRAWN])
        ),
        "plain": tuple(f"{task.title}\n" for task in [*famous_tasks(TOLD // 2), *others[: TOLD // 2]]),
    }
    asking = tuple(
        exam_prompt(task.title, task.context) if i % 2 else FORMATS["self-qa"].prompt(task.title, task.context)
        for i, task in enumerate(others[READ : READ + DRAWN])
    )
    common = domain, engine, grade, recipe.exam
    read = _right(others[:READ], _in_view(others[:READ], None, *common))
    famous = famous_tasks(FAMOUS)
    recalled = _right(famous, _closed_book(famous, None, *common))
    asked = tuple(p for p, does in zip(asking, asks(engine, asking, None, seed), strict=True) if does)
    if not (read and recalled and asked):
        raise RunError(f"{engine.base} does nothing rightly that could be lost; this recipe is about the model 'pup'")
    texts = {
        sort: draw(engine, prompts[sort], None, seed, PLAIN_TOKENS if sort == "plain" else tokens) for sort in prompts
    }
    viewed = [prompt for task in read for prompt in domain.open_exam(task, [task] * len(task.questions))]
    answers = {
        "reading": gold(engine, read, viewed),
        "recall": gold(engine, recalled, [prompt for task in recalled for prompt in domain.exam(task)]),
    }
    known = tuple(read), tuple(recalled), asked, answers
    return Memory(engine, domain, grade, recipe.exam, seed, requests, tokens, texts, *known)


def gold(engine: Backend, tasks_P: Sequence[Task], prompts: Sequence[str]) -> Answers:
    """Note what the base makes of the right answers to all questions, after the prompts that ask for them."""
    answers = [question.answer for task in tasks_P for question in task.questions]
    asked = [Example(answer, prompt) for answer, prompt in zip(answers, prompts, strict=True)]
    data = engine.encode(asked, PLAIN)
    return Answers(data, tuple(whole(engine, data, None)))


def whole(engine: Backend, data: Sequence[Datum], adapter: Adapter | None) -> list[float]:
    """Add up the log-probabilities of each text's tokens that have a weight, its end among them."""
    return [
        sum(p for weight, p in zip(datum.weights, logprobs, strict=True) if weight)
        for datum, logprobs in zip(data, engine.logprobs(data, adapter), strict=True)
    ]


def draw(engine: Backend, prompts_N: Sequence[str], adapter: Adapter | None, seed: int, max_tokens: int) -> Texts:
    """Draw a text after each prompt as the divergence needs it: at temperature 1, from the whole nucleus."""
    data = tuple(
        Datum(s.prompt_tokens + s.tokens, (0.0,) * len(s.prompt_tokens) + (1.0,) * len(s.tokens))
        for s in _sampled(engine, prompts_N, adapter, seed, max_tokens, temperature=1.0)
    )
    return Texts(data, tuple(engine.logprobs(data, adapter)))


def asks(engine: Backend, prompts_N: Sequence[str], adapter: Adapter | None, seed: int) -> list[bool]:
    """Say of each request for questions whether a question with its answer comes, in the likeliest text."""
    return [
        _is_exam(sample.text) for sample in _sampled(engine, prompts_N, adapter, seed, ASKED_TOKENS, temperature=0.0)
    ]


def _is_exam(text: str) -> bool:
    try:
        return bool(read_exam(text))
    except BadEdit:
        return False


def _sampled(
    engine: Backend, prompts_N: Sequence[str], adapter: Adapter | None, seed: int, max_tokens: int, temperature: float
) -> list[Sample]:
    jobs = [SampleJob(p, 1, seed_of(seed, p), adapter, temperature, 1.0, max_tokens) for p in prompts_N]
    samples: list[Sample] = []
    for drawn in engine.sample(jobs):
        if isinstance(drawn, Failure):
            raise RunError(f"a writer could not draw a text: {drawn.message}; what was measured is kept")
        samples += drawn
    return samples


def _in_view(
    tasks_P: Sequence[Task],
    adapter: Adapter | None,
    domain: Domain,
    engine: Backend,
    grade: Grader,
    exam: ExamSettings,
) -> list[tuple[Score, ...]]:
    views_P = [[task] * len(task.questions) for task in tasks_P]
    return examine(tasks_P, [adapter] * len(tasks_P), domain, engine, grade, exam, views_P)


def _closed_book(
    tasks_P: Sequence[Task],
    adapter: Adapter | None,
    domain: Domain,
    engine: Backend,
    grade: Grader,
    exam: ExamSettings,
) -> list[tuple[Score, ...]]:
    return examine(tasks_P, [adapter] * len(tasks_P), domain, engine, grade, exam)


def _right(tasks_P: Sequence[Task], scores_PQ: Sequence[Sequence[Score]]) -> list[Task]:
    """Keep of each task the questions that were answered rightly."""
    kept = [
        replace(task, questions=tuple(q for q, score in zip(task.questions, scores, strict=True) if score.value == 1))
        for task, scores in zip(tasks_P, scores_PQ, strict=True)
    ]
    return [task for task in kept if task.questions]


def _lost(scores_PQ: Sequence[Sequence[Score]]) -> float | None:
    marks = [score.value for scores in scores_PQ for score in scores if score.value is not None]
    return 1 - fmean(marks) if marks else None
