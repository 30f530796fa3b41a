"""A workspace: a folder in which a model lives with what it has learnt. What the command line and notebooks call.

    .selfedit/
      workspace.json        the model, and which adapter answers now
      adapters/<id>/        PEFT folders (checkpoints of full updates), named by their content
      runs/learn-<digest>/  the ledger of each lesson, so that a killed one goes on where it was

    workspace = Workspace(Path(".selfedit"))
    lesson = workspace.learn(read_folder(Path("notes")), load_recipe("clean"))
    answer = workspace.ask("When was Belmora founded?")

The gain of a lesson is honest: of each document's questions, every other one chooses among the candidate self-edits,
and only the rest examines what was learnt. For a document without questions the model writes an exam itself, before
any self-edit: its visible half chooses, its hidden half examines. Where it can write none, nothing is claimed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

from selfedit.engine.base import AnswerJob, Backend, open_backend
from selfedit.errors import ConfigError, InputError, RunError
from selfedit.judges import check_grader, open_grader
from selfedit.loop.exams import fix_exams
from selfedit.loop.inner import examine, is_bad_edit, seed_of
from selfedit.loop.outer import Known, Lab, Wrote, write_and_try
from selfedit.loop.rollouts import group
from selfedit.recipe import Recipe, recipe_hash
from selfedit.report.stats import Arm, Pair, compare, summarise
from selfedit.runs import open_run, write_atomic
from selfedit.sources.datasets import read_dataset
from selfedit.sources.documents import Documents, read_folder, split_task, write_folder
from selfedit.tasks.base import Grader
from selfedit.tasks.exams import answer_prompt, describe, halve
from selfedit.tasks.graders import load_grader
from selfedit.tasks.knowledge import over_documents
from selfedit.tasks.world import fresh_tasks
from selfedit.types import Adapter, Exam, Example, Failure, Question, Task, TrainJob, Trial, mean_score

STAGE = "learn"
Progress = Callable[[int, int], None]  # trials done, trials in all


@dataclass(frozen=True, slots=True)
class Lesson:
    """What learning a folder came to. `gain` is None with n = 0 where no question was left to examine with.

    Of the `n_edits` candidates of the model's, `n_unusable` could not be used; `n_failed` inner loops, of which each
    candidate has `outer.repeats`, could not be measured. `notes` say what the exams are that the model wrote itself.
    """

    adapter: Adapter
    folder: Path
    n_documents: int
    n_edits: int
    n_unusable: int
    n_failed: int
    before: Arm
    after: Arm
    gain: Pair
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """What `workspace.json` holds: the model as it was named, the base that it was, the adapter that answers now.

    `adapter` names its folder; None: nothing has been learnt yet.
    """

    model: str
    base: str
    adapter: str | None


class Workspace:
    """A model and what it has learnt. Opening one loads the model."""

    def __init__(self, folder: Path, model: str | None = None, device: str = "auto") -> None:
        """Open `folder`, or begin one with `model` ("pup" if None).

        Raises `RunError` if the folder belongs to another model or is damaged, `ModelError` if the model is unusable.
        """
        self.folder = folder
        known = read_state(folder)
        if known and model and model != known.model:
            raise RunError(f"{folder} holds what {known.model!r} has learnt, not {model!r}; give another --workspace")
        name = known.model if known else model or "pup"
        self.engine: Backend = open_backend("local", name, device)
        if known and known.base != self.engine.base:
            raise RunError(
                f"{folder} was made with {known.base}, but {name!r} is now {self.engine.base}; give another --workspace"
            )
        self.state = known or State(name, self.engine.base, None)

    def learn(self, documents: Documents, recipe: Recipe, progress: Progress | None = None) -> Lesson:
        """Study documents: write candidate self-edits, choose, train one adapter on what was chosen, examine, keep it.

        What was learnt before stays underneath. Killed and called again, it goes on where it was. Raises `InputError`
        for a document that cannot be cut to the model's context, `ModelError` for a judge that does not answer.
        """
        check_grader(recipe.exam.grader, recipe.judge)
        if recipe.menu.is_offered:
            raise ConfigError(
                "a lesson is one update on all that was written, which cannot follow what each self-edit chooses; "
                "leave out menu, and set inner.learning_rate and inner.epochs"
            )
        under = self._current()
        cut = {task.id: self._cut(task, recipe) for task in documents.tasks}
        pieces = [piece for each in cut.values() for piece in each]
        lab = _lab(pieces, recipe, self.engine, open_grader(recipe.exam.grader, recipe.judge, self.folder))
        total = len(pieces) * recipe.sample.edits * recipe.outer.repeats
        progress = progress or (lambda done, total: None)
        run_folder = self.folder / "runs" / f"learn-{_digest(documents, recipe, self.state)}"
        with open_run(run_folder, recipe, self.engine.base) as run:
            progress(len(run.trials()), total)
            known = Known.resumed(run.trials(), run.drawn(), run.exams())
            unasked = [task.id for task in documents.tasks if not task.questions]
            for exam in fix_exams([piece for key in unasked for piece in cut[key]], lab, known, under):
                run.save_exam(exam)
                known.note(exam)
            exams = {key: _whole_exam([known.exams[piece.id] for piece in cut[key]]) for key in unasked}
            pieces = _asked(pieces, exams)
            for event in write_and_try(STAGE, pieces, lab, under, under, recipe.outer.repeats, recipe.sample, known):
                match event:
                    case Wrote(key, samples):
                        run.save_samples(key, samples)
                    case Trial():
                        run.append(event)
                        progress(len(run.trials()), total)
            trials = list(run.trials().values())
        adapter = self._train(pieces, trials, lab, recipe, under)
        lesson = self._examine(documents, exams, trials, lab, under, adapter)
        self._keep(adapter)
        return lesson

    def ask(self, question: str, without: bool = False) -> str:
        """Answer a question closed-book with what was learnt, or `without` it.

        Raises `RunError` if nothing was learnt yet and `InputError` for a question that cannot be answered.
        """
        adapter = None if without else self._current()
        if adapter is None and not without:
            raise RunError(f"nothing has been learnt in {self.folder} yet; begin with `selfedit learn FOLDER`")
        (answers,) = self.engine.answer([AnswerJob((answer_prompt(question),), adapter)])
        if isinstance(answers, Failure):
            raise InputError(f"the question cannot be answered: {answers.message}")
        return answers[0]

    def _current(self) -> Adapter | None:
        return self.engine.load(self._path(self.state.adapter)) if self.state.adapter else None

    def _path(self, adapter_id: str) -> Path:
        return self.folder / "adapters" / adapter_id

    def _cut(self, task: Task, recipe: Recipe) -> list[Task]:
        """Cut a document so that a piece and a self-edit of its length fit into the context together.

        Every piece is examined on the half of its document's questions that chooses.
        """
        _, choosing = _halves(task.questions)
        budget = self.engine.context // 2
        unpadded = replace(recipe.inner, pad_to=0)  # the padding is as long as the context, whatever the text

        def fits(text: str) -> bool:
            try:
                return len(self.engine.encode([Example(text)], unpadded)[0].tokens) <= budget
            except InputError:
                return False

        pieces = split_task(task, fits)
        return [
            Task(f"{task.id}#{i}", piece.title, piece.text, choosing, {"topic": task.title})
            for i, piece in enumerate(pieces)
        ]

    def _train(
        self, pieces: Sequence[Task], trials: Sequence[Trial], lab: Lab, recipe: Recipe, under: Adapter | None
    ) -> Adapter:
        examples = [example for task in pieces for example in _chosen(task, trials, lab)]
        data = self.engine.encode(examples, recipe.inner)
        (trained,) = self.engine.train([TrainJob(data, recipe.inner, seed_of(recipe.seed, STAGE), under=under)])
        if isinstance(trained, Failure):
            raise RunError(f"the update failed: {trained.message}; nothing was changed")
        return trained

    def _examine(
        self,
        documents: Documents,
        own: Mapping[str, Sequence[Exam]],
        trials: Sequence[Trial],
        lab: Lab,
        under: Adapter | None,
        adapter: Adapter,
    ) -> Lesson:
        hidden = {
            key: [q for exam in exams for q in exam.questions if q.role == "hidden"] for key, exams in own.items()
        }
        exams = [
            replace(task, questions=_distinct(hidden[task.id]) if task.id in own else _halves(task.questions)[0])
            for task in documents.tasks
        ]
        unusable = {(t.task_id, t.edit) for t in trials if is_bad_edit(t.failure)}
        before, after = (self._exam(exams, lab, held) for held in (under, adapter))
        return Lesson(
            adapter=adapter,
            folder=self._path(adapter.id),
            n_documents=len(documents.tasks),
            n_edits=len({(t.task_id, t.edit) for t in trials}),
            n_unusable=len(unusable),
            n_failed=sum(t.failure is not None and not is_bad_edit(t.failure) for t in trials),
            before=summarise("before", before),
            after=summarise("after", after),
            gain=compare("before", before, "after", after),
            notes=_told(own),
        )

    def _exam(self, tasks: Sequence[Task], lab: Lab, adapter: Adapter | None) -> list[Trial]:
        marks = examine(tasks, [adapter] * len(tasks), lab.domain, lab.engine, lab.grade, lab.exam)
        return [
            Trial(f"exam/{task.id}", task.id, 0, 0, lab.seed, None, None, scores, scores, mean_score(scores), None)
            for task, scores in zip(tasks, marks, strict=True)
        ]

    def _keep(self, adapter: Adapter) -> None:
        """Write the adapter, then point to it: a kill in between leaves the old one answering."""
        self.engine.export(adapter, self._path(adapter.id))
        self.state = replace(self.state, adapter=adapter.id)
        write_atomic(self.folder / "workspace.json", json.dumps(asdict(self.state), indent=2) + "\n")


def default_recipe(folder: Path, model: str | None) -> str:
    """Name the recipe for `model`, or for the workspace's."""
    known = read_state(folder)
    return recipe_for(model or (known.model if known else "pup"))


def recipe_for(model: str) -> str:
    """Name the recipe for a model: the embedded one needs settings of its own."""
    return "demo" if model == "pup" else "clean"


def read_documents(folder: Path, skip_bad: bool = False) -> Documents:
    """Read a folder of documents and questions, or a data set in one file.

    Raises `InputError` for what cannot be used, or with `skip_bad` leaves it out and names it.
    """
    return read_dataset(str(folder), skip_bad=skip_bad) if folder.is_file() else read_folder(folder, skip_bad)


def write_examples(folder: Path, n: int, seed: int) -> None:
    """Write `n` documents of the embedded model's world and their questions.

    Raises `InputError` if something is there already.
    """
    write_folder(folder, fresh_tasks("examples", n, seed))


def mark_answers(grader: str, golds: Sequence[str], answers: Sequence[str]) -> list[float | None]:
    """Mark answers that somebody else's model gave, with the grader of that name; None where it gave no mark."""
    questions = [Question("", gold) for gold in golds]
    return [score.value for score in load_grader(grader)(questions, answers)]


def read_state(folder: Path) -> State | None:
    """Read what a workspace folder says about itself; None if nothing is there. Raises `RunError` if it is damaged."""
    path = folder / "workspace.json"
    if not path.exists():
        return None
    try:
        state = State(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise RunError(_damaged(path)) from error
    if not all(isinstance(text, str) for text in (state.model, state.base, state.adapter or "")):
        raise RunError(_damaged(path))
    return state


def _damaged(path: Path) -> str:
    return f"{path} is damaged; restore it or give another --workspace"


def _halves(questions: Sequence[Question]) -> tuple[tuple[Question, ...], tuple[Question, ...]]:
    """Share out questions: those that examine what was learnt, those that choose. What is asked twice counts once."""
    return _distinct(questions)[::2], _distinct(questions)[1::2]


def _distinct(questions: Sequence[Question]) -> tuple[Question, ...]:
    asked: dict[str, Question] = {}
    for question in questions:
        asked.setdefault(" ".join(question.question.split()).casefold(), question)
    return tuple(asked.values())


def _whole_exam(exams: Sequence[Exam]) -> list[Exam]:
    """Share out the questions on a document's pieces anew, all together: two pieces may tell one fact."""
    halved = iter(halve([question for exam in exams for question in exam.questions]))
    return [replace(exam, questions=tuple(islice(halved, len(exam.questions)))) for exam in exams]


def _asked(pieces: Sequence[Task], own: Mapping[str, Sequence[Exam]]) -> list[Task]:
    """Give the pieces of documents without questions those that the model wrote on them."""
    written = {exam.task_id: exam.questions for exams in own.values() for exam in exams}
    return [replace(piece, questions=written.get(piece.id, piece.questions)) for piece in pieces]


def _told(own: Mapping[str, Sequence[Exam]]) -> tuple[str, ...]:
    """Say what the exams are that the model wrote for the documents without questions; nothing where all have some."""
    if not own:
        return ()
    came = "1 document came" if len(own) == 1 else f"{len(own):,} documents came"
    told = describe([exam for exams in own.values() for exam in exams])
    return (f"{came} without questions: {told} The score before is low because what was known is not asked.",)


def _lab(pieces: Sequence[Task], recipe: Recipe, engine: Backend, grade: Grader) -> Lab:
    domain = over_documents(pieces, recipe.format, recipe.inner, recipe.split_lines, recipe.template)
    return Lab(domain, engine, grade, recipe.sample, recipe.exam, recipe.seed)


def _chosen(task: Task, trials: Sequence[Trial], lab: Lab) -> list[Example]:
    """Return what to train on for one piece.

    The best candidate's examples; all candidates' where nothing could be measured; the bare text where the model wrote
    nothing usable.
    """
    usable = [trial for trial in trials if trial.task_id == task.id and trial.adapter]
    rollouts = [rollout for rollouts_G in group(usable, [task], lab.reward) for rollout in rollouts_G]
    measured = [rollout for rollout in rollouts if rollout.reward is not None]
    best = [max(measured, key=lambda rollout: rollout.reward or 0.0)] if measured else rollouts
    examples = [example for rollout in best for example in lab.domain.parse(task, rollout.sample).examples]
    return examples or list(lab.domain.without_edit(task).examples)


def _digest(documents: Documents, recipe: Recipe, state: State) -> str:
    """Name a lesson by all that determines it: what is read, how, and what had been learnt before."""
    plain = [asdict(task) for task in documents.tasks]
    key = json.dumps([plain, recipe_hash(recipe), state.base, state.adapter], sort_keys=True)
    return hashlib.sha256(key.encode()).hexdigest()[:12]
