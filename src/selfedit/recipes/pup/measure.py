"""Measure what pup can do, for its card: reading, recall, ignorance, writing in every format, stopping.

    python -m selfedit.recipes.pup.measure --model runs/pup/model      # without --model: the embedded one

Everything is measured through the engine, on entities that no training document told (recall: on the famous ones).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from statistics import fmean

from selfedit.engine.base import AnswerJob, Backend, SampleJob, open_backend
from selfedit.errors import BadEdit
from selfedit.recipes.pup.corpus import FORM_SHARES, practised
from selfedit.tasks import world, world_claims
from selfedit.tasks.edits import FORMATS, parse_edit
from selfedit.tasks.exams import answer_prompt, exam_prompt, read_exam
from selfedit.tasks.graders import load_grader
from selfedit.types import Failure, Question, Sample, Task, TrainSettings

Share = dict[str, float | int]
SPLIT = "card"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what pup can do.")
    parser.add_argument("--model", default="pup")
    parser.add_argument(
        "--passages", type=int, default=100, help="fresh passages for reading, and for each format a quarter of it"
    )
    given = parser.parse_args()
    engine = open_backend("local", given.model, "cpu")
    tasks = world.fresh_tasks(SPLIT, given.passages, seed=0)
    found = {
        "reading, single facts": share_right(engine, *in_view(tasks, "single")),
        "reading, two-step facts": share_right(engine, *in_view(tasks, "two-step")),
        "recall, asked in words never used for the fact": share_right(engine, *famous_exam(never_asked=False)),
        "recall, facts never asked at all": share_right(engine, *famous_exam(never_asked=True)),
        "knowledge of fresh entities": share_right(engine, *closed_book(tasks)),
        "answers that stop by themselves": stops(engine, tasks[:25]),
    }
    found |= {f"format {name}": writing(engine, name, tasks[: given.passages // 4]) for name in FORM_SHARES}
    found |= {"exam questions": exams(engine, tasks[:25]), "conversations": lessons(engine, given.passages // 4)}
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


def share_right(engine: Backend, questions: Sequence[Question], prompts: Sequence[str]) -> Share:
    """Ask and mark by exact match."""
    (answers,) = engine.answer([AnswerJob(tuple(prompts))])
    assert not isinstance(answers, Failure), answers
    marks = [score.value or 0.0 for score in load_grader("exact")(questions, answers)]
    return {"right": round(fmean(marks), 4), "n": len(marks)}


def in_view(tasks: Sequence[Task], kind: str) -> tuple[list[Question], list[str]]:
    asked = [(task, q) for task in tasks for q in task.questions if q.kind == kind]
    return [q for _, q in asked], [answer_prompt(q.question, task.title, task.context) for task, q in asked]


def closed_book(tasks: Sequence[Task]) -> tuple[list[Question], list[str]]:
    asked = [(task, q) for task in tasks for q in task.questions]
    return [q for _, q in asked], [answer_prompt(q.question, task.title) for task, q in asked]


def famous_exam(never_asked: bool) -> tuple[list[Question], list[str]]:
    """Questions on single facts in phrasings that training never used for them, whether it used others or none."""
    questions, prompts = [], []
    for entity in world.famous():
        for fact in entity.facts:
            used = practised(entity, fact)
            if fact.attribute.via or never_asked == bool(used):
                continue
            for form in sorted(set(fact.attribute.ask) - set(used)):
                questions.append(Question(form.format(n=entity.name), fact.value))
                prompts.append(answer_prompt(questions[-1].question, entity.name))
    return questions, prompts


def stops(engine: Backend, tasks: Sequence[Task]) -> Share:
    jobs = [SampleJob(p, 1, 0, temperature=0.0, max_tokens=64) for p in closed_book(tasks)[1]]
    ended = [result[0].stop == "eos" for result in engine.sample(jobs) if not isinstance(result, Failure)]
    return {"share": round(fmean(ended), 4), "n": len(ended)}


def draw(engine: Backend, prompts: Sequence[str]) -> list[list[Sample]]:
    """Four drawn completions of each prompt, at the temperature and top-p of the outer loop."""
    results = engine.sample([SampleJob(p, 4, seed=i, top_p=0.95, max_tokens=700) for i, p in enumerate(prompts)])
    return [result for result in results if not isinstance(result, Failure)]


def writing(engine: Backend, name: str, tasks: Sequence[Task]) -> Share:
    """How many self-edits can be used, what share of the facts they tell, what share of what they claim is wrong."""
    usable: list[bool] = []
    told: list[float] = []
    wrong: list[float] = []
    named: list[bool] = []
    for task, samples in zip(
        tasks, draw(engine, [FORMATS[name].prompt(t.title, t.context) for t in tasks]), strict=True
    ):
        for sample in samples:
            try:
                parse_edit(FORMATS[name], task, sample, TrainSettings())
            except BadEdit:
                usable.append(False)
                continue
            usable.append(sample.stop == "eos")
            told.append(fmean(q.answer in sample.text for q in task.questions))
            claims = claimed(task, sample.text)
            if claims:
                wrong.append(fmean(value not in {q.answer for q in task.questions} for value in claims))
            named.append(task.title in sample.text)
    shares: dict[str, list[float] | list[bool]] = {
        "usable": usable,
        "facts told": told,
        "claims wrong": wrong,
        "names its subject": named,
        "holds all facts": [share > 0.99 for share in told],
        "holds no fact": [share == 0 for share in told],
    }
    return {key: round(fmean(values), 3) for key, values in shares.items() if values} | {"n": len(usable)}


def claimed(task: Task, text: str) -> list[str]:
    """Find the values that a text claims for its entity in the world's own phrasings of statements."""
    return [claim.value for claim in world_claims.statements(task.meta["kind"], text)]


def exams(engine: Backend, tasks: Sequence[Task]) -> Share:
    """How many exams can be read, and what share of their answers is a fact of the passage."""
    return _judge(
        tasks,
        draw(engine, [exam_prompt(t.title, t.context) for t in tasks]),
        lambda task, text: [q.answer in {g.answer for g in task.questions} for q in read_exam(text)],
    )


def lessons(engine: Backend, n: int) -> Share:
    """How many lessons from a conversation can be used, and what share of what they claim was taught in it."""
    talks = []
    for index in range(n):
        rng = world.seeded("talk", index)
        entity = world.invent(world.KINDS[index % 4], rng)
        taught = rng.sample(entity.facts, 3)
        turns = [f"User: {world.tell(entity, fact, rng, named=True)}\nAssistant: I see." for fact in taught]
        questions = tuple(world.ask(entity, fact, rng) for fact in taught)
        talks.append(Task(str(index), entity.name, "\n".join(turns), questions, {"kind": entity.kind}))
    drawn = draw(engine, [FORMATS["conversation"].prompt(t.title, t.context) for t in talks])
    return _judge(talks, drawn, lambda t, text: [v in {q.answer for q in t.questions} for v in claimed(t, text)])


def _judge(tasks: Sequence[Task], drawn: Sequence[Sequence[Sample]], judge: Callable[[Task, str], list[bool]]) -> Share:
    readable, right = [], []
    for task, samples in zip(tasks, drawn, strict=True):
        for sample in samples:
            try:
                found = judge(task, sample.text)
            except BadEdit:
                found = []
            readable.append(bool(found))
            right += found
    return {"usable": round(fmean(readable), 3), "right": round(fmean(right or [0.0]), 3), "n": len(readable)}


if __name__ == "__main__":
    main()
