"""Few-shot learning: a task of grids, and a self-edit that says how to practise for it (arXiv 2506.10943 §3.2, §4.2).

A task shows a few pairs of grids and asks what a rule makes of another grid. The self-edit is no text to train on but a
choice, as JSON: which augmentations of the demonstrations to practise on, whether all tokens are learnt or those of the
outputs, learning rate and epochs. `arc_augment` makes the practice sets of it.

The demonstrations are the question, so they are in view at the exam. The exam without an update is therefore what the
paper calls in-context learning. Only the first test grid counts, as in the paper; the others are asked and marked.

Where a self-edit cannot be used it is a real 0, also one that would train for more than 375 steps. The published code
does otherwise, which recipe `paper` has to follow: it draws broken JSON again, up to 20 times, and examines what would
take too long untrained. Numbers out of range are its own affair.

    domain = over_tasks(read_arc(path).tasks, "tools", TrainSettings())
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from selfedit.errors import BadEdit, ConfigError, InputError, near_miss
from selfedit.tasks.arc_augment import TOOLS, PracticeSet, practice
from selfedit.tasks.arc_grids import Grid, Pair, parse_grid, rows_of, size_of, to_grid, write_grid
from selfedit.tasks.edits import Format
from selfedit.tasks.settings import choose
from selfedit.types import Example, Question, Sample, Score, SelfEdit, Task, TrainSettings

MOST_STEPS = 375

STRATEGIES: dict[str, Literal["all", "completion"]] = {
    "train_using_all_tokens": "all",
    "train_using_output_tokens": "completion",
}

_SEED = 0  # of the practice sets, as published: the same self-edit is the same training data
_FLAGS = {f"use_{tool}_augmentations": tool for tool in TOOLS}
_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)\n?```", re.DOTALL)

FORMAT = Format(
    "tools",
    "A model is going to practise on the examples of the task below, and is then tested on it. Say how it should "
    "practise. It can be given copies of the examples as well:\n"
    "- use_basic_augmentations: turned, mirrored, reflected, shifted and transposed copies\n"
    "- use_size_augmentations: copies of twice the resolution, the height or the width\n"
    "- use_chain_augmentations: turned, mirrored and transposed copies of twice the resolution\n"
    "- use_repeat_augmentations: copies laid twice below, beside, or below and beside each other\n"
    "It learns either whole examples (train_using_all_tokens) or their outputs alone (train_using_output_tokens).\n"
    "Write one JSON object and nothing else:\n"
    '{"data_generation": {"use_basic_augmentations": true or false, "use_size_augmentations": true or false, '
    '"use_chain_augmentations": true or false, "use_repeat_augmentations": true or false}, '
    '"training": {"strategy": one of the two, "learning_rate": a number, "num_train_epochs": a whole number}}',
    "Choice",
    source="Task",
)


Source = Callable[[str, int, int], list[Task]]


@dataclass(frozen=True, slots=True)
class Grids:
    """Tasks of grids, one at a time."""

    source: Source
    form: Format
    train: TrainSettings

    def tasks(self, split: str, n: int, seed: int) -> list[Task]:
        return self.source(split, n, seed)

    def prompt(self, task: Task) -> str:
        return self.form.prompt(task.title, _told(demonstrations_of(task)))

    def parse(self, task: Task, sample: Sample) -> SelfEdit:
        tools, train = read_choice(sample.text, self.train)
        return _edit(task, sample, practice(demonstrations_of(task), tools, _SEED), train)

    def without_edit(self, task: Task) -> SelfEdit:
        """Practise on the demonstrations as they are."""
        return SelfEdit(task.id, None, _examples(practice(demonstrations_of(task), (), _SEED)), self.train)

    def exam(self, task: Task) -> list[str]:
        return [ask(demonstrations_of(task), parse_grid(q.question)) for q in task.questions]

    def open_exam(self, task: Task, shown_Q: Sequence[Task]) -> list[str]:
        """Ask with the demonstrations of the tasks beside the questions: with its own, that is the exam as it is."""
        asked = zip(task.questions, shown_Q, strict=True)
        return [ask(demonstrations_of(shown), parse_grid(q.question)) for q, shown in asked]


def over_source(source: Source, form: str, train: TrainSettings, template: str = "") -> Grids:
    """Learn tasks of grids from a source. Raises `ConfigError` for another format than "tools"."""
    if form != FORMAT.name:
        raise ConfigError(f"unknown format {form!r} for tasks of grids; {near_miss(form, [FORMAT.name])}")
    return Grids(source, replace(FORMAT, template=template), train)


def over_tasks(tasks: Sequence[Task], form: str, train: TrainSettings, template: str = "") -> Grids:
    """Learn given tasks: of the split that they name in their meta, else those at the head of a shuffle for "eval" and
    those at its tail for any other. Fewer are returned where there are no more."""

    def draw(split: str, n: int, seed: int) -> list[Task]:
        has_splits = any("split" in task.meta for task in tasks)
        drawn = [task for task in tasks if not has_splits or task.meta.get("split") == split]
        shuffled = sorted(drawn, key=lambda task: hashlib.sha256(repr((seed, task.id)).encode()).digest())
        return (shuffled if has_splits or split == "eval" else shuffled[::-1])[:n]

    return over_source(draw, form, train, template)


# ── A task of grids as every task is ──


def to_task(id: str, shown: Sequence[Pair], asked: Sequence[Pair], meta: Mapping[str, Any]) -> Task:
    """Make a task: the demonstrations are its context and the test grids its questions, as JSON."""
    questions = [
        Question(json.dumps(rows_of(pair.input)), json.dumps(rows_of(pair.output)), str(meta.get("kind", "")))
        for pair in asked
    ]
    told = [{"input": rows_of(pair.input), "output": rows_of(pair.output)} for pair in shown]
    others = [replace(question, role="given") for question in questions[1:]]
    return Task(id, id, json.dumps(told), (*questions[:1], *others), meta)


def demonstrations_of(task: Task) -> tuple[Pair, ...]:
    """Read a task's demonstrations. Raises `InputError` for a task that is not of grids."""
    try:
        shown = json.loads(task.context)
        return tuple(Pair(to_grid(pair["input"]), to_grid(pair["output"])) for pair in shown)
    except (ValueError, TypeError, KeyError, InputError) as error:
        raise InputError(f"the task {task.id!r} is no task of grids; its context must be pairs of them") from error


# ── What a model reads ──


def ask(shown: Sequence[Pair], asked: Grid) -> str:
    """Word the demonstrations and the grid whose output is asked for."""
    return f"{_told(shown)}Input:\n{write_grid(asked)}\nOutput:\n"


def _told(shown: Sequence[Pair]) -> str:
    return "".join(f"Input:\n{write_grid(pair.input)}\nOutput:\n{write_grid(pair.output)}\n\n" for pair in shown)


def _examples(sets: Sequence[PracticeSet]) -> tuple[Example, ...]:
    return tuple(Example(write_grid(each.asked.output), ask(each.shown, each.asked.input)) for each in sets)


# ── What a writer writes ──


def read_choice(text: str, train: TrainSettings) -> tuple[frozenset[str], TrainSettings]:
    """Read the augmentations switched on and the settings; what the choice leaves open is as in `train`.

    Raises `BadEdit` unless the text is one JSON object, bare or in a Markdown fence, with exactly the known keys and
    values in range.
    """
    choice = _object(text)
    data, training = (_table(choice, key) for key in _exactly(choice, ("data_generation", "training"), "the choice"))
    tools = {_FLAGS[flag] for flag in _exactly(data, _FLAGS, "'data_generation'") if _flag(data, flag)}
    _exactly(training, ("strategy", "learning_rate", "num_train_epochs"), "'training'")
    strategy, rate, epochs = training["strategy"], training["learning_rate"], training["num_train_epochs"]
    if not isinstance(strategy, str) or strategy not in STRATEGIES:
        raise BadEdit(f"unknown strategy {strategy!r}; known: {', '.join(STRATEGIES)}")
    settings = choose(train, rate, epochs, names=("learning_rate", "num_train_epochs"))
    return frozenset(tools), replace(settings, loss_on=STRATEGIES[strategy])


def write_choice(tools: Sequence[str], strategy: str, learning_rate: float, epochs: int) -> str:
    """Word a choice as `read_choice` reads it."""
    flags = {flag: tool in tools for flag, tool in _FLAGS.items()}
    training = {"strategy": strategy, "learning_rate": learning_rate, "num_train_epochs": epochs}
    return json.dumps({"data_generation": flags, "training": training})


def _object(text: str) -> dict[str, Any]:
    fenced = _FENCE.fullmatch(text.strip())
    try:
        found = json.loads(
            fenced[1] if fenced else text, object_pairs_hook=_without_repeats, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise BadEdit(f"the choice is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadEdit(f"the choice is a JSON {type(found).__name__}; expected an object")
    return found


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a key is there twice")
    return table


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def _exactly(table: Mapping[str, Any], known: Sequence[str] | Mapping[str, str], where: str) -> Sequence[str]:
    """Return the known keys. Raises `BadEdit` unless the table holds them all and no other."""
    unknown = [key for key in table if key not in known]
    if unknown:
        raise BadEdit(f"unknown key {unknown[0]!r} in {where}; {near_miss(unknown[0], known)}")
    missing = [key for key in known if key not in table]
    if missing:
        raise BadEdit(f"{where} lacks {missing[0]!r}")
    return list(known)


def _table(choice: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = choice[key]
    if not isinstance(value, dict):
        raise BadEdit(f"{key!r} is {value!r}; expected an object")
    return value


def _flag(data: Mapping[str, Any], key: str) -> bool:
    value = data[key]
    if not isinstance(value, bool):
        raise BadEdit(f"{key!r} is {value!r}; expected true or false")
    return value


def _edit(task: Task, sample: Sample, sets: Sequence[PracticeSet], train: TrainSettings) -> SelfEdit:
    steps = train.epochs * math.ceil(len(sets) / train.batch_size)
    if steps > MOST_STEPS:
        raise BadEdit(
            f"{len(sets)} practice sets for {train.epochs} epochs take {steps} steps, more than {MOST_STEPS}; "
            "choose fewer epochs or augmentations"
        )
    return SelfEdit(task.id, sample, _examples(sets), train, has_chosen=True)


# ── The marks ──


def grade(questions: Sequence[Question], answers: Sequence[str]) -> list[Score]:
    """Give 1.0 for the very grid, 0.0 for another or none, with the reason; None where the gold answer is no grid."""
    return [_mark(question.answer, answer) for question, answer in zip(questions, answers, strict=True)]


def _mark(gold: str, answer: str) -> Score:
    try:
        expected = parse_grid(gold)
    except InputError as error:
        return Score(None, answer, f"the gold answer is no grid: {error}")
    try:
        given = parse_grid(answer)
    except InputError as error:
        return Score(0.0, answer, str(error))
    return Score(float(given == expected), answer, _difference(expected, given))


def _difference(expected: Grid, given: Grid) -> str:
    if size_of(expected) != size_of(given):
        (height, width), (high, wide) = size_of(expected), size_of(given)
        return f"the grid has {high} by {wide} cells, not {height} by {width}"
    cells = [a != b for row, other in zip(expected, given, strict=True) for a, b in zip(row, other, strict=True)]
    return f"{sum(cells)} of {len(cells)} cells differ" if any(cells) else ""
