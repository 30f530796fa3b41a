"""How a replay looks: `report.html`, `report.json`, tables for the terminal.

    write_replay(folder, found)
    for table in render_replay(found):
        console.print(table)

A result is named here by what it is ("eval, round-2, long"), in the JSON by its file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from rich.box import SIMPLE_HEAD
from rich.table import Table

from selfedit.report.graded import Graded, Seen, SeenArm, SeenComparison
from selfedit.report.page import (
    ACCENT,
    INK,
    MINUS,
    NONE,
    QUIET,
    document,
    html_table,
    percent,
    picture,
    points,
    prose,
    raw_table,
    rich_table,
    section,
    span,
)
from selfedit.report.render import write_whole
from selfedit.report.replay import Comparison, Course, Replay, Row, Selection
from selfedit.report.replay_words import (
    count_text,
    course_sentence,
    error_text,
    four_digits,
    headline,
    lead,
    mean_text,
    name_parts,
    notes,
    p_text,
    pair_label,
    short_name,
    verdict_of,
)

_TABLES = {
    "eval": "One adapter a passage, evaluation",
    "train": "One adapter a self-edit, training of the writer",
    "cpt": "One adapter for all passages",
    "": "Other results",
}
_KINDS = {
    "rounds": "Rounds of RL, the same prompt format",
    "writers": "Writers, the same prompt format",
    "formats": "Prompt formats, the same writer",
}


def write_replay(folder: Path, replay: Replay) -> Path:
    """Write `report.json` and `report.html` into `folder`, each whole or not at all; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "report.json", replay_json(replay))
    return write_whole(folder / "report.html", replay_html(replay))


def replay_json(replay: Replay) -> str:
    """Return the records as the text of a JSON file: probabilities in [0, 1], null where nothing is known."""
    return json.dumps(asdict(replay), indent=2, ensure_ascii=False) + "\n"


def render_replay(replay: Replay) -> list[Table]:
    """Return the tables for the terminal: every result, the comparisons of rounds and writers, the graders' order."""
    tables = [rich_table("SEAL's results, printed and computed again, %", _ROW_HEADINGS, map(_row_cells, replay.rows))]
    pairs = [each for each in replay.comparisons if each.kind != "formats"]
    if pairs:
        cells = [_pair_cells(pair)[:-1] for pair in pairs]
        tables.append(rich_table("Paired differences, points", _PAIR_HEADINGS[:-1], cells))
    if replay.graded and replay.graded.rankings:
        tables.append(rich_table("Results in GPT-4.1's order?", _RANK_HEADINGS, _rank_cells(replay.graded)))
    for table in tables:
        table.box, table.show_edge, table.collapse_padding = SIMPLE_HEAD, False, True  # 80 columns hold it
    return tables


def replay_html(replay: Replay) -> str:
    """Return the page as one self-contained document."""
    head = f'<p class="meta">{escape(f"SEAL (arXiv 2506.10943), replayed from {replay.name}")}</p>'
    parts = [
        f'<header>{head}<h1>{prose(headline(replay))}</h1><p class="lead">{prose(lead(replay))}</p></header>',
        section("Published and recomputed", _results_html(replay.rows)),
        section("Paired differences", _comparisons_html(replay.comparisons)),
        section("The best of a passage's self-edits", _selections_html(replay.selections)),
        *(section("One update after another", _course_html(course)) for course in replay.courses),
    ]
    if replay.graded:
        parts.append(section("As other graders see it", _graded_html(replay.graded)))
    parts.append(
        section("What was checked, and what is not there", "".join(f"<p>{prose(s)}</p>" for s in notes(replay)))
    )
    return document(headline(replay), "\n".join(parts))


# Tables

_ROW_HEADINGS = ("result", "printed", "again", "error", "95 % interval", "gain", "n")
_PAIR_HEADINGS = ("compared", "points", "error", "95 % interval", "p", "n", "verdict")
_RANK_HEADINGS = ("table", "grader", "Kendall's τ", "results")


_PRINTED = (("baseline_mean_accuracy", "baseline_accuracy"), ("adapter_mean_accuracy", "adapter_accuracy"))


def _row_cells(row: Row) -> list[str]:
    mean, se, within = (row.adapter.mean, row.adapter.se, row.adapter.ci95) if row.adapter else (None, None, None)
    return [
        short_name(row.name),
        four_digits(_printed(row, 1)) + ("!" if any(f.differs for f in row.figures) else ""),
        four_digits(mean),
        error_text(se),
        span(within, percent),
        points(row.gain.difference if row.gain else None),
        count_text(row.n_passages),
    ]


def _printed(row: Row, arm: int) -> float | None:
    return next((f.published for f in row.figures if f.name in _PRINTED[arm]), None)


def _pair_cells(pair: Comparison) -> list[str]:
    found = pair.found
    values = (
        points(found.difference),
        error_text(found.se),
        span(found.ci95, points),
        p_text(found.p),
        count_text(found.n),
    )
    return [pair_label(pair), *values, verdict_of(found)]


def _rank_cells(graded: Graded) -> list[list[str]]:
    return [
        [each.table or "other", each.grader, NONE if each.tau is None else f"{each.tau:.2f}", count_text(each.n)]
        for each in graded.rankings
    ]


def _results_html(rows: Sequence[Row]) -> str:
    tables: dict[str, list[Row]] = {}
    for row in rows:
        tables.setdefault(row.place.table if row.place else "", []).append(row)
    head = _head("result", "printed, %", "again, %", "95 % interval", "unadapted, %", "gain, points", "passages")
    parts = [f"<h3>{_TABLES[name]}</h3>{raw_table(head, map(_row_html, of))}" for name, of in tables.items()]
    return "".join(parts) + _READING


def _head(*headings: str) -> str:
    """The headings of a table, their units on a line of their own."""
    return "".join(f'<th scope="col">{escape(heading).replace(", ", ",<br>")}</th>' for heading in headings)


_READING = (
    "<p>Printed: by the authors. Again: computed from the rows; under it the standard error. The interval resamples "
    "passages. The gain is paired by passage, its interval under it. "
    f"{NONE}: rows not published, or not to be known from them.</p>"
)


def _row_html(row: Row) -> list[str]:
    mean, se, within = (row.adapter.mean, row.adapter.se, row.adapter.ci95) if row.adapter else (None, None, None)
    ci95 = row.gain.ci95 if row.gain else None
    before = _printed(row, 0)
    flag = " <b>differs</b>" if any(f.differs for f in row.figures) else ""
    return [
        escape(", ".join(name_parts(row.name)[1:])),
        four_digits(_printed(row, 1)) + flag,
        _two(four_digits(mean), error_text(se)),
        span(within, percent),
        _two(mean_text(row.baseline), f"printed {percent(before)}" if before is not None else ""),
        _two(points(row.gain.difference if row.gain else None), span(ci95, points)),
        _two(count_text(row.n_passages), f"{row.n_questions:,} questions" if row.n_questions else ""),
    ]


def _two(value: str, under: str) -> str:
    """A value with what belongs to it on a line below, if that is known."""
    return escape(value) + (f" <small>{escape(under)}</small>" if under not in ("", NONE) else "")


def _comparisons_html(pairs: Sequence[Comparison]) -> str:
    if not pairs:
        return "<p>No two results are known to be about the same passages.</p>"
    kinds = {kind: [pair for pair in pairs if pair.kind == kind] for kind in _KINDS}
    tables = [
        _folded(f"{_KINDS[kind]} ({len(of)})", html_table(_PAIR_HEADINGS, map(_pair_cells, of)), kind != "formats")
        for kind, of in kinds.items()
        if of
    ]
    return "".join(tables) + (
        "<p>Points of accuracy, the first less the second, each passage compared with itself; the error is the "
        f"standard error, p that of Student's paired t, not adjusted: of {len(pairs)} comparisons about "
        f"{len(pairs) * 0.05:.0f} would fall below 0.05 by chance. A gain or a loss has p below 0.05 and "
        "an interval that leaves out zero.</p>"
    )


def _folded(summary: str, body: str, is_open: bool) -> str:
    return f"<details{' open' if is_open else ''}><summary>{escape(summary)}</summary>{body}</details>"


def _selections_html(selections: Sequence[Selection]) -> str:
    if not selections:
        return "<p>No result with several self-edits a passage.</p>"
    rows = [
        [
            escape(", ".join(name_parts(each.name)[1:])),
            f"{each.n_edits:,}",
            f"{mean_text(each.every)} {error_text(each.every.se)}",
            f"{mean_text(each.best)} {error_text(each.best.se)}",
            NONE if each.n_not_better is None else f"{each.n_not_better} of {each.n_passages}",
        ]
        for each in selections
    ]
    head = _head("result", "self-edits", "every edit, %", "best of a passage, %", "best not above, unadapted model")
    return raw_table(head, rows) + (
        "<p>The best edit is chosen by the marks that are then averaged, so its mean is too high for what it would "
        "score again. Where the best does not beat the unadapted model, the published code reinforces it all the same."
        "</p>"
    )


# Updates one after another


def _course_html(course: Course) -> str:
    errors = [se for row in course.continual.errors_SK for se in row if se is not None]
    between = f" Standard errors are {percent(min(errors))} to {percent(max(errors))} points a cell." if errors else ""
    caption = (
        "<b>How to read this.</b> Accuracy in % on each passage's questions, before the first update and after each "
        f"one, averaged over {course.continual.n_sequences} sequences of passages, model "
        f"{escape(course.continual.model)}. Framed: the passage just learnt. Down a column a passage is forgotten. "
        f"Right: the mean of what was seen.{between}"
    )
    headings = ("after step", "just learnt, %", "mean of seen, %", "forgetting, points", "backward transfer, points")
    rows = [
        [str(s.step), percent(s.learnt), percent(s.seen), points(s.forgetting), points(s.backward_transfer)]
        for s in course.steps
    ]
    reading = (
        "Forgetting: how far passages are below the best they were since they were learnt (Chaudhry et al. 2018, "
        "arXiv 1801.10112); of means over sequences, a lower bound. Backward transfer: how far they moved since they "
        "were learnt (Lopez-Paz & Ranzato 2017, arXiv 1706.08840). The sequences were not published one by one, so "
        "these means have no interval."
    )
    drawn = picture(lambda axes: _draw_course(axes, course), (5.4, 4.3), _course_words(course))
    return (
        f"<p>{prose(course_sentence(course))}</p><figure>{drawn}<figcaption>{caption}</figcaption></figure>"
        f"{html_table(headings, rows)}<p>{prose(reading)}</p>"
    )


def _draw_course(axes: Axes, course: Course) -> None:
    """Draw the matrix as a heat map, a mean of each row at its right."""
    rows = [course.continual.before_K, *course.continual.accuracies_SK]
    cells = [value for row in rows for value in row if value is not None]
    low, high, size = min(cells), max(cells), len(rows[0])
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            if value is not None:
                shade = 0.05 + 0.5 * (value - low) / ((high - low) or 1.0)
                axes.add_patch(Rectangle((x, y), 0.94, 0.92, facecolor=ACCENT, alpha=shade, linewidth=0))
                axes.text(x + 0.47, y + 0.48, percent(value), ha="center", va="center", color=INK, fontsize=9)
            if y == x + 1:
                axes.add_patch(Rectangle((x, y), 0.94, 0.92, fill=False, edgecolor=ACCENT, linewidth=1.4))
    means = [course.before, *(step.seen for step in course.steps)]
    for y, value in enumerate(means):
        axes.text(size + 0.65, y + 0.48, percent(value), ha="center", va="center", color=INK, fontsize=9)
    axes.set_xlim(-0.05, size + 1.1)
    axes.set_ylim(len(rows), -0.05)
    axes.set_xticks([*(x + 0.47 for x in range(size)), size + 0.65], [*(str(x + 1) for x in range(size)), "mean"])
    axes.set_yticks([y + 0.48 for y in range(len(rows))], ["before", *(f"after {y}" for y in range(1, len(rows)))])
    axes.xaxis.tick_top()
    axes.set_title("accuracy on passage, %", loc="left", color=QUIET, fontsize=10)
    axes.tick_params(length=0, labelcolor=QUIET)
    axes.set_frame_on(False)


def _course_words(course: Course) -> str:
    rows: list[tuple[str, Sequence[float | None]]] = [("before", course.continual.before_K)]
    rows += [(f"after {s + 1}", row[: s + 1]) for s, row in enumerate(course.continual.accuracies_SK)]
    return "Accuracy in %. " + " ".join(f"{when}: {', '.join(map(percent, row))}." for when, row in rows)


# Graders


def _graded_html(graded: Graded) -> str:
    tables = [
        _folded(
            f"{heading} ({len(arms)} results)",
            _seen_table(graded.graders, map(_seen_cells, arms)),
            is_open,
        )
        for heading, arm, is_open in (("Adapted model", "adapter", True), ("Unadapted model", "baseline", False))
        if (arms := [each for each in graded.arms if each.arm == arm])
    ]
    kinds = {kind: [pair for pair in graded.comparisons if pair.kind == kind] for kind in _KINDS}
    tables += [
        _folded(f"{_KINDS[kind]} ({len(of)})", _seen_table(graded.graders, map(_between_cells, of)), kind == "rounds")
        for kind, of in kinds.items()
        if of
    ]
    passages = {each.n_passages for each in graded.arms}
    reading = (
        f"These tables rest on the answers that were published, {min(passages):,} to {max(passages):,} passages a "
        "result; with fewer passages than above GPT-4.1's means are others than above. Under a grader's mean stand its "
        "difference from GPT-4.1 on the same answers and the share of answers on which both agree. Under a difference "
        "stands its interval; * where the grader's verdict (gain, loss, not clear) is another than GPT-4.1's."
    )
    order = (
        "Kendall's τ says how far a grader puts the results of a table in GPT-4.1's order: 1 the same, 0 unrelated, "
        f"{MINUS}1 the reverse. Only the order counts: a grader that is too strict throughout may still have τ = 1."
    )
    return (
        f"<p>{prose(reading)}</p>{''.join(tables)}<h3>The same order?</h3>"
        f"{html_table(_RANK_HEADINGS, _rank_cells(graded))}<p>{prose(order)}</p>"
    )


def _seen_table(graders: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return raw_table(_head("result", "GPT-4.1", *graders), rows)


def _seen_cells(arm: SeenArm) -> list[str]:
    counts = f"{arm.n_passages:,} passages, {arm.n_answers:,} answers"
    gpt = _two(mean_text(arm.gpt), error_text(arm.gpt.se))
    return [_two(short_name(arm.name), counts), gpt, *map(_seen_cell, arm.seen)]


def _seen_cell(seen: Seen) -> str:
    failed = f", {seen.n_failed:,} unmarked" if seen.n_failed else ""
    return _two(percent(seen.mean), f"{points(seen.difference.difference)}; {percent(seen.agreement)}{failed}")


def _between_cells(pair: SeenComparison) -> list[str]:
    verdict = verdict_of(pair.gpt)
    cells = [pair.gpt, *(found for _, found in pair.seen)]
    return [
        _two(pair_label(pair), f"{pair.gpt.n:,} passages"),
        *(
            _two(points(found.difference) + ("*" if verdict_of(found) != verdict else ""), span(found.ci95, points))
            for found in cells
        ),
    ]
