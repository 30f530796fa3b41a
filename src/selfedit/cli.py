"""The command line: thin verbs, no logic. Errors become one sentence and an exit code that is not 0."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from selfedit.errors import SelfEditError

if TYPE_CHECKING:
    from selfedit.workspace import Lesson

app = typer.Typer(
    help="Teach a language model to study: it writes its own training data, updates itself, and proves what it learnt.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
INTERRUPTED = 130
out = Console()
err = Console(stderr=True)

Overrides = Annotated[
    list[str] | None, typer.Argument(help="recipe settings, such as inner.epochs=5", show_default=False)
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]
Home = Annotated[Path, typer.Option("--workspace", help="folder in which the model lives with what it has learnt")]
Model = Annotated[
    str | None,
    typer.Option(
        help="pup (the embedded model), a local checkpoint or a hub id of a causal LM",
        show_default="the workspace's, else pup",
    ),
]


@app.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False) -> None:
    """Options of every verb; `main` reads --debug itself."""


@app.command()
def learn(
    folder: Annotated[
        Path,
        typer.Argument(help="folder of documents and code (questions.jsonl in it is the exam), or a JSON data set"),
    ],
    overrides: Overrides = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="a recipe's name or a .toml file", show_default="clean; demo for the embedded model"),
    ] = None,
    model: Model = None,
    workspace: Home = Path(".selfedit"),
    device: Device = "auto",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave out, and name, what cannot be read")] = False,
) -> None:
    """Study a folder of documents: write self-edits, update the weights, examine closed-book before and after.

    Markdown and plain text are read, and with pip install 'selfedit[documents]' HTML, PDF and source code in eleven
    languages (Python's without it).
    """
    from selfedit.config import load_recipe
    from selfedit.workspace import Workspace, default_recipe, read_documents

    plan = load_recipe(recipe or default_recipe(workspace, model), overrides or [])
    documents = read_documents(folder, skip_bad)
    for name in documents.skipped:
        out.print(f"not read: {name} (only .md, .txt, .html, .pdf and source code are)", markup=False)
    for sentence in documents.bad:
        out.print(f"left out: {sentence}", markup=False, soft_wrap=True)
    home = Workspace(workspace, model, device)
    hint = " (the embedded one; --model takes any causal LM)" if home.state.model == "pup" else ""
    out.print(f"model: {home.state.model}{hint}", markup=False)
    with _bar("self-edits tried") as progress:
        lesson = home.learn(documents, plan, progress)
    _print_lesson(lesson)


def _print_lesson(lesson: Lesson) -> None:
    from selfedit.report.render import render_gain

    edits = f"{lesson.n_edits} self-edits tried, {lesson.n_unusable} unusable, {lesson.n_failed} not measured"
    out.print(f"{lesson.n_documents} documents, {edits}")
    for note in lesson.notes:
        out.print(note, markup=False, soft_wrap=True)
    out.print(render_gain(lesson.before, lesson.after, lesson.gain))
    if lesson.gain.n == 0:
        out.print(
            'No question to examine with: add a questions.jsonl of {"question", "answer", "source"} for a score.',
            markup=False,
        )
    out.print(f"adapter: {lesson.folder}", markup=False)
    out.print('Next: selfedit ask "…"')


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="what to ask, without the documents in view")],
    without: Annotated[bool, typer.Option("--without", help="show the untouched model's answer beside it")] = False,
    workspace: Home = Path(".selfedit"),
    device: Device = "auto",
) -> None:
    """Answer a question with what was learnt."""
    from selfedit.workspace import Workspace

    home = Workspace(workspace, device=device)
    answer = home.ask(question)
    if without:
        out.print(f"learnt:  {answer}\nwithout: {home.ask(question, without=True)}", markup=False)
    else:
        out.print(answer, markup=False)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="a recipe's name or a .toml file; see `selfedit recipes`")],
    overrides: Overrides = None,
    to: Annotated[Path | None, typer.Option("--out", help="run folder", show_default="runs/RECIPE")] = None,
    device: Device = "auto",
) -> None:
    """Run an experiment and report on it. Killed and started again, it goes on where it was."""
    from selfedit.config import load_recipe
    from selfedit.experiment.run import load_program, run_experiment
    from selfedit.report.render import headline, render_example, render_table, write_report

    plan = load_recipe(recipe, overrides or [])
    folder = to or Path("runs") / (plan.name or Path(recipe).stem)
    out.print(f"{recipe}: {plan.model}, {plan.format} self-edits, seed {plan.seed}")
    if plan.program:
        with _bar("models") as progress:
            lines = list(load_program(plan)(plan, folder, device, progress))
        out.print("\n".join(lines), markup=False, soft_wrap=True)
        return
    with _bar("inner loops") as progress:
        report = run_experiment(plan, folder, device, progress)
    page = write_report(folder, report)
    for sentence in report.left_out:
        out.print(f"left out: {sentence}", markup=False, soft_wrap=True)
    for example in report.examples:
        out.print(render_example(example))
    for table in render_table(report):
        out.print(table)
    out.print(headline(report))
    out.print(f"report: {page}", markup=False)
    out.print("Next: selfedit examples my-notes && selfedit learn my-notes")


@app.command("eval")
def evaluate(
    recipe: Annotated[str, typer.Argument(help="a recipe's name or a .toml file; see `selfedit recipes`")],
    overrides: Overrides = None,
    to: Annotated[Path | None, typer.Option("--out", help="run folder", show_default="runs/RECIPE")] = None,
    json_to: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="write the result as JSON too; - is stdout")
    ] = None,
    html_to: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="write the result as a page too; - is stdout")
    ] = None,
    device: Device = "auto",
) -> None:
    """Measure what settings and data are worth: all arms of a recipe in one table with n, 95 % intervals, differences.

    The arms are settings: arms=['base','passage','completions','rounds','retrieval','in-context'] in any selection. So
    are the data: data=FILE (SQuAD's JSON, JSONL), data=FOLDER of documents or data=HUB_ID data_split=SPLIT, examined on
    n=… unseen passages; completions=FILE are self-edits made elsewhere, template=FILE is a prompt of your own,
    together=N trains N passages into one adapter, model=… is any causal LM. Killed and started again, it goes on.
    """
    from selfedit.config import load_recipe
    from selfedit.experiment.run import run_experiment
    from selfedit.report.render import as_html, json_text, render_one_table, write_report

    files = [name for name in (json_to, html_to) if name]
    _check_targets(files)
    shown = err if "-" in files else out
    plan = load_recipe(recipe, overrides or [])
    folder = to or Path("runs") / (plan.name or Path(recipe).stem)
    with _bar("inner loops") as progress:
        report = run_experiment(plan, folder, device, progress)
    page = write_report(folder, report)
    for sentence in report.left_out:
        shown.print(f"left out: {sentence}", markup=False, soft_wrap=True)
    shown.print(render_one_table(report))
    for note in report.notes:
        shown.print(note, markup=False, soft_wrap=True)
    _deliver(json_to, json_text(report))
    _deliver(html_to, as_html(report))
    shown.print(f"report: {page}", markup=False)


def _check_targets(files: list[str]) -> None:
    """Refuse, before anything is measured, what could not be written after it."""
    if files.count("-") > 1:
        raise typer.BadParameter("stdout takes one of --json and --html; name a file for the other")
    for name in files:
        if name != "-" and (Path(name).is_dir() or not Path(name).absolute().parent.is_dir()):
            raise typer.BadParameter(f"cannot write to {name!r}; name a file in a folder that exists")


def _deliver(to: str | None, text: str) -> None:
    from selfedit.report.render import write_whole

    if to == "-":
        typer.echo(text, nl=False)
    elif to:
        write_whole(Path(to), text)


@app.command()
def replay(
    folder: Annotated[
        Path,
        typer.Argument(help="the repository of SEAL's authors, or a folder with per_passage_means.json and the like"),
    ],
    to: Annotated[Path, typer.Option("--out", help="folder to write report.html and report.json to")] = Path(
        "runs/replay"
    ),
    json_to: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="write the result as JSON too; - is stdout")
    ] = None,
    html_to: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="write the result as a page too; - is stdout")
    ] = None,
    cross_fitted: Annotated[
        Path | None,
        typer.Option(metavar="PROBS.npz", help="a learnt grader's out-of-fold probabilities for the file of verdicts"),
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave out, and name, what cannot be used")] = False,
) -> None:
    """Compute SEAL's published results again from their rows, with intervals, paired tests and other graders' eyes.

    What was printed stands beside what its rows give; where rows were not published, nothing is guessed. It trains and
    downloads nothing.
    """
    from selfedit.report.graded import cross_fitted_marks, plain_marks
    from selfedit.report.published import read_published
    from selfedit.report.replay import replay as compute
    from selfedit.report.replay_page import render_replay, replay_html, replay_json, write_replay
    from selfedit.report.replay_words import summary

    files = [name for name in (json_to, html_to) if name]
    _check_targets(files)
    shown = err if "-" in files else out
    published = read_published(folder, skip_bad)
    learnt = cross_fitted_marks(cross_fitted, published.verdicts) if cross_fitted else {}
    found = compute(published, learnt | plain_marks(published.verdicts))
    page = write_replay(to, found)
    for table in render_replay(found):
        shown.print(table)
    for sentence in summary(found):
        shown.print(sentence, markup=False, soft_wrap=True)
    _deliver(json_to, replay_json(found))
    _deliver(html_to, replay_html(found))
    shown.print(f"report: {page}", markup=False)


@app.command()
def write(
    source: Annotated[str, typer.Argument(help="folder of documents and code, a JSON data set, or a hub id")],
    overrides: Overrides = None,
    to: Annotated[Path, typer.Option("--out", metavar="FILE.jsonl", help="file to write, or to go on with")] = Path(
        "self-edits.jsonl"
    ),
    recipe: Annotated[
        str | None,
        typer.Option(help="a recipe's name or a .toml file", show_default="clean; demo for the embedded model"),
    ] = None,
    model: Annotated[str, typer.Option(help="the writer: pup, a local checkpoint or a hub id of a causal LM")] = "pup",
    layout: Annotated[str, typer.Option("--as", metavar="text|messages", help="form of a line")] = "text",
    shard: Annotated[str, typer.Option(metavar="I/N", help="write the I-th of N parts of the sources")] = "1/1",
    device: Device = "auto",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave out, and name, what cannot be read")] = False,
) -> None:
    """Write self-edits for a whole corpus, as training data for any trainer: JSONL of texts or of messages.

    Every line names its source, format, edit, seed and writer; no text is written twice. Killed and started again, it
    goes on. A model on a server writes with writer.model=NAME writer.url=http://….
    """
    from selfedit.config import load_recipe
    from selfedit.workspace import recipe_for
    from selfedit.writing import make_job, write_corpus

    said = [*(overrides or []), f"model={model}", *(["skip_bad=true"] if skip_bad else [])]
    job = make_job(source, load_recipe(recipe or recipe_for(model), said), to, layout, shard)
    for sentence in [*(f"not read: {name}" for name in job.documents.skipped), *job.documents.bad]:
        out.print(sentence, markup=False, soft_wrap=True)
    with _bar("sources") as progress:
        totals = write_corpus(job, device, lambda done, total, so_far: progress(done, total, so_far.pace))
    out.print(f"{totals.lines:,} lines from {totals.sources:,} sources in {to} ({totals.pace})", markup=False)
    out.print(f"{totals.duplicates:,} texts were there already, {totals.unusable:,} self-edits unusable", markup=False)
    if totals.failed:
        out.print(f"{totals.failed:,} sources failed; the same command tries them again: {totals.why}", markup=False)


@app.command()
def grade(
    source: Annotated[Path, typer.Argument(help="answers.jsonl[.gz]: question, gold and prediction on every line")],
    to: Annotated[Path, typer.Option("--out", help="file to write, .jsonl or .jsonl.gz")],
    grader: Annotated[
        str, typer.Option(help="calibrated, contains, exact, f1, grid, judge or calibrated+judge")
    ] = "calibrated",
    no_abstain: Annotated[
        bool, typer.Option("--no-abstain", help="decide what the grader is not sure of, too")
    ] = False,
    judge_model: Annotated[str, typer.Option(help="the judge: its name on the server", show_default=False)] = "",
    judge_url: Annotated[str, typer.Option(help="its server, as in http://127.0.0.1:8000/v1", show_default=False)] = "",
    judge_key_env: Annotated[
        str, typer.Option(help="environment variable that holds its key", show_default=False)
    ] = "",
) -> None:
    """Mark answers that somebody else's model gave: each line back, with "probability" and "correct".

    The grader `calibrated` learnt from GPT-4.1's verdicts and needs no network; "correct" is null where it is not sure.
    `judge` asks a model on a server that speaks OpenAI's API about every answer, `calibrated+judge` about those that
    `calibrated` is not sure of. Started again, it asks only for the verdicts that are missing.
    """
    from selfedit.grading import grade_file
    from selfedit.types import JudgeSettings

    found = grade_file(source, grader, to, no_abstain, JudgeSettings(judge_model, judge_url, judge_key_env))
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in found.open.items())
    counts = f"{found.correct:,} correct, {found.wrong:,} wrong, {found.undecided:,} undecided"
    out.print(f"{found.lines:,} answers: {counts}{f' ({reasons})' if reasons else ''}", markup=False, soft_wrap=True)
    if found.example:
        out.print(f"{found.example}; the same command asks again", markup=False, soft_wrap=True)
    out.print(f"graded: {to}", markup=False, soft_wrap=True)


@app.command()
def examples(
    folder: Annotated[Path, typer.Argument(help="folder to write; it must not exist or be empty")],
    n: Annotated[int, typer.Option("--documents", min=1, help="how many")] = 8,
    seed: Annotated[int, typer.Option(help="another seed, other documents")] = 0,
) -> None:
    """Write documents and questions of the embedded model's world, to try `selfedit learn` on."""
    from selfedit.workspace import write_examples

    write_examples(folder, n, seed)
    out.print(f"{n} documents and their questions in {folder}\nNext: selfedit learn {folder}", markup=False)


@app.command()
def recipes() -> None:
    """List the recipes that come with the package."""
    from selfedit.config import list_recipes

    listed = list_recipes()
    width = max(len(name) for name, _ in listed)
    for name, title in listed:
        out.print(f"{name:{width}}  {title}", markup=False, soft_wrap=True)


class _Show(Protocol):
    def __call__(self, done: int, total: int, pace: str = "") -> None: ...


@contextmanager
def _bar(what: str) -> Iterator[_Show]:
    """Draw a progress bar with the time left; yields what reports progress to it."""
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[pace]}"),
    )
    bar = Progress(*columns, console=err)
    task = bar.add_task(what, total=None, pace="")

    def show(done: int, total: int, pace: str = "") -> None:
        bar.start()  # not before: what ends in an error at once shall be that sentence and nothing else
        bar.update(task, completed=done, total=total, pace=pace)

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()


def main() -> None:
    """Run the command line. Every error is one sentence; `--debug` lets the traceback through."""
    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        _stop(_sentence(error), 2)
    if code == INTERRUPTED:  # typer answers Ctrl-C with this code, not with the exception
        _stop("stopped; what was measured is kept: the same command goes on where it was", INTERRUPTED)


def _sentence(error: Exception) -> str:
    if isinstance(error, SelfEditError):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full; free some space and start the same command again: what was measured is kept"
    if hasattr(error, "format_message"):  # a usage error of the command line
        return str(error.format_message())
    return f"{type(error).__name__}: {error} (this is a defect of selfedit; --debug shows where)"


def _stop(sentence: str, code: int) -> None:
    err.print(f"error: {sentence}", markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)
