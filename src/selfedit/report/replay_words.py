"""What a replay says: its headline, its notes, and how results, differences and p values are worded."""

from __future__ import annotations

from selfedit.report.graded import SeenComparison
from selfedit.report.names import DEFAULT_PROMPT, place_of
from selfedit.report.page import MINUS, NONE, percent, points
from selfedit.report.replay import Comparison, Course, Replay
from selfedit.report.stats import Contrast, Estimate

_WRITERS = {"gpt4_1": "GPT-4.1", "naive": "passage only"}


def headline(replay: Replay) -> str:
    """State what RL brought to the paper's own prompt, with its error."""
    pair = _main(replay, "rounds")
    if pair is None or pair.found.difference is None:
        return "No two rounds were measured on the same passages."
    before, after = (_accuracy(replay, name) for name in (pair.a, pair.b))
    change = f"{_with_error(pair.found)} points"
    if verdict_of(pair.found) not in ("gain", "loss"):
        return f"RL made no clear difference to accuracy: {before} to {after} %, {change}."
    return f"RL took closed-book accuracy from {before} to {after} %: {change}."


def lead(replay: Replay) -> str:
    """Say how the last round compares with GPT-4.1's self-edits, and how much of what was printed was recomputed."""
    return " ".join([*_against(replay), figures_sentence(replay)])


def _against(replay: Replay) -> list[str]:
    pair = _main(replay, "writers")
    if pair is None:
        return []
    verdict = {"gain": "a clear gain", "loss": "a clear loss"}.get(verdict_of(pair.found), "no clear difference")
    return [
        f"Against self-edits by {name_parts(pair.a)[1]} ({_accuracy(replay, pair.a)} %) that is "
        f"{_with_error(pair.found)}: {verdict}.",
        f"Errors are standard errors, paired by passage (n = {pair.found.n:,}).",
    ]


def notes(replay: Replay) -> list[str]:
    """Say what was compared with what, what is missing and what was left out; a sentence each."""
    said = [figures_sentence(replay)]
    differing = [(row.name, f) for row in replay.rows for f in row.figures if f.differs]
    said += [f"{name}: {f.name} is printed as {f.published} and its rows give {f.recomputed}" for name, f in differing]
    for check in replay.checks:
        if check.n:
            said.append(f"The {check.what}: {check.n:,} cells compared, {len(check.differing):,} differ.")
        said += check.differing
    lacking = [row.name for row in replay.rows if row.adapter is None and row.baseline is None]
    if lacking:
        said.append(f"{len(lacking)} results without rows, which are not guessed: {', '.join(lacking)}.")
    for what, sentences in (("not there", replay.missing), ("left out", replay.left_out)):
        if sentences:
            said.append(f"{len(sentences)} {what}:")
            said += sentences
    return said


def summary(replay: Replay) -> list[str]:
    """Return what the terminal says under its tables: the sequences of updates, the notes, the result."""
    return [*map(course_sentence, replay.courses), *notes(replay), headline(replay), *_against(replay)]


def course_sentence(course: Course) -> str:
    """Tell a sequence of updates in one sentence."""
    last = course.steps[-1]
    after = f"{percent(course.learnt)} % right after each was learnt, {percent(course.end)} % at the end"
    return (
        f"{len(course.steps)} updates one after another, {course.continual.n_sequences} times: accuracy "
        f"{percent(course.before)} % before them, {after}; forgetting {points(last.forgetting)}, backward transfer "
        f"{points(last.backward_transfer)} points."
    )


def figures_sentence(replay: Replay) -> str:
    figures = [figure for row in replay.rows for figure in row.figures]
    compared = [figure for figure in figures if figure.differs is not None]
    n_differing = sum(bool(figure.differs) for figure in compared)
    return (
        f"Of {len(figures):,} numbers that the authors printed, {len(compared):,} could be computed again from rows; "
        f"{n_differing:,} of them differ by more than rounding."
    )


def _main(replay: Replay, kind: str) -> Comparison | None:
    """The comparison to begin with: the last round with the first one, or with GPT-4.1, in the paper's own prompt."""
    writers = {"rounds": "round-0", "writers": "gpt4_1"}
    found = None
    for pair in replay.comparisons:
        a, b = place_of(pair.a), place_of(pair.b)
        if a and b and pair.kind == kind and (a.table, a.prompt, a.writer) == ("eval", DEFAULT_PROMPT, writers[kind]):
            found = pair if b.writer.startswith("round-") else found
    return found


def _accuracy(replay: Replay, name: str) -> str:
    return next((mean_text(row.adapter) for row in replay.rows if row.name == name), NONE)


def name_parts(name: str) -> tuple[str, ...]:
    """Name a result by table, writer and prompt format; by its file where the name is not the authors'."""
    place = place_of(name)
    if place is None:
        return "", name
    writer = _WRITERS.get(place.writer, place.writer)
    return (place.table, writer, *([place.prompt] if place.prompt != DEFAULT_PROMPT else []))


def short_name(name: str) -> str:
    """Word `name_parts` as one."""
    return ", ".join(part for part in name_parts(name) if part)


def pair_label(pair: Comparison | SeenComparison) -> str:
    """Name what differs, then what is the same where that is not the paper's own prompt or the evaluation."""
    a, b = place_of(pair.a), place_of(pair.b)
    if a is None or b is None:
        return f"{pair.b} {MINUS} {pair.a}"
    if pair.kind == "formats":
        same = [_WRITERS.get(a.writer, a.writer), *([a.table] * (a.table != "eval"))]
        return ", ".join([f"{b.prompt} {MINUS} {a.prompt}", *same])
    writers = f"{_WRITERS.get(b.writer, b.writer)} {MINUS} {_WRITERS.get(a.writer, a.writer)}"
    same = [a.prompt] * (a.prompt != DEFAULT_PROMPT) + [a.table] * (a.table != "eval")
    return ", ".join([writers, *same])


def mean_text(found: Estimate | None) -> str:
    """Word a mean in %."""
    return percent(found.mean if found else None)


def four_digits(probability: float | None) -> str:
    """Word a probability in % as exactly as the authors print it."""
    return NONE if probability is None else f"{probability * 100:.2f}"


def error_text(se: float | None) -> str:
    """Word a standard error in points."""
    return NONE if se is None else f"±{se * 100:.1f}"


def _with_error(found: Contrast) -> str:
    return f"{points(found.difference)} {error_text(found.se).replace('±', '± ')}"


def p_text(p: float | None) -> str:
    """Word a p value."""
    return NONE if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def count_text(n: int | None) -> str:
    """Word a number of things."""
    return NONE if n is None else f"{n:,}"


def verdict_of(found: Contrast) -> str:
    """Say on which side of zero a difference clearly is: its interval leaves out zero and p is below 0.05.

    At the margin one of the two may say yes and the other no; then nothing is clear.
    """
    if found.ci95 is None or found.p is None:
        return "no test"
    is_clear = found.p < 0.05 and not found.ci95[0] <= 0 <= found.ci95[1]
    return "not clear" if not is_clear else "gain" if found.ci95[0] > 0 else "loss"
