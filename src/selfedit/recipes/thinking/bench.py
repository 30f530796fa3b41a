"""What both parts of the experiment share: to draw, to ask, to train, and to write down what came of it.

A stage is all chains of a seed with one update. It is run whole or not at all: what shares a pass changes the last
digits, and a resumed run shall be the unbroken one.

Axis suffixes: C chains, Q questions, N items.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from selfedit.engine.base import AnswerJob, Backend, SampleJob
from selfedit.errors import BadEdit, RunError
from selfedit.loop.inner import seed_of
from selfedit.recipe import Recipe
from selfedit.recipes.thinking.chains import Chain
from selfedit.recipes.thinking.lessons import own_questions, study
from selfedit.runs import Run
from selfedit.tasks.base import Domain, Grader
from selfedit.tasks.exams import answer_prompt, exam_prompt
from selfedit.types import (
    Adapter,
    Example,
    Failure,
    Question,
    Sample,
    SelfEdit,
    Task,
    TrainJob,
    TrainSettings,
    Trial,
    mean_score,
)


@dataclass(frozen=True, slots=True)
class Bench:
    """A seed's experiment. `recipe.together` chains in a row share an adapter."""

    recipe: Recipe
    domain: Domain
    engine: Backend
    grade: Grader
    run: Run
    chains_C: Sequence[Chain]
    on_trial: Callable[[str], None]

    def is_done(self, stage: str, arms: Sequence[str]) -> bool:
        """Say whether a stage has all its trials; if so, count them."""
        keys = [_key(stage, arm, chain) for arm in arms for chain in self.chains_C]
        if not all(key in self.run.trials() for key in keys):
            return False
        for key in keys:
            self.on_trial(key)
        return True

    def draw(self, label: str, tasks: Sequence[Task], ask: Callable[[Task], str], n: int) -> list[tuple[Sample, ...]]:
        """Draw `n` texts on each passage, or take up what an earlier run has drawn."""
        sample = self.recipe.sample
        missing = [task for task in tasks if f"{label}/{task.id}" not in self.run.drawn()]
        shape = None, sample.temperature, sample.top_p, sample.max_tokens
        jobs = [SampleJob(ask(task), n, seed_of(self.recipe.seed, label, task.id), *shape) for task in missing]
        for task, drawn in zip(missing, self.engine.sample(jobs) if jobs else [], strict=True):
            if isinstance(drawn, Failure):
                raise _lost(f"nothing could be written on {task.id}", drawn)
            self.run.save_samples(f"{label}/{task.id}", drawn)
        return [self.run.drawn()[f"{label}/{task.id}"] for task in tasks]

    def ask(self, prompts_NQ: Sequence[Sequence[str]], adapters_N: Sequence[Adapter | None]) -> list[list[str]]:
        """Answer each row of prompts with the adapter beside it, [N][Q]."""
        rows = [i for i, prompts in enumerate(prompts_NQ) if prompts]
        jobs = [AnswerJob(tuple(prompts_NQ[i]), adapters_N[i], self.recipe.exam.max_tokens) for i in rows]
        answers_NQ: list[list[str]] = [[] for _ in prompts_NQ]
        for i, answers in zip(rows, self.engine.answer(jobs) if jobs else [], strict=True):
            if isinstance(answers, Failure):
                raise _lost("a question could not be answered", answers)
            answers_NQ[i] = [answer.strip() for answer in answers]
        return answers_NQ

    def read(self, tasks_N: Sequence[Task], questions_NQ: Sequence[Sequence[str]]) -> list[list[str]]:
        """Let the untrained model answer questions with their passage in view, [N][Q]."""
        prompts = [
            [answer_prompt(question, task.title, task.context) for question in questions]
            for task, questions in zip(tasks_N, questions_NQ, strict=True)
        ]
        return self.ask(prompts, [None] * len(tasks_N))

    def edits(self, tasks_N: Sequence[Task]) -> list[list[Example]]:
        """Write self-edits on passages; one that cannot be used leaves its passage alone."""
        drawn_N = self.draw("edit", tasks_N, self.domain.prompt, self.recipe.sample.edits)
        return [
            [example for sample in drawn for example in self._parsed(task, sample).examples]
            for task, drawn in zip(tasks_N, drawn_N, strict=True)
        ]

    def passages(self, tasks_N: Sequence[Task]) -> list[list[Example]]:
        return [list(self.domain.without_edit(task).examples) for task in tasks_N]

    def studies(self, tasks_N: Sequence[Task]) -> list[list[Example]]:
        """Write questions on passages, and answer them with the passage in view."""
        drawn_N = self.draw("study", tasks_N, lambda t: exam_prompt(t.title, t.context), self.recipe.exam.draws)
        questions_N = [own_questions(drawn) for drawn in drawn_N]
        read_N = self.read(tasks_N, questions_N)
        return [study(*each) for each in zip(tasks_N, questions_N, read_N, strict=True)]

    def train(
        self,
        stage: str,
        examples_C: Sequence[Sequence[Example]],
        settings: TrainSettings,
        under_C: Sequence[Adapter | None] | None = None,
    ) -> list[Adapter | None]:
        """Train an adapter for as many chains as share one, on the examples of all of them; each chain's is returned,
        [C]. Where there are none, it stays what it was."""
        n = self.recipe.together
        groups = [range(start, min(start + n, len(examples_C))) for start in range(0, len(examples_C), n)]
        under_C = under_C or [None] * len(examples_C)
        adapters_C = list(under_C)
        jobs = {}
        for group in groups:
            if examples := [example for c in group for example in examples_C[c]]:
                data = tuple(self.engine.encode(examples, settings))
                seed = seed_of(self.recipe.seed, stage, self.chains_C[group[0]].id)
                jobs[group] = TrainJob(data, settings, seed, under=under_C[group[0]])
        for group, adapter in zip(jobs, self.engine.train(list(jobs.values())) if jobs else [], strict=True):
            if isinstance(adapter, Failure):
                raise _lost(f"the update {stage!r} failed", adapter)
            for c in group:
                adapters_C[c] = adapter
        return adapters_C

    def release(self, adapters_C: Sequence[Adapter | None]) -> None:
        for adapter in {adapter for adapter in adapters_C if adapter}:
            self.engine.release(adapter)

    def mark(self, questions: Sequence[Question], answers: Sequence[str]) -> float | None:
        """Return the mean mark."""
        return mean_score(self.grade(questions, answers))

    def record(
        self,
        stage: str,
        arm: str,
        adapters_C: Sequence[Adapter | None],
        answers_CQ: Sequence[Sequence[str]],
        measures_C: Sequence[Mapping[str, float | None]],
        started: float,
    ) -> None:
        """Write down the answers to all two-step questions of one arm; `started` is the processor time then."""
        seconds = (time.process_time() - started) / len(self.chains_C)
        for chain, adapter, answers, measures in zip(self.chains_C, adapters_C, answers_CQ, measures_C, strict=True):
            scores_Q = tuple(self.grade(chain.far.questions, answers))
            key = _key(stage, arm, chain)
            self.run.append(
                Trial(
                    key=key,
                    task_id=chain.id,
                    edit=0,
                    repeat=0,
                    seed=self.recipe.seed,
                    sample=None,
                    adapter=adapter.id if adapter else None,
                    before_Q=(),
                    after_Q=scores_Q,
                    reward=mean_score(scores_Q),
                    failure=None,
                    cost={"seconds": seconds},
                    measures=measures,
                )
            )
            self.on_trial(key)

    def _parsed(self, task: Task, sample: Sample) -> SelfEdit:
        try:
            return self.domain.parse(task, sample)
        except BadEdit:
            return self.domain.without_edit(task)


def as_distilling(settings: TrainSettings) -> TrainSettings:
    """Confine the loss to answers."""
    return replace(settings, loss_on="completion")


def _key(stage: str, arm: str, chain: Chain) -> str:
    return f"{stage}/{arm}/{chain.id}"


def _lost(what: str, failure: Failure) -> RunError:
    return RunError(f"{what}: {failure.message}; what was measured is kept, and the same command goes on with it")
