"""The tables of SEAL's published answers as other graders than GPT-4.1 would have written them.

    verdicts = read_published(folder).verdicts
    tables = graded(verdicts, plain_marks(verdicts) | cross_fitted_marks(Path("probabilities.npz"), verdicts))

A learnt grader may only be shown with the marks it gave to answers that it did not learn from. A grader is compared
with GPT-4.1 on the same answers, so what differs is the grader alone. Two things are worth seeing: whether its means
are off (the difference), and whether it would put the methods in another order (Kendall's τ) or call another gain real.

Axis suffix: N lines of the file of verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from zipfile import BadZipFile

import numpy as np

from selfedit.errors import InputError
from selfedit.report.names import in_order, pairs, place_of
from selfedit.report.published import ARMS, Arm, Verdict, Verdicts
from selfedit.report.stats import Contrast, Estimate, Marks, contrast, estimate, rank_agreement
from selfedit.workspace import mark_answers

PLAIN = ("contains", "exact", "f1")

MarksN = Sequence[float | None]
"""A grader's marks in [0, 1], one for each line of the file of verdicts; None where it gave none."""


@dataclass(frozen=True, slots=True)
class Seen:
    """How a grader sees what GPT-4.1 saw: its mean, that less GPT-4.1's, the share of answers on which they agree.

    A mark from 0.5 up is read as a yes. `n_failed` answers have no mark and are left out.
    """

    grader: str
    mean: float | None
    difference: Contrast
    agreement: float | None
    n_failed: int


@dataclass(frozen=True, slots=True)
class SeenArm:
    """One arm of a results file, on the `n_passages` whose answers were published."""

    name: str
    arm: Arm
    n_passages: int
    n_answers: int
    gpt: Estimate
    seen: tuple[Seen, ...]


@dataclass(frozen=True, slots=True)
class SeenComparison:
    """A comparison on the passages whose answers were published, by GPT-4.1 and by each grader in turn."""

    kind: str
    a: str
    b: str
    gpt: Contrast
    seen: tuple[tuple[str, Contrast], ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Kendall's τ between the order in which GPT-4.1 and a grader put the `n` results of a table."""

    table: str
    grader: str
    tau: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Graded:
    """The tables as graders see them."""

    graders: tuple[str, ...]
    arms: tuple[SeenArm, ...]
    comparisons: tuple[SeenComparison, ...]
    rankings: tuple[Ranking, ...]


def plain_marks(verdicts: Verdicts | None) -> dict[str, MarksN]:
    """Mark the published answers with the graders that nothing was learnt for."""
    if verdicts is None:
        return {}
    answers = list(dict.fromkeys((v.gold, v.prediction) for v in verdicts.rows))  # many are given again and again
    golds, predictions = [gold for gold, _ in answers], [prediction for _, prediction in answers]
    marks: dict[str, MarksN] = {}
    for name in PLAIN:
        known = dict(zip(answers, mark_answers(name, golds, predictions), strict=True))
        column: list[float | None] = [None] * verdicts.n_lines
        for v in verdicts.rows:
            column[v.line] = known[v.gold, v.prediction]
        marks[name] = column
    return marks


def cross_fitted_marks(path: Path, verdicts: Verdicts | None) -> dict[str, MarksN]:
    """Read a learnt grader's probabilities, each from a fold that did not see the answer, as two columns.

    The .npz file holds "probability" [N] for the lines of the file of verdicts and that file's "sha256". The columns
    are the probabilities ("calibrated") and their yes or no ("calibrated, cut at 0.5"). Raises `InputError` where the
    file is none, is of other verdicts, or does not fit.
    """
    if verdicts is None or verdicts.sha256 is None:
        raise InputError(f"{path.name} belongs to a file of verdicts, and the folder to replay has none")
    try:
        with np.load(path, allow_pickle=False) as held:
            probabilities_N, sha256 = np.asarray(held["probability"], dtype=np.float64), str(held["sha256"])
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
        raise InputError(
            f"cannot read {path.name}: expected an .npz file with 'probability' [N] and 'sha256' ({error})"
        ) from error
    if sha256 != verdicts.sha256:
        raise InputError(
            f"{path.name} was made from another file of verdicts (sha256 {sha256[:12]}…, not {verdicts.sha256[:12]}…); "
            "make it again from the one in the folder"
        )
    is_share = (probabilities_N >= 0) & (probabilities_N <= 1)
    if probabilities_N.shape != (verdicts.n_lines,) or not is_share.all():
        raise InputError(f"{path.name}: expected {verdicts.n_lines:,} probabilities in [0, 1], one for every line")
    cut_N = (probabilities_N >= 0.5).astype(float)
    return {"calibrated": probabilities_N.tolist(), "calibrated, cut at 0.5": cut_N.tolist()}


def graded(verdicts: Verdicts, marks: Mapping[str, MarksN]) -> Graded:
    """Build the tables from the published answers, once by GPT-4.1's marks and once by those of each grader."""
    found = by_file(verdicts.rows)
    files = {name: found[name] for name in in_order(found)}
    gpt_N: MarksN = _on_lines(verdicts)
    columns = {name: {arm: _exams(rows, arm) for arm in ARMS} for name, rows in files.items()}
    arms = [_seen_arm(name, arm, columns[name][arm], gpt_N, marks) for arm in reversed(ARMS) for name in files]
    exams = {name: frozenset(columns[name]["adapter"]) for name in files}
    comparisons = [
        _seen_comparison(kind, a, b, columns[a]["adapter"], columns[b]["adapter"], gpt_N, marks)
        for kind, a, b in pairs(list(files), exams)
    ]
    rankings = [
        _ranking(table, grader, [each for each in arms if each.arm == "adapter" and _table(each.name) == table], i)
        for table in dict.fromkeys(map(_table, files))
        for i, grader in enumerate(marks)
    ]
    return Graded(tuple(marks), tuple(arms), tuple(comparisons), tuple(rankings))


def _table(name: str) -> str:
    place = place_of(name)
    return place.table if place else ""


def _on_lines(verdicts: Verdicts) -> list[float | None]:
    column: list[float | None] = [None] * verdicts.n_lines
    for v in verdicts.rows:
        column[v.line] = float(v.is_correct)
    return column


def by_file(rows: Sequence[Verdict]) -> dict[str, list[Verdict]]:
    """Sort answers by their results file."""
    files: dict[str, list[Verdict]] = {}
    for v in rows:
        files.setdefault(v.file, []).append(v)
    return files


Lines = Mapping[str, Sequence[int]]
"""Passage, named by its title and questions → the lines with its answers, in the order of the questions."""


def _exams(rows: Sequence[Verdict], arm: Arm) -> Lines:
    passages: dict[int, list[Verdict]] = {}
    for v in rows:
        if v.arm == arm:
            passages.setdefault(v.article, []).append(v)
    named = {}
    for answers in passages.values():
        answers.sort(key=lambda v: (v.question, v.gold, v.edit, v.repeat, v.line))
        named["\n".join([answers[0].title, *dict.fromkeys(f"{v.question}\t{v.gold}" for v in answers)])] = answers
    return {name: [v.line for v in answers] for name, answers in named.items()}


def _column(lines: Lines, marks_N: MarksN) -> Marks:
    return {passage: [marks_N[line] for line in places] for passage, places in lines.items()}


def _seen_arm(name: str, arm: Arm, lines: Lines, gpt_N: MarksN, marks: Mapping[str, MarksN]) -> SeenArm:
    given = _column(lines, gpt_N)
    gpt = estimate([fmean(v for v in values if v is not None) for values in given.values()])
    assert gpt is not None
    places = [line for passage in lines.values() for line in passage]
    seen = [_seen(grader, places, given, _column(lines, marks_N), gpt_N, marks_N) for grader, marks_N in marks.items()]
    return SeenArm(name, arm, len(lines), len(places), gpt, tuple(seen))


def _seen(grader: str, places: Sequence[int], given: Marks, marked: Marks, gpt_N: MarksN, marks_N: MarksN) -> Seen:
    pairs = [(gpt, mark) for line in places if (gpt := gpt_N[line]) is not None and (mark := marks_N[line]) is not None]
    agreement = fmean((mark >= 0.5) == (gpt >= 0.5) for gpt, mark in pairs) if pairs else None
    values = [fmean(known) for marks in marked.values() if (known := [m for m in marks if m is not None])]
    mean = fmean(values) if values else None
    return Seen(grader, mean, contrast(given, marked), agreement, len(places) - len(pairs))


def _seen_comparison(
    kind: str, a: str, b: str, lines_a: Lines, lines_b: Lines, gpt_N: MarksN, marks: Mapping[str, MarksN]
) -> SeenComparison:
    def between(column: MarksN) -> Contrast:
        return contrast(_column(lines_a, column), _column(lines_b, column))

    return SeenComparison(kind, a, b, between(gpt_N), tuple((name, between(column)) for name, column in marks.items()))


def _ranking(table: str, grader: str, arms: Sequence[SeenArm], i: int) -> Ranking:
    columns = [(each.gpt.mean, mean) for each in arms if (mean := each.seen[i].mean) is not None]
    tau = rank_agreement([a for a, _ in columns], [b for _, b in columns])
    return Ranking(table, grader, tau, len(columns))
