"""Read the results that SEAL's authors published, in either of two forms, into plain records.

- *Their repository's tree*, or its `results/` alone. A file in it is known by its keys: one adapter a passage
  ("articles"), one adapter for many ("server_reply"), a sequence of updates ("mean_over_sequences"). A result is named
  by its path, `eval/iter2`.
- *One folder* with what was made of that tree: `per_passage_means.json`, `published_results.json`,
  `rewards_train.json`, `continual_matrix.json`, `gpt41_verdicts.jsonl.gz`, as far as they are there.

What is read is checked, because a number that is silently wrong is worse than none: marks outside [0, 1], a key given
twice, a passage whose exam differs from arm to arm (a line lost, a line doubled), a file cut off. Each is one sentence,
and with `skip_bad` it is left out and named. What is not there is not guessed: `missing` names it.

    published = read_published(Path("SEAL"))

Axis suffixes: P passages of a result, G edits a passage, S steps, K tasks learnt one after another, N lines of the file
of verdicts.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

from selfedit.errors import InputError
from selfedit.report.names import EXPECTED, in_order
from selfedit.report.strict import as_list, as_number, as_object, as_share, count_of, parse_json, read_json, text_of

MEANS = "per_passage_means.json"
PRINTED = "published_results.json"
REWARDS = "rewards_train.json"
MATRIX = "continual_matrix.json"
VERDICTS = "gpt41_verdicts.jsonl.gz"
_LACKING = {
    MEANS: "no mean is recomputed and nothing is compared",
    PRINTED: "no printed number stands beside the recomputed ones",
    REWARDS: "the rewards of training are not checked",
    MATRIX: "no forgetting is computed",
    VERDICTS: "no grader is compared with GPT-4.1",
}
Arm = Literal["baseline", "adapter"]
ARMS: tuple[Arm, ...] = get_args(Arm)


@dataclass(frozen=True, slots=True)
class Passage:
    """What a passage's row says: a mean accuracy in [0, 1] for every edit. `n_questions` is None where it is not given.

    `baseline_G` is the unadapted model, measured again beside each edit; empty where the arm does not exist.
    """

    title: str
    n_questions: int | None
    baseline_G: tuple[float, ...]
    adapter_G: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """One results file. `passages_P` is None where its rows were not published; `printed` is what the authors computed.

    `pooled` has the marks of every question by arm, for an adapter that learnt all passages at once: its rows do not
    say which passage a question is about.
    """

    name: str
    printed: Mapping[str, float | None]
    passages_P: tuple[Passage, ...] | None = None
    pooled: Mapping[Arm, tuple[float, ...]] | None = None


@dataclass(frozen=True, slots=True)
class Reward:
    """The reward file's row for one edit: training round from 1, passage and edit from 0, accuracies in [0, 1]."""

    round: int
    passage: int
    title: str
    edit: int
    baseline: float
    adapter: float


@dataclass(frozen=True, slots=True)
class Continual:
    """A sequence of K updates, averaged over `n_sequences`: accuracies before it and after each step.

    `accuracies_SK` is None above the diagonal, where the files hold a 0 for what was not examined. `errors_SK` are
    standard errors of the cells, None where unmeasured or with a single sequence; so for `before_K`.
    """

    name: str
    model: str
    n_sequences: int
    before_K: tuple[float, ...]
    before_errors_K: tuple[float | None, ...]
    accuracies_SK: tuple[tuple[float | None, ...], ...]
    errors_SK: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One answer with GPT-4.1's mark. `article` is an index within `file`. `line`, `edit`, `repeat` too are from 0."""

    line: int
    file: str
    article: int
    title: str
    edit: int
    repeat: int
    arm: Arm
    question: str
    gold: str
    prediction: str
    is_correct: bool


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The answers that can be used, of `n_lines` in the file; `sha256` is of the file's bytes, None without a file."""

    rows: tuple[Verdict, ...]
    n_lines: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Published:
    """All that was found. `missing` says what was not there, `left_out` what could not be used; a sentence each."""

    name: str
    results: tuple[Result, ...]
    rewards: tuple[Reward, ...] = ()
    sequences: tuple[Continual, ...] = ()
    verdicts: Verdicts | None = None
    missing: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def read_published(folder: Path, skip_bad: bool = False) -> Published:
    """Read `folder`, whichever form it has. Raises `InputError` for what cannot be used, unless it is to be skipped."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {str(folder)!r}; give SEAL's repository or a folder with its results")
    tray = _Tray(skip_bad)
    if any((folder / name).is_file() for name in _LACKING):
        return _read_folder(folder, tray)
    for root in (folder / "general-knowledge" / "results", folder / "results", folder):
        if any((root / name).is_dir() for name in ("query_server", "cpt")):
            return _read_tree(folder, root, tray)
    raise InputError(
        f"nothing in {str(folder)!r} is known: expected the repository of SEAL's authors with its results/, "
        f"or one of {', '.join(_LACKING)}"
    )


@dataclass(slots=True)
class _Tray:
    """Where bad input goes: raised, or left out and named."""

    skip_bad: bool
    left_out: list[str] = field(default_factory=list)

    @contextmanager
    def checking(self) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            if not self.skip_bad:
                raise
            self.left_out.append(str(error))


# One folder


def _read_folder(folder: Path, tray: _Tray) -> Published:
    documents: dict[str, Any] = {}
    for name in (MEANS, PRINTED, REWARDS, MATRIX):
        with tray.checking():
            if (folder / name).is_file():
                documents[name] = read_json(folder / name)
    rows: dict[str, tuple[Passage, ...]] = {}
    for name, passages in _items(documents.get(MEANS, {}), MEANS, tray):
        with tray.checking():
            rows[name] = tuple(
                _passage(each, f"passage {i + 1} of {name!r} in {MEANS}")
                for i, each in enumerate(as_list(passages, name))
            )
    printed: dict[str, Mapping[str, float | None]] = {}
    for name, entry in _items(documents.get(PRINTED, {}), PRINTED, tray):
        with tray.checking():
            printed[_short(name)] = _overall(entry, f"{name!r} in {PRINTED}")
    rewards: tuple[Reward, ...] = ()
    sequences: tuple[Continual, ...] = ()
    verdicts = None
    with tray.checking():
        rewards = tuple(_reward(row, i) for i, row in enumerate(as_list(documents.get(REWARDS, []), REWARDS)))
    with tray.checking():
        sequences = (_continual(documents[MATRIX], MATRIX),) if MATRIX in documents else ()
    with tray.checking():
        verdicts = _verdict_file(folder / VERDICTS, rows, tray) if (folder / VERDICTS).is_file() else None
    results = [Result(name, printed.get(name, {}), rows.get(name)) for name in in_order({*rows, *printed})]
    missing = [f"{name}: {lack}" for name, lack in _LACKING.items() if not (folder / name).is_file()]
    return Published(
        folder.resolve().name,
        tuple(results),
        rewards,
        sequences,
        verdicts,
        (*missing, *_unreleased(result.name for result in results)),
        tuple(tray.left_out),
    )


def _items(document: object, where: str, tray: _Tray) -> Iterable[tuple[str, Any]]:
    with tray.checking():
        return as_object(document, where).items()
    return ()


def _passage(row: object, where: str) -> Passage:
    fields = as_object(row, where)
    arms = {arm: tuple(as_share(v, where) for v in as_list(fields.get(arm, []), where)) for arm in ARMS}
    if not any(arms.values()) or (all(arms.values()) and len(arms["baseline"]) != len(arms["adapter"])):
        raise InputError(f"{where}: expected as many accuracies of the baseline as of the adapter, at least one")
    n = fields.get("n_questions")
    if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 0):
        raise InputError(f"{where}: expected a number of questions, found {n!r}")
    # 0 stands for "not counted" in the files: their accuracies are of several questions.
    return Passage(text_of(fields, "title", where), n or None, arms["baseline"], arms["adapter"])


def _overall(entry: object, where: str) -> dict[str, float | None]:
    overall = as_object(as_object(entry, where).get("overall"), where)
    return {name: None if value is None else as_number(value, where) for name, value in overall.items()}


def _reward(row: object, place: int) -> Reward:
    where = f"row {place + 1} of {REWARDS}"
    fields = as_object(row, where)
    counts = [count_of(fields, key, where) for key in ("round", "article", "completion")]
    shares = [as_share(fields.get(key), where) for key in ("baseline_mean", "adapter_mean")]
    return Reward(counts[0], counts[1], text_of(fields, "title", where), counts[2], *shares)


def _continual(document: object, where: str) -> Continual:
    fields = as_object(document, where)
    means, spreads = (_grid(fields.get(f"{kind}_over_sequences"), where) for kind in ("mean", "std"))
    n, size = count_of(fields, "n_sequences", where), count_of(fields, "n_datapoints", where)
    if n < 1 or any([len(row) for row in grid] != [size] * (size + 1) for grid in (means, spreads)):
        raise InputError(f"{where}: expected {size + 1} rows of {size} accuracies, the first before any update")
    if any(v for grid in (means, spreads) for s, row in enumerate(grid[1:]) for v in row[s + 1 :]):
        raise InputError(f"{where}: expected zeros above the diagonal, for tasks that were not learnt yet")
    errors = [[v / n**0.5 if n > 1 else None for v in row] for row in spreads]

    def below(grid: Sequence[Sequence[float | None]]) -> tuple[tuple[float | None, ...], ...]:
        return tuple(tuple(v if k <= s else None for k, v in enumerate(row)) for s, row in enumerate(grid[1:]))

    model = text_of(fields, "base_model", where)
    return Continual(
        _short(where.removesuffix(".json")), model, n, tuple(means[0]), tuple(errors[0]), below(means), below(errors)
    )


def _grid(value: object, where: str) -> list[list[float]]:
    return [[as_share(cell, where) for cell in as_list(row, where)] for row in as_list(value, where)]


def _verdict_file(path: Path, rows: Mapping[str, Sequence[Passage]], tray: _Tray) -> Verdicts:
    packed = path.read_bytes()
    try:
        lines = gzip.decompress(packed).decode("utf-8").removesuffix("\n").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} is damaged or cut off ({error}); get it again") from error
    found = []
    for place, line in enumerate(lines):
        with tray.checking():
            where = f"line {place + 1} of {path.name}"
            found.append(_verdict(as_object(parse_json(line, where), where), place, where))
    return Verdicts(_whole_exams(found, rows, tray), len(lines), hashlib.sha256(packed).hexdigest())


def _verdict(fields: Mapping[str, Any], line: int, where: str) -> Verdict:
    arm, is_correct = fields.get("arm"), fields.get("correct")
    if arm not in ARMS or not isinstance(is_correct, bool):
        raise InputError(f"{where}: expected an arm ({' or '.join(ARMS)}) and a verdict (true or false)")
    return Verdict(
        line,
        text_of(fields, "file", where),
        count_of(fields, "article", where),
        text_of(fields, "title", where),
        count_of(fields, "completion", where),
        count_of(fields, "rep", where),
        arm,
        text_of(fields, "question", where),
        text_of(fields, "gold", where),
        text_of(fields, "prediction", where),
        is_correct,
    )


# The tree


def _read_tree(folder: Path, root: Path, tray: _Tray) -> Published:
    results: dict[str, Result] = {}
    sequences: list[Continual] = []
    verdicts: list[Verdict] = []
    unknown = []
    for path in sorted(root.rglob("*.json")):
        place = path.relative_to(root).as_posix()
        with tray.checking():
            document = read_json(path)
            keys = document.keys() if isinstance(document, dict) else set()
            name = _short(place.removesuffix(".json"))
            if {"overall", "articles"} <= keys:
                results[name], answers = _single(document, name, place, len(verdicts))
                verdicts += answers
            elif {"overall", "server_reply"} <= keys:
                results[name] = Result(name, _overall(document, place), None, _pooled(document, place))
            elif "mean_over_sequences" in keys:
                sequences.append(_continual(document, place))
            else:
                unknown.append(f"{place}: not a results file that is known")
    rows = {name: result.passages_P or () for name, result in results.items()}
    whole = _whole_exams(verdicts, rows, tray)
    missing = [] if sequences else [f"a sequence of updates: {_LACKING[MATRIX]}"]
    return Published(
        folder.resolve().name,
        tuple(results[name] for name in in_order(results)),
        (),
        tuple(sequences),
        Verdicts(whole, len(verdicts), None) if verdicts else None,
        (*missing, *_unreleased(results)),
        (*tray.left_out, *unknown),
    )


def _single(document: Mapping[str, Any], name: str, place: str, line: int) -> tuple[Result, list[Verdict]]:
    """Read a file of one adapter a passage; its answers are numbered on from `line`.

    Where a rubric took the place of the exam, the authors' code writes accuracies of 0 that nobody measured.
    """
    if document.get("reward_mode") == "proxy":
        return Result(name, {}), []
    passages: list[Passage] = []
    answers: list[Verdict] = []
    for a, article in enumerate(as_list(document["articles"], place)):
        where = f"article {a + 1} of {place}"
        fields = as_object(article, where)
        title = text_of(fields, "title", where)
        edits = [as_object(each, where) for each in as_list(fields.get("completions"), where)]
        stats = [as_object(edit.get("stats"), where) for edit in edits]
        rows_G = [[as_object(row, where) for row in as_list(edit.get("questions", []), where)] for edit in edits]
        means: dict[str, Any] = {arm: [stat[f"{arm}_mean"] for stat in stats if f"{arm}_mean" in stat] for arm in ARMS}
        first = sum(count_of(row, "rep", where) == 0 for row in rows_G[0]) if rows_G else 0
        passages.append(_passage({"title": title, "n_questions": first, **means}, where))
        for g, row in ((g, row) for g, rows in enumerate(rows_G) for row in rows):
            for arm in ARMS:
                answer: dict[str, Any] = {
                    "file": name, "title": title, "article": a, "completion": g, "arm": arm,
                    "rep": row.get("rep"), "question": row.get("question"), "gold": row.get("answer"),
                    "prediction": row.get(f"{arm}_answer"), "correct": row.get(f"{arm}_correct"),
                }  # fmt: skip
                answers.append(_verdict(answer, line + len(answers), where))
    return Result(name, _overall(document, place), tuple(passages)), answers


def _pooled(document: Mapping[str, Any], place: str) -> Mapping[Arm, tuple[float, ...]] | None:
    reply = as_object(document["server_reply"], place)
    marks: dict[Arm, tuple[float, ...]] = {}
    for arm in ARMS:
        given = as_list(reply.get(f"{arm}_correct", []), place)
        if any(not isinstance(mark, bool) for mark in given):
            raise InputError(f"{place}: expected true or false for every question")
        marks[arm] = tuple(map(float, given))
    return marks if any(marks.values()) else None


# What both share


def _whole_exams(
    verdicts: Sequence[Verdict], rows: Mapping[str, Sequence[Passage]], tray: _Tray
) -> tuple[Verdict, ...]:
    """Keep the passages of which every arm, edit and repeat answers the same questions, as many as the rows say."""
    ordered = sorted(verdicts, key=lambda v: (v.file, v.article, v.line))
    kept: list[Verdict] = []
    seen: dict[str, set[object]] = {}
    for (file, article), group in groupby(ordered, lambda v: (v.file, v.article)):
        answers = list(group)
        with tray.checking():
            exam = _check_exam(answers, file, article, rows.get(file))
            if exam in seen.setdefault(file, set()):
                raise InputError(f"the answers of {file!r} give the passage {answers[0].title!r} twice")
            seen[file].add(exam)
            kept += answers
    return tuple(sorted(kept, key=lambda v: v.line))


def _check_exam(answers: Sequence[Verdict], file: str, article: int, passages: Sequence[Passage] | None) -> object:
    where = f"the answers to passage {article + 1} of {file!r} ({answers[0].title!r})"
    exams: dict[tuple[int, int, str], Counter[tuple[str, str]]] = {}
    for v in answers:
        exams.setdefault((v.edit, v.repeat, v.arm), Counter())[v.question, v.gold] += 1
    edits, repeats = ({v.edit for v in answers}, {v.repeat for v in answers})
    is_whole = exams.keys() == {(e, r, arm) for e in edits for r in repeats for arm in ARMS}
    first = next(iter(exams.values()))
    if len({v.title for v in answers}) > 1 or not is_whole or any(exam != first for exam in exams.values()):
        raise InputError(f"{where} are not one exam for every arm, edit and repeat: a line is lost, doubled or foreign")
    if passages is not None and passages:
        row = passages[article] if article < len(passages) else None
        if row is None or row.title != answers[0].title or row.n_questions not in (None, first.total()):
            raise InputError(f"{where} do not fit its row in the means: another title or number of questions")
    return answers[0].title, frozenset(first.items())


def _short(name: str) -> str:
    return name.removeprefix("query_server/")


def _unreleased(names: Iterable[str]) -> list[str]:
    found = set(names)
    return [f"{name}: no such result here" for name in EXPECTED if name not in found]
