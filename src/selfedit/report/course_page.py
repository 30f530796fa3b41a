"""What became of a writer over its rounds, for people: the learning curve, variety beside it, kinds of lines.

    course_html(report.course, report.arms, report.seed)  # sections of the page
    course_tables(report.course)  # tables for the terminal
    what_changed(report.course)  # one sentence

The curve shows both uncertainties apart: the band is that of another training (by seed), the bars that of other
passages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from html import escape

from matplotlib.axes import Axes
from rich.table import Table
from rich.text import Text

from selfedit.report.lines import SETTINGS
from selfedit.report.page import (
    ACCENT,
    INK,
    LINE,
    MINUS,
    NONE,
    QUIET,
    html_table,
    percent,
    picture,
    points,
    raw_table,
    rich_table,
    section,
    span,
)
from selfedit.report.record import Course, LineChange, LineShare, RoundPoint, SettingReward, StageVariety
from selfedit.report.stats import Arm, BySeed

_WAYS = {
    "wording": "How the lines are worded",
    "subject": "Lines that name their subject",
    "judged": "What the lines say",
    SETTINGS: "Settings that the self-edits chose (learning rate x epochs)",
}
_MEASURES = {
    "lines": "lines",
    "words": "words",
    "distinct_lines": "distinct lines, %",
    "distinct_2": "distinct pairs, %",
    "alike_passage": "self-BLEU, one passage",
    "alike_all": "self-BLEU, all",
}
_COUNTS = ("lines", "words")
_INCHES = (3.5, 2.9)
_MOST = 3  # changes that one sentence can hold


def course_html(course: Course, arms: Sequence[Arm], seed: int) -> list[str]:
    """Return the sections of the page, the first seed being `seed`; none where no writer was reinforced."""
    if not course.curve:
        return []
    drawn = [_curve_html(course.curve, arms), _variety_picture(course.variety)]
    curve = f'<div class="pair">{"".join(drawn)}</div>' + _CURVE + _curve_table(course.curve, seed)
    found = [section("Round by round", curve), section("Variety", _variety_table(course.variety) + _VARIETY)]
    if course.lines:
        sentence = f"<p>{escape(what_changed(course))}</p>"
        found.append(section("What the writer learnt to write", sentence + _lines_html(course) + _LINES))
    if course.settings:
        found.append(section("What the settings were worth", _settings_table(course.settings) + _SETTINGS))
    return found


def course_tables(course: Course) -> list[Table]:
    """Return the curve with its variety and the change of the kinds of lines as tables for the terminal."""
    if not course.curve:
        return []
    tables = [rich_table("Variety of the self-edits", _VARIETY_HEADINGS, map(_variety_cells, course.variety))]
    lines = [change for change in course.changes if change.way != SETTINGS]
    settings = [change for change in course.changes if change.way == SETTINGS]
    if lines:
        tables += _change_tables(course, lines, "Kinds of lines", "share of lines")
        tables[-1].caption, tables[-1].caption_justify = Text(what_changed(course)), "left"
    return [*tables, *_change_tables(course, settings, "Settings chosen", "rate x epochs")]


def _change_tables(course: Course, changes: Sequence[LineChange], title: str, heading: str) -> list[Table]:
    """A table for each pair of writers."""
    pairs = dict.fromkeys((change.a, change.b) for change in changes)
    return [
        rich_table(
            f"{title}, {a} and {b}",
            (heading, f"{a}, %", f"{b}, %", "points", "by passage", "by seed"),
            [_change_cells(course, c) for c in changes if (c.a, c.b) == (a, b)],
        )
        for a, b in pairs
    ]


def what_changed(course: Course) -> str:
    """Say which kinds of lines grew or shrank most from the first writer to the last, of those whose interval over
    passages leaves out zero."""
    lines = [c for c in course.changes if c.way != SETTINGS]
    clear = [c for c in lines if c.by_passage.ci95 and not c.by_passage.ci95[0] <= 0 <= c.by_passage.ci95[1]]
    if not clear:
        return "No kind of line became clearly more or less frequent."
    shares = {(s.way, s.kind, s.arm): s for s in course.lines}
    clear.sort(key=lambda c: -abs(c.by_passage.difference or 0.0))
    told = "; ".join(_told(c, shares) for c in clear[:_MOST])
    return f"What changed most from {clear[0].a} to {clear[0].b}, as a share of all lines: {told}."


# ── the curve ──


_CURVE = (
    "<p>Left: accuracy on the unseen passages after every round; a thin line is one seed, the thick one their mean, "
    "the band its 95 % interval by seed (another training), the bars that by passage (other passages). Right: how "
    "varied the self-edits are that each round rewarded.</p>"
)


def _curve_html(curve: Sequence[RoundPoint], arms: Sequence[Arm]) -> str:
    spans = {arm.name: arm.ci95 for arm in arms}
    told = ", ".join(f"{p.arm} {percent(p.by_seed.mean)} ({span(p.by_seed.ci95, percent)})" for p in curve)
    alternative = f"Accuracy in % by round, with 95 % intervals by seed: {told}."
    return f"<figure>{picture(lambda axes: _draw_curve(axes, curve, spans), _INCHES, alternative)}</figure>"


def _draw_curve(axes: Axes, curve: Sequence[RoundPoint], spans: Mapping[str, tuple[float, float] | None]) -> None:
    """One variant: its seeds, its mean with band and bars. Several: their means with bands, named at their ends."""
    variants = {point.variant: [p for p in curve if p.variant == point.variant] for point in curve}
    highest = 0.0
    ends: list[tuple[float, str, int, str]] = []
    for number, (name, found) in enumerate(variants.items()):
        color = ACCENT if number == 0 else (INK, QUIET)[(number - 1) % 2]
        rounds = [point.round for point in found]
        if len(variants) == 1:
            for values in zip(*(point.by_seed.values for point in found), strict=True):
                axes.plot(rounds, _percents(values), color=QUIET, linewidth=0.7, alpha=0.7, zorder=1)
            _draw_bars(axes, found, spans, color)
        highest = max([highest, *(top for p in found for top in (*p.by_seed.values, *(spans.get(p.arm) or ())) if top)])
        _draw_mean(axes, rounds, [point.by_seed for point in found], color)
        if name:
            ends.append(((found[-1].by_seed.mean or 0.0) * 100, name, rounds[-1], color))
    top = max(10.0, highest * 115)  # a band of two seeds would make everything else flat
    axes.set_ylim(0, top)
    ends.sort(key=lambda end: end[0])
    for height, (_, name, at, color) in zip(apart([end[0] for end in ends], 0.07 * top), ends, strict=True):
        axes.annotate(name, (at, height), (6, 0), textcoords="offset points", va="center", color=color)
    _frame(axes, sorted({point.round for point in curve}), "accuracy, %")


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Move rising heights up as far as needed, so that each is at least `gap` above the one before."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + gap) if moved else height)
    return moved


def _draw_bars(
    axes: Axes, found: Sequence[RoundPoint], spans: Mapping[str, tuple[float, float] | None], color: str
) -> None:
    for point in found:
        if bounds := spans.get(point.arm):
            axes.vlines(point.round, bounds[0] * 100, bounds[1] * 100, color=color, linewidth=1.2, zorder=3)


def _draw_mean(axes: Axes, rounds: Sequence[int], points_R: Sequence[BySeed], color: str) -> None:
    axes.plot(rounds, _percents([p.mean for p in points_R]), color=color, linewidth=1.8, marker="o", markersize=4)
    banded = [(r, p.ci95) for r, p in zip(rounds, points_R, strict=True) if p.ci95]
    if banded:
        low, high = ([max(0.0, bounds[side]) * 100 for _, bounds in banded] for side in (0, 1))
        axes.fill_between([r for r, _ in banded], low, high, color=color, alpha=0.15, linewidth=0, zorder=0)


def _frame(axes: Axes, rounds: Sequence[int], title: str) -> None:
    axes.set_xticks(rounds, [str(r) for r in rounds])
    axes.tick_params(length=0, labelcolor=QUIET)
    axes.set_xlabel("round", color=QUIET, fontsize=9)
    axes.set_title(title, loc="left", color=QUIET, fontsize=10)
    axes.grid(axis="y", color=LINE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_frame_on(False)


def _percents(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value * 100 for value in values]


def _curve_table(curve: Sequence[RoundPoint], seed: int) -> str:
    n = max(len(point.by_seed.values) for point in curve)
    headings = ("arm", "mean, %", "95 % by seed", *(f"seed {seed + i}" for i in range(n)))
    rows = [
        [p.arm, percent(p.by_seed.mean), span(p.by_seed.ci95, percent), *map(percent, p.by_seed.values)] for p in curve
    ]
    return html_table(headings, rows)


# ── variety ──

_VARIETY_HEADINGS = ("stage", "self-edits", *_MEASURES.values())
_VARIETY = (
    "<p>Means over seeds, with their 95 % intervals by seed. train-k: the self-edits that round k rewarded, so "
    "written by the writer of the round before. Lines and words are those of one self-edit; distinct are the different "
    "ones over all self-edits of a stage; self-BLEU says how well a text is put together from the others (arXiv "
    "1802.01886), those on the same passage or all. Compare stages of the same size: train with train, round with "
    "round.</p>"
)


def _variety_table(stages: Sequence[StageVariety]) -> str:
    rows = [
        [
            escape(stage.stage),
            f"{stage.n_edits:,}",
            *(_measure_cell(name, stage.measures[name]) for name in _MEASURES),
        ]
        for stage in stages
    ]
    return raw_table("".join(f'<th scope="col">{escape(heading)}</th>' for heading in _VARIETY_HEADINGS), rows)


def _measure_cell(name: str, found: BySeed) -> str:
    return f"{_number(name, found.mean)} <small>{span(found.ci95, partial(_number, name))}</small>"


def _variety_cells(stage: StageVariety) -> list[str]:
    return [stage.stage, f"{stage.n_edits:,}", *(_number(name, stage.measures[name].mean) for name in _MEASURES)]


def _number(measure: str, value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}" if measure in _COUNTS else percent(value)


def _variety_picture(stages: Sequence[StageVariety]) -> str:
    """Draw what tells a collapse over the rounds: self-BLEU within a passage, and the share of distinct lines."""
    rewarded = {
        int(s.stage.removeprefix("train-")): s.measures for s in stages if s.stage.removeprefix("train-").isdigit()
    }
    if len(rewarded) < 2:
        return ""

    def draw(axes: Axes) -> None:
        for name, color in (("alike_passage", INK), ("distinct_lines", ACCENT)):
            found = [measures[name] for measures in rewarded.values()]
            _draw_mean(axes, list(rewarded), found, color)
            axes.annotate(
                {"alike_passage": "self-BLEU of a passage's drafts", "distinct_lines": "distinct lines"}[name],
                (max(rewarded), (found[-1].mean or 0.0) * 100),
                (0, 7 if name == "alike_passage" else -14),
                textcoords="offset points",
                ha="right",
                color=color,
                fontsize=9,
            )
        axes.set_ylim(0, 100)
        _frame(axes, list(rewarded), "drafts of a round, %")

    alternative = "Self-BLEU of a passage's drafts and the share of distinct lines, in %, by round: " + ", ".join(
        f"{i} {percent(m['alike_passage'].mean)} and {percent(m['distinct_lines'].mean)}" for i, m in rewarded.items()
    )
    return f"<figure>{picture(draw, _INCHES, alternative + '.')}</figure>"


# ── kinds of lines ──

_LINES = (
    "<p>Of all lines of a self-edit, the share of each kind in %: the mean over passages, its 95 % interval from "
    "resampling them, and how many such lines a self-edit has. A line is copied where its words stand in the passage "
    "one after the other, in other words where at least half of them stand there, repeated where its self-edit has "
    "said it before.</p>"
)


def _lines_html(course: Course) -> str:
    """A table for each way to tell lines apart, arms down and kinds across."""
    tables = []
    for way in dict.fromkeys(entry.way for entry in course.lines):
        found = {(entry.arm, entry.kind): entry for entry in course.lines if entry.way == way}
        kinds, arms = (list(dict.fromkeys(key[place] for key in found)) for place in (1, 0))
        head = "".join(f'<th scope="col">{escape(text)}</th>' for text in ("arm", *kinds))
        rows = [[escape(arm), *(_share_cell(found.get((arm, kind))) for kind in kinds)] for arm in arms]
        rows += [list(row) for row in _change_rows(course.changes, way, kinds)]
        tables.append(f"<h3>{_WAYS[way]}</h3>{raw_table(head, rows)}")
    return "".join(tables)


def _share_cell(entry: LineShare | None) -> str:
    if entry is None or entry.share is None or entry.an_edit is None:
        return NONE
    return f"{percent(entry.share)} <small>{span(entry.ci95, percent)}</small><small>{entry.an_edit:.1f} each</small>"


def _change_rows(changes: Sequence[LineChange], way: str, kinds: Sequence[str]) -> Iterator[list[str]]:
    for a, b in dict.fromkeys((c.a, c.b) for c in changes):
        found = {c.kind: c for c in changes if (c.a, c.b, c.way) == (a, b, way)}
        cells = [_change_cell(found[kind]) if kind in found else NONE for kind in kinds]
        yield [escape(f"{b} {MINUS} {a}"), *cells]


def _change_cell(change: LineChange) -> str:
    by_seed = f"<small>{span(change.by_seed.ci95, points)} by seed</small>" if change.by_seed.ci95 else ""
    return f"{points(change.by_passage.difference)} <small>{span(change.by_passage.ci95, points)}</small>{by_seed}"


def _change_cells(course: Course, change: LineChange) -> list[str]:
    shares = {s.arm: s.share for s in course.lines if (s.way, s.kind) == (change.way, change.kind)}
    return [
        change.kind,
        percent(shares.get(change.a)),
        percent(shares.get(change.b)),
        points(change.by_passage.difference),
        span(change.by_passage.ci95, points),
        span(change.by_seed.ci95, points),
    ]


_SETTINGS = (
    "<p>Of the self-edits of a stage that chose each setting: how many there are, their mean reward in % with its 95 % "
    "interval over passages, and the mean steps of an update. The texts differ from setting to setting, since each "
    "self-edit chose its own.</p>"
)


def _settings_table(found: Sequence[SettingReward]) -> str:
    """Stages down and settings across."""
    cells = {(each.stage, each.setting): each for each in found}
    stages, settings = (list(dict.fromkeys(key[place] for key in cells)) for place in (0, 1))
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in ("stage", *settings))
    rows = [[escape(stage), *(_worth_cell(cells[stage, setting]) for setting in settings)] for stage in stages]
    return raw_table(head, rows)


def _worth_cell(each: SettingReward) -> str:
    if not each.n_edits:
        return NONE
    steps = "" if each.steps is None else f", {each.steps:.0f} steps"
    reward = f"{percent(each.reward.mean)} <small>{span(each.reward.ci95, percent)}</small>"
    return f"{reward}<small>{each.n_edits} self-edits{steps}</small>"


def _told(change: LineChange, shares: Mapping[tuple[str, str, str], LineShare]) -> str:
    before, after = (shares[change.way, change.kind, arm].share for arm in (change.a, change.b))
    verb = "rose" if (change.by_passage.difference or 0.0) > 0 else "fell"
    return (
        f"\N{LEFT DOUBLE QUOTATION MARK}{change.kind}\N{RIGHT DOUBLE QUOTATION MARK} {verb} from {percent(before)} to "
        f"{percent(after)} % ({points(change.by_passage.difference)} points, {span(change.by_passage.ci95, points)})"
    )
