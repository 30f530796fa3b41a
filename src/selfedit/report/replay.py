"""Compute SEAL's published numbers again, from the rows that they are means of, with what the paper leaves out.

The paper prints means. Here each stands beside its standard error and interval, differences are paired by passage, and
what was printed stands beside what its rows give. Where rows were not published there is a None, never a guess. The
answers behind the tables are marked by other graders than GPT-4.1 (`report.graded`), so that one sees whether a table
would read the same.

    published = read_published(Path("SEAL"))
    found = replay(published, plain_marks(published.verdicts))

A mean over passages weighs every passage alike, as the authors do; a passage's edits and repeats are averaged first.
With some sixty comparisons, three fall below p = 0.05 by chance: p values are not adjusted.

Axis suffixes: G edits a passage, S steps, K tasks learnt one after another, N lines of the file of verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from selfedit.report.graded import Graded, MarksN, by_file, graded
from selfedit.report.names import Place, pairs, place_of
from selfedit.report.published import ARMS, Arm, Continual, Passage, Published, Result, Reward, Verdict
from selfedit.report.stats import Contrast, Estimate, Marks, Step, contrast, estimate, forgetting_matrix, retention

ROUNDING = 1e-4  # four decimals printed of means of rows that have four decimals themselves: half of one, twice
_SAME = ROUNDING * 1.001  # of two numbers that are exactly that far apart, floating point may say a little more


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that the authors computed beside what its rows give, None where there are none.

    `differs`: by more than `ROUNDING`; None where the two cannot be compared.
    """

    name: str
    published: float | None
    recomputed: float | None
    differs: bool | None


@dataclass(frozen=True, slots=True)
class Row:
    """One results file. `place` is None for a name that is not the authors'; counts are None where rows are absent."""

    name: str
    place: Place | None
    n_passages: int | None
    n_questions: int | None
    n_edits: int | None
    baseline: Estimate | None
    adapter: Estimate | None
    gain: Contrast | None
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Result `b` less result `a` on the same passages, adapter against adapter.

    `kind` says in what alone they differ: "rounds" of RL, "writers" (one is no stage of RL), "formats" of the prompt.
    """

    kind: str
    a: str
    b: str
    found: Contrast


@dataclass(frozen=True, slots=True)
class Selection:
    """What choosing the best of a passage's edits does, by the very marks that chose it: an optimistic number.

    Of `n_passages` with `n_edits` in all, `n_not_better` have none that beats the unadapted model; None without it.
    """

    name: str
    n_passages: int
    n_edits: int
    every: Estimate
    best: Estimate
    n_not_better: int | None


@dataclass(frozen=True, slots=True)
class Course:
    """A sequence of updates: accuracy `before` it on all its tasks, right after each was `learnt`, and at the `end`."""

    continual: Continual
    before: float
    learnt: float | None
    end: float | None
    steps: tuple[Step, ...]
    forgetting_SK: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Check:
    """Two files that tell the same: `n` cells compared, and which of them differ."""

    what: str
    n: int
    differing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Replay:
    """All that was computed; `missing` and `left_out` as `Published` has them."""

    name: str
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    selections: tuple[Selection, ...]
    courses: tuple[Course, ...]
    checks: tuple[Check, ...]
    graded: Graded | None
    missing: tuple[str, ...]
    left_out: tuple[str, ...]


def replay(published: Published, marks: Mapping[str, MarksN]) -> Replay:
    """Compute everything again. `marks` are the graders' columns, by name."""
    verdicts, results = published.verdicts, published.results
    answers = by_file(verdicts.rows if verdicts else ())
    return Replay(
        published.name,
        tuple(_row(result, answers.get(result.name, ())) for result in results),
        tuple(_comparisons(results)),
        tuple(_selections(results)),
        tuple(map(_course, published.sequences)),
        tuple(_checks(results, published.rewards, answers)),
        graded(verdicts, marks) if verdicts and verdicts.rows else None,
        published.missing,
        published.left_out,
    )


# Means


def _row(result: Result, answers: Sequence[Verdict]) -> Row:
    passages = result.passages_P or ()
    pooled = result.pooled or {}
    counts = [p.n_questions for p in passages]
    arms = {arm: _means(passages, arm) for arm in ARMS}
    baseline, adapter = (
        estimate([*arms[arm].values()]) or (Estimate(fmean(pooled[arm]), None, None) if pooled.get(arm) else None)
        for arm in ARMS
    )
    is_paired = bool(arms["baseline"] and arms["adapter"])
    known = [n for n in counts if n is not None]
    return Row(
        result.name,
        place_of(result.name),
        len(passages) or None,
        (sum(known) if known and len(known) == len(counts) else None) or len(pooled.get("adapter", ())) or None,
        max((len(p.adapter_G) or len(p.baseline_G) for p in passages), default=None),
        baseline,
        adapter,
        contrast(_marks(arms["baseline"]), _marks(arms["adapter"])) if is_paired else None,
        tuple(_figures(result, baseline, adapter, answers)),
    )


def _means(passages: Sequence[Passage], arm: Arm) -> dict[int, float]:
    """Each passage's mean over its edits, by its place; without the passages that lack the arm."""
    edits = {i: p.adapter_G if arm == "adapter" else p.baseline_G for i, p in enumerate(passages)}
    return {i: fmean(values_G) for i, values_G in edits.items() if values_G}


def _marks(means: Mapping[int, float]) -> Marks:
    return {f"{i:06}": (mean,) for i, mean in means.items()}


def _figures(
    result: Result, baseline: Estimate | None, adapter: Estimate | None, answers: Sequence[Verdict]
) -> Iterable[Figure]:
    """Set every number that the authors printed beside what its rows give."""
    passages = result.passages_P or ()
    before, after = (arm.mean if arm else None for arm in (baseline, adapter))
    gain = None if before is None or after is None else after - before
    means = {arm: [*_means(passages, arm).values()] for arm in ARMS}
    is_whole = len({v.article for v in answers}) == len(passages)
    again: dict[str, Callable[[], float | None]] = {
        "baseline_mean_accuracy": lambda: before,
        "adapter_mean_accuracy": lambda: after,
        "mean_gain": lambda: gain,
        "baseline_accuracy": lambda: before,
        "adapter_accuracy": lambda: after,
        "gain": lambda: gain,
        "baseline_std_of_article_means": lambda: _spread(means["baseline"]),
        "adapter_std_of_article_means": lambda: _spread(means["adapter"]),
        "mean_adapter_std_over_completions": lambda: _mean_of_all(_spread(p.adapter_G) for p in passages),
        "mean_adapter_std_within_completions": lambda: _spread_of_repeats(answers) if is_whole else None,
    }
    for name, printed in result.printed.items():
        found = again[name]() if name in again else None
        differs = None if printed is None or found is None else abs(printed - found) > _SAME
        yield Figure(name, printed, found, differs)


def _spread(values: Sequence[float]) -> float | None:
    """The sample's standard deviation; None below two values, where the authors print 0."""
    return stdev(values) if len(values) > 1 else None


def _spread_of_repeats(answers: Sequence[Verdict]) -> float | None:
    marks: dict[tuple[int, int], dict[int, list[bool]]] = {}
    for v in answers:
        if v.arm == "adapter":
            marks.setdefault((v.article, v.edit), {}).setdefault(v.repeat, []).append(v.is_correct)
    return _mean_of_all(_spread([fmean(exam) for exam in repeats.values()]) for repeats in marks.values())


def _mean_of_all(values: Iterable[float | None]) -> float | None:
    given = list(values)
    measured = [value for value in given if value is not None]
    return fmean(measured) if measured and len(measured) == len(given) else None


# Comparisons


def _comparisons(results: Sequence[Result]) -> Iterable[Comparison]:
    passages = {result.name: result.passages_P or () for result in results}
    exams = {name: _exam(rows) for name, rows in passages.items() if _means(rows, "adapter")}
    for kind, a, b in pairs(list(exams), exams):
        marks_a, marks_b = (_marks(_means(passages[name], "adapter")) for name in (a, b))
        yield Comparison(kind, a, b, contrast(marks_a, marks_b))


def _exam(passages: Sequence[Passage]) -> tuple[tuple[str, int], ...] | None:
    """What tells whether two files are about the same passages; None where their questions were not counted."""
    known = [(p.title, p.n_questions) for p in passages if p.n_questions is not None]
    return tuple(known) if len(known) == len(passages) else None


# Rewards, updates one after another, and whether the files agree


def _selections(results: Sequence[Result]) -> Iterable[Selection]:
    for result in results:
        sizes = [len(p.adapter_G) for p in result.passages_P or ()]
        if result.passages_P and min(sizes) > 0 and max(sizes) > 1:
            yield _selection(result.name, result.passages_P)


def _selection(name: str, passages: Sequence[Passage]) -> Selection:
    every = estimate([fmean(p.adapter_G) for p in passages])
    best = estimate([max(p.adapter_G) for p in passages])
    assert every is not None
    assert best is not None
    has_baseline = all(p.baseline_G for p in passages)
    n_not_better = sum(max(p.adapter_G) <= fmean(p.baseline_G) + 1e-9 for p in passages) if has_baseline else None
    return Selection(name, len(passages), sum(len(p.adapter_G) for p in passages), every, best, n_not_better)


def _course(continual: Continual) -> Course:
    cells_SK = continual.accuracies_SK
    steps = tuple(retention(cells_SK))
    lost_SK = tuple(map(tuple, forgetting_matrix(cells_SK)))
    learnt = _mean_of_all(step.learnt for step in steps)
    return Course(continual, fmean(continual.before_K), learnt, steps[-1].seen, steps, lost_SK)


def _checks(
    results: Sequence[Result], rewards: Sequence[Reward], answers: Mapping[str, Sequence[Verdict]]
) -> Iterable[Check]:
    rows = {result.name: result.passages_P for result in results if result.passages_P}
    cells: dict[tuple[str, int, Arm, int], list[bool]] = {}
    for name, verdicts in answers.items():
        for v in verdicts if name in rows else ():
            cells.setdefault((name, v.article, v.arm, v.edit), []).append(v.is_correct)
    told = {cell: fmean(marks) for cell, marks in cells.items()}
    yield _check("answers against the passages' means", told, rows)
    told = {
        # The authors count the writers from 0, the rounds from 1.
        (f"train/rank_iter{reward.round - 1}", reward.passage, arm, reward.edit): mean
        for reward in rewards
        for arm, mean in zip(ARMS, (reward.baseline, reward.adapter), strict=True)
    }
    yield _check("rewards against the passages' means", {c: m for c, m in told.items() if c[0] in rows}, rows)


def _check(what: str, told: Mapping[tuple[str, int, Arm, int], float], rows: Mapping[str, Sequence[Passage]]) -> Check:
    def cell(name: str, passage: int, arm: Arm, edit: int) -> float | None:
        row = rows[name][passage] if passage < len(rows[name]) else None
        values_G = () if row is None else row.adapter_G if arm == "adapter" else row.baseline_G
        return values_G[edit] if edit < len(values_G) else None

    pairs = {place: (value, cell(*place)) for place, value in told.items()}
    differing = [place for place, (a, b) in pairs.items() if b is None or abs(a - b) > _SAME]
    return Check(
        what, len(pairs), tuple(f"{name}, passage {p + 1}, {arm}, edit {g + 1}" for name, p, arm, g in differing)
    )
