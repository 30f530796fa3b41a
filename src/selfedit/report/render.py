"""A run's result for people and for programs: `report.html`, `report.json`, tables for the terminal.

The page is one file that loads nothing: no script, no font, no address. It opens from a mail attachment, in ten years,
on a phone, in light and in dark. Its first sentence states the result with its interval, and says so where there is
none. The same report gives the same bytes.

    write_report(run_folder, report)
    for table in render_table(report):
        console.print(table)

Records and JSON hold probabilities in [0, 1]; percent and points exist in the words only.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from selfedit.report.agreement_page import agreement_html, agreement_tables
from selfedit.report.course_page import course_html, course_tables
from selfedit.report.page import (
    ACCENT,
    INK,
    LINE,
    MINUS,
    NONE,
    PAPER,
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
from selfedit.report.record import EditPair, KindArm, Report
from selfedit.report.stats import Arm, Pair

_MEANING = {
    "base": "the model as it was",
    "passage": "trained on the bare text",
    "completions": "trained on self-edits from a file",
    "round-k": "trained on self-edits by the writer after k rounds of RL",
    "retrieval": "not trained, the passage that BM25 found in view",
    "in-context": "not trained, the right passage in view",
    "grey": "controls",
}
_OPEN_BOOK = {"retrieval", "in-context"}
_NAME = 30  # characters of a name that 80 columns hold in one line beside the numbers
_NAMED = 5  # of what was left out, on the page; the JSON has all


def write_report(folder: Path, report: Report) -> Path:
    """Write `report.json` and `report.html` into `folder`, each whole or not at all; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "report.json", json_text(report))
    return write_whole(folder / "report.html", as_html(report))


def write_whole(path: Path, text: str) -> Path:
    """Write a file so that whoever opens it sees all of the old text or all of the new; return its path."""
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_text(text, encoding="utf-8", newline="\n")
    os.replace(unfinished, path)
    return path


def json_text(report: Report) -> str:
    """Return `as_json` as the text of a file."""
    return json.dumps(as_json(report), indent=2, ensure_ascii=False) + "\n"


def as_json(report: Report) -> dict[str, object]:
    """Return the report for programs: probabilities in [0, 1], null where unmeasured; "kinds", "notes", "left_out",
    "course" and "agreements" where there are any, and "by_seed" of a pair where there are several seeds."""
    document: dict[str, object] = {
        "model": report.model,
        "seed": report.seed,
        "seconds": report.seconds,
        "arms": [asdict(arm) for arm in report.arms],
        "paired": [_pair_json(pair) for pair in report.paired],
    }
    if report.kinds:
        document["kinds"] = [{"kind": entry.kind, **asdict(entry.arm)} for entry in report.kinds]
    document |= {name: list(said) for name in ("notes", "left_out") if (said := getattr(report, name))}
    if report.course.curve:
        document["course"] = asdict(report.course)
    if report.agreements:
        document["agreements"] = [asdict(found) for found in report.agreements]
    return document


def _pair_json(pair: Pair) -> dict[str, object]:
    plain = asdict(pair)
    return plain if pair.by_seed else {key: value for key, value in plain.items() if key != "by_seed"}


def headline(report: Report) -> str:
    """State the result in one sentence: the last round against round 0, else the comparison of a writer's self-edits
    with what stands before them, else the first there is."""
    pair = _main_pair(report)
    if pair is None or pair.difference is None:
        return "No two arms were measured on the same passages."
    rounds = _rounds(report)
    is_rl = len(rounds) > 1 and (pair.a, pair.b) == (rounds[0], rounds[-1])
    who = f"{_count(len(rounds) - 1)} of RL" if is_rl else f"Against {pair.a}, {pair.b}"
    what = "accuracy" if _is_open_book(pair.a, pair.b) else "closed-book accuracy"
    if pair.ci95 is None:
        return f"{who} changed accuracy by {points(pair.difference)} points on one passage: too few for an interval."
    if pair.ci95[0] <= 0 <= pair.ci95[1]:
        change = f"{points(pair.difference)} points (95 % interval {span(pair.ci95, points)})"
        return f"{who} made no clear difference to {what}: {change}."
    verb = "raised" if pair.difference > 0 else "lowered"
    size = sorted(abs(bound) for bound in pair.ci95)
    interval = span((size[0], size[1]), percent)
    return f"{who} {verb} {what} by {percent(abs(pair.difference))} points (95 % interval {interval})."


def render_table(report: Report) -> list[Table]:
    """Return the arms and, where there are any, the paired differences as tables for the terminal."""
    title = f"{_measure(report)}, {report.model}, seed {report.seed}"
    tables = [rich_table(title, _ARM_HEADINGS, map(_arm_cells, report.arms))]
    if report.paired:
        headings, rows = _pair_table(report.paired)
        tables.append(rich_table("Paired differences", headings, rows))
    return [*tables, *course_tables(report.course), *agreement_tables(report.agreements)]


def render_one_table(report: Report) -> Table:
    """Return the arms and, under them, their paired differences as one table for the terminal; n counts passages."""
    title = f"{_measure(report)} and paired differences, {report.model}, seed {report.seed}"
    headings = ("arm", "%, points", "95 % interval", "n", "questions", "not marked")
    longest = max((len(_pair_cells(pair)[0]) for pair in report.paired), default=0)
    table = rich_table(title, headings, map(_arm_cells, report.arms))
    table.box, table.show_edge, table.collapse_padding = SIMPLE_HEAD, False, True  # 80 columns hold it
    for place, heading in enumerate(headings):
        table.columns[place].no_wrap = place == 2 or (place == 0 and longest <= _NAME)
        table.columns[place].min_width = max(len(word) for word in heading.split())
    table.add_section()
    for pair in report.paired:
        table.add_row(*map(Text, _pair_cells(pair)[:4]))
    return table


def render_gain(before: Arm, after: Arm, gain: Pair) -> RenderableType:
    """Return a lesson's closed-book score before and after, and the gain, for the terminal."""
    return Group(
        rich_table("Closed-book accuracy", _ARM_HEADINGS, map(_arm_cells, (before, after))),
        rich_table("Gain", _PAIR_HEADINGS, [_pair_cells(gain)]),
    )


def render_example(example: EditPair) -> RenderableType:
    """Return a passage and its two self-edits, side by side, for the terminal."""
    sides = Table.grid(expand=True, padding=(0, 1))
    sides.add_column(ratio=1)
    sides.add_column(ratio=1)
    before, after = Text(example.before), Text(example.after)
    sides.add_row(Panel(before, title="self-edit before RL"), Panel(after, title="after RL"))
    return Group(Text(example.heading), Panel(Text(example.passage), title=Text(example.title)), sides)


def as_html(report: Report) -> str:
    """Return the page as one self-contained document; whatever the model or the user wrote is escaped."""
    sentence, lead = prose(headline(report)), prose(_lead(report))
    meta = escape(f"{report.model}, seed {report.seed}, {_duration(report.seconds)}")
    caption = f"<b>How to read this.</b> {prose(_caption(report))}"
    parts = [
        f'<header><p class="meta">{meta}</p><h1>{sentence}</h1><p class="lead">{lead}</p></header>',
        f"<figure>{_picture(report)}<figcaption>{caption}</figcaption></figure>",
        section("Accuracy", html_table(_ARM_HEADINGS, map(_arm_cells, report.arms)) + _UNMARKED),
    ]
    if report.paired:
        headings, rows = _pair_table(report.paired)
        by_seed = _BY_SEED if len(headings) > len(_PAIR_HEADINGS) else ""
        parts.append(section("Paired tests", html_table(headings, rows) + _POINTS + by_seed))
    parts += course_html(report.course, report.arms, report.seed)
    parts += agreement_html(report.agreements)
    if report.kinds:
        parts.append(section("By kind of question", _kinds_html(report.kinds)))
    if report.examples:
        parts.append(section("What the writer wrote", "".join(_example_html(example) for example in report.examples)))
    notes = [*report.notes, *_left_out(report.left_out)]
    if notes:
        parts.append(section("Notes", "".join(f"<p>{escape(note)}</p>" for note in notes)))
    return document(headline(report), "\n".join(parts))


# Words


def _left_out(sentences: Sequence[str]) -> list[str]:
    """Count what was left out of the files, and name the first few."""
    more = " …" if len(sentences) > _NAMED else ""
    return [f"{len(sentences)} left out: {'; '.join(sentences[:_NAMED])}{more}"] if sentences else []


def _rounds(report: Report) -> list[str]:
    """The rounds of the first variant."""
    rounds = [arm.name for arm in report.arms if _is_round(arm.name)]
    return [name for name in rounds if _variant(name) == _variant(rounds[0])]


def _is_round(name: str) -> bool:
    return re.fullmatch(r"round-\d+", _sort(name)) is not None


def _sort(name: str) -> str:
    """What an arm is, whatever variant it is of: "round-0" for "round-0 self-qa"."""
    return name.partition(" ")[0]


def _variant(name: str) -> str:
    return name.partition(" ")[2]


def _main_pair(report: Report) -> Pair | None:
    rounds = _rounds(report)
    first_to_last = [pair for pair in report.paired if rounds and (pair.a, pair.b) == (rounds[0], rounds[-1])]
    with_rounds = [pair for pair in report.paired if rounds and pair.b == rounds[-1]]
    return next(iter([*first_to_last, *with_rounds, *report.paired]), None)


def _measure(report: Report) -> str:
    is_open = _is_open_book(*(arm.name for arm in report.arms))
    return "Accuracy" if is_open else "Closed-book accuracy"


def _is_open_book(*names: str) -> bool:
    return any(_sort(name) in _OPEN_BOOK for name in names)


def _lead(report: Report) -> str:
    """Accuracies behind the headline, and how many passages they rest on."""
    accuracy = {arm.name: f"{percent(arm.accuracy)} %" for arm in report.arms if arm.accuracy is not None}
    pair = _main_pair(report)
    words = []
    if pair is not None and {pair.a, pair.b} <= accuracy.keys():
        passages = "passage" if pair.n == 1 else "passages"
        words.append(
            f"{'Accuracy' if _is_open_book(pair.a, pair.b) else 'With the passage out of view, accuracy'} is "
            f"{accuracy[pair.a]} in {pair.a} and {accuracy[pair.b]} in {pair.b}, compared on {pair.n:,} {passages}."
        )
    if "base" in accuracy and (pair is None or "base" not in (pair.a, pair.b)):
        words.append(f"The model as it was reaches {accuracy['base']}.")
    return " ".join(words)


def _caption(report: Report) -> str:
    """How to read the picture."""
    names = {"round-k" if _is_round(arm.name) else _sort(arm.name) for arm in report.arms}
    meanings = [f"{name}, {meaning}" for name, meaning in _MEANING.items() if name in names]
    if names - _MEANING.keys():
        meanings.append(f"grey, {_MEANING['grey']}")
    return (
        "A dot is the mean over n passages of the share of questions answered correctly with the passage out of "
        f"view{' (but where it is said to be in view)' if names & _OPEN_BOOK else ''}; its bar is the 95 % interval "
        "from resampling passages. Two bars may overlap although the arms differ: the paired tests below compare every "
        "passage with itself. "
        f"Arms: {'; '.join(meanings)}."
    )


def _count(rounds: int) -> str:
    words = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
    return f"{words[rounds] if rounds < len(words) else rounds} round{'s' * (rounds != 1)}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


# Tables

_ARM_HEADINGS = ("arm", "accuracy, %", "95 % interval", "passages", "questions", "not marked")
_PAIR_HEADINGS = ("compared", "points", "95 % interval", "passages", "verdict")
_UNMARKED = "<p>Answers that could not be marked are left out of every mean; none is counted as wrong.</p>"
_BY_SEED = (
    "<p>By seed: what another training of the writer, on other passages, would give; Student's t on one number for "
    "each seed.</p>"
)
_POINTS = "<p>Points of accuracy on the same passages; a gain or a loss is one whose interval leaves out zero.</p>"


def _arm_cells(arm: Arm) -> list[str]:
    counts = (arm.n_passages, arm.n_questions, arm.n_failed)
    return [arm.name, percent(arm.accuracy), span(arm.ci95, percent), *(f"{count:,}" for count in counts)]


def _pair_cells(pair: Pair) -> list[str]:
    name = f"{pair.b} {MINUS} {pair.a}"
    return [name, points(pair.difference), span(pair.ci95, points), f"{pair.n:,}", _verdict(pair)]


def _pair_table(pairs: Sequence[Pair]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Headings and rows, with a column for the intervals by seed where there are any."""
    if not any(pair.by_seed for pair in pairs):
        return _PAIR_HEADINGS, [_pair_cells(pair) for pair in pairs]
    compared, measured, _, *rest = _PAIR_HEADINGS
    rows = [
        [*_pair_cells(p)[:3], span(p.by_seed.ci95 if p.by_seed else None, points), *_pair_cells(p)[3:]] for p in pairs
    ]
    return (compared, measured, "95 % by passage", "95 % by seed", *rest), rows


def _verdict(pair: Pair) -> str:
    if pair.ci95 is None:
        return "no interval"
    return "gain" if pair.ci95[0] > 0 else "loss" if pair.ci95[1] < 0 else "not clear"


def _kinds_html(kinds: Sequence[KindArm]) -> str:
    """Arms down, kinds across."""
    columns = list(dict.fromkeys(entry.kind for entry in kinds))
    arms = {(entry.arm.name, entry.kind): entry.arm for entry in kinds}
    rows = [
        [escape(name), *(_kind_cell(arms.get((name, kind))) for kind in columns)]
        for name in dict.fromkeys(entry.arm.name for entry in kinds)
    ]
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in ("arm", *(kind or "other" for kind in columns)))
    return raw_table(head, rows) + "<p>Accuracy in %, its 95 % interval, and the number of questions.</p>"


def _kind_cell(arm: Arm | None) -> str:
    if arm is None:
        return NONE
    return f"{percent(arm.accuracy)} <small>{span(arm.ci95, percent)}; n = {arm.n_questions:,}</small>"


# The page


def _example_html(example: EditPair) -> str:
    columns = "".join(
        f"<div><h4>{when}</h4>"
        f'<div class="edit" tabindex="0" role="region" aria-label="self-edit {when}">{escape(text)}</div></div>'
        for when, text in (("before RL", example.before), ("after RL", example.after))
    )
    return (
        f"<article><h3>{escape(example.heading)}</h3>"
        f"<blockquote><b>{escape(example.title)}.</b> {escape(example.passage)}</blockquote>"
        f'<div class="pair">{columns}</div></article>'
    )


# The picture


def _picture(report: Report) -> str:
    """Draw the arms as an SVG element of the page."""
    return picture(lambda axes: _draw_arms(axes, report.arms), (4.8, 3.2), _alternative(report.arms))


def _draw_arms(axes: Axes, arms: Sequence[Arm]) -> None:
    lines: dict[str, list[tuple[int, float]]] = {}
    for x, arm in enumerate(arms):
        if _is_round(arm.name) and arm.accuracy is not None:
            lines.setdefault(_variant(arm.name), []).append((x, arm.accuracy * 100))
    for line in lines.values():
        axes.plot(*zip(*line, strict=True), color=ACCENT, linewidth=1.8, zorder=2)
    for x, arm in enumerate(arms):
        _draw_arm(axes, x, arm)
    _below(axes, "n =", -0.5, "right")
    axes.set_xlim(-0.5, max(len(arms), 1) - 0.5)
    axes.set_ylim(0, max([10.0, *(_top(arm) * 1.12 for arm in arms)]))
    axes.set_xticks(range(len(arms)), [arm.name for arm in arms], parse_math=False)
    axes.tick_params(axis="x", length=0, pad=18)
    axes.tick_params(axis="y", length=0, labelcolor=QUIET)
    is_crowded = len(arms) * max([0, *(len(arm.name) for arm in arms)]) > 50
    for label, arm in zip(axes.get_xticklabels(), arms, strict=True):
        label.set_color(_color(arm.name))
        if is_crowded:
            label.set(rotation=35, rotation_mode="anchor", horizontalalignment="right")
    axes.set_title("accuracy, %", loc="left", color=QUIET, fontsize=10)
    axes.grid(axis="y", color=LINE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_frame_on(False)


def _draw_arm(axes: Axes, x: int, arm: Arm) -> None:
    """One dot with its bar, its accuracy above and its n below; an unmeasured arm has its n alone."""
    _below(axes, f"{arm.n_passages:,}", x)
    if arm.accuracy is None:
        return
    color, height = _color(arm.name), arm.accuracy * 100
    if arm.ci95 is not None:
        axes.vlines(x, arm.ci95[0] * 100, arm.ci95[1] * 100, color=color, linewidth=1.4, zorder=3, clip_on=False)
    axes.scatter(x, height, 49, color=color, edgecolor=PAPER, linewidth=1.2, zorder=4, clip_on=False)
    axes.annotate(percent(arm.accuracy), (x, _top(arm)), (0, 6), textcoords="offset points", ha="center", color=color)


def _below(axes: Axes, text: str, x: float, side: Literal["center", "right"] = "center") -> None:
    axes.annotate(text, (x, 0), (0, -7), textcoords="offset points", ha=side, va="top", color=QUIET, fontsize=8.5)


def _top(arm: Arm) -> float:
    """The highest point of an arm's mark, in %."""
    return (arm.ci95[1] if arm.ci95 else arm.accuracy or 0.0) * 100


def _color(name: str) -> str:
    return ACCENT if _is_round(name) else INK if name in _MEANING else QUIET


def _alternative(arms: Sequence[Arm]) -> str:
    """The picture in words."""
    told = ", ".join(f"{arm.name} {percent(arm.accuracy)} ({span(arm.ci95, percent)})" for arm in arms)
    return f"Accuracy in % with 95 % intervals: {told}."
