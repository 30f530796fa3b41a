"""What a page says of a writer's rounds: a curve with both uncertainties, variety, and what was learnt."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from rich.console import Console

from selfedit.report.course_page import apart, course_html, course_tables, what_changed
from selfedit.report.record import (
    Course,
    LineChange,
    LineShare,
    Report,
    RoundPoint,
    SettingReward,
    StageVariety,
)
from selfedit.report.render import headline, render_table, write_report
from selfedit.report.stats import Arm, Interval, Pair, Paired, by_seed

MINUS = "\N{MINUS SIGN}"
ARMS = tuple(Arm(f"round-{i}", 0.3 + 0.05 * i, (0.25 + 0.05 * i, 0.35 + 0.05 * i), 84, 600, 0) for i in range(3))
CURVE = tuple(RoundPoint("", i, f"round-{i}", by_seed([0.28 + 0.05 * i, 0.3, 0.32 + 0.05 * i])) for i in range(3))
NAMES = ("lines", "words", "distinct_lines", "distinct_1", "distinct_2", "alike_passage", "alike_all")


def stage(name: str, *values: float | None) -> StageVariety:
    return StageVariety(
        name, 540, {measure: by_seed([value, value]) for measure, value in zip(NAMES, values, strict=True)}
    )


def change(kind: str, difference: float, low: float, high: float) -> LineChange:
    seeds = by_seed([difference - 0.01, difference + 0.01])
    return LineChange("judged", kind, "round-0", "round-2", Paired(difference, (low, high), 84), seeds)


LINES = tuple(
    LineShare("judged", kind, f"round-{i}", share, (share - 0.05, share + 0.05), 3.4 + i, 84)
    for i, shares in ((0, (0.47, 0.23)), (2, (0.76, 0.2)))
    for kind, share in zip(("true", "false"), shares, strict=True)
)
COURSE = Course(
    CURVE,
    (
        stage("train-1", 5.8, 47.0, 0.7, 0.1, 0.2, 0.466, 0.75),
        stage("train-2", 7.6, 62.0, 0.45, 0.05, 0.1, 0.752, 0.8),
        stage("round-0", 6.8, 55.0, 0.8, 0.2, 0.4, None, 0.3),
    ),
    LINES,
    (change("true", 0.29, 0.15, 0.43), change("false", -0.03, -0.1, 0.04)),
)
PAIR = Pair("round-0", "round-2", 0.1, (0.04, 0.16), 84, by_seed([0.1, 0.12, 0.08]))
REPORT = Report("pup", 0, 60.0, ARMS, (PAIR,), course=COURSE)


def page(folder: Path, report: Report = REPORT) -> str:
    return write_report(folder, report).read_text(encoding="utf-8")


def shown(report: Report) -> list[str]:
    console = Console(width=160)
    with console.capture() as text:
        console.print(*render_table(report))
    return [re.sub(r" *│ *", "|", line).strip("|") for line in text.get().splitlines()]


def test_a_report_without_rounds_says_nothing_of_them(tmp_path: Path) -> None:
    report = replace(REPORT, course=Course())
    assert "Round by round" not in page(tmp_path, report)
    assert "course" not in json.loads((tmp_path / "report.json").read_text())
    assert (course_html(Course(), ARMS, 0), course_tables(Course())) == ([], [])


def test_the_page_has_the_curve_and_the_variety_beside_it(tmp_path: Path) -> None:
    pictures = re.findall(r'aria-label="([^"]*)"', page(tmp_path))
    assert len(pictures) == 3
    assert pictures[1].startswith("Accuracy in % by round, with 95 % intervals by seed: round-0 30.0 (25.0 to 35.0)")
    assert re.search(r"seed 0</th>.*seed 1</th>.*seed 2</th></tr>", page(tmp_path))
    assert pictures[2].endswith("by round: 1 46.6 and 70.0, 2 75.2 and 45.0.")


def test_the_json_holds_the_course_whole(tmp_path: Path) -> None:
    write_report(tmp_path, REPORT)
    document = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert list(document["course"]) == ["curve", "variety", "lines", "changes", "settings"]
    assert document["course"]["curve"][1]["by_seed"]["values"] == [0.33, 0.3, 0.37]
    assert document["course"]["variety"][2]["measures"]["alike_passage"] == {
        "values": [None, None],
        "mean": None,
        "ci95": None,
    }
    assert document["paired"][0]["by_seed"]["values"] == [0.1, 0.12, 0.08]


def test_differences_have_both_intervals_where_there_are_seeds() -> None:
    assert f"round-2 {MINUS} round-0|+10.0|+4.0 to +16.0|+5.0 to +15.0|84|gain" in shown(REPORT)
    without = shown(replace(REPORT, paired=(replace(PAIR, by_seed=None),)))
    assert f"round-2 {MINUS} round-0|+10.0|+4.0 to +16.0|84|gain" in without


def test_the_terminal_tells_what_was_learnt_and_how_varied_it_is() -> None:
    lines = shown(REPORT)
    assert "true|47.0|76.0|+29.0|+15.0 to +43.0|+16.3 to +41.7" in lines
    assert "train-2|540|7.6|62.0|45.0|10.0|75.2|80.0" in lines
    assert "round-0|540|6.8|55.0|80.0|40.0|\N{EN DASH}|30.0" in lines


def test_the_sentence_names_only_what_changed_clearly_and_the_most_first() -> None:
    told = what_changed(COURSE)
    assert told == (
        "What changed most from round-0 to round-2, as a share of all lines: \N{LEFT DOUBLE QUOTATION MARK}true"
        "\N{RIGHT DOUBLE QUOTATION MARK} rose from 47.0 to 76.0 % (+29.0 points, +15.0 to +43.0)."
    )
    assert what_changed(replace(COURSE, changes=COURSE.changes[1:])).startswith("No kind of line became clearly")
    more = what_changed(replace(COURSE, changes=(COURSE.changes[0], change("false", 0.5, 0.4, 0.6))))
    assert more.index("false") < more.index("true")


def test_several_variants_are_drawn_in_one_picture_by_name(tmp_path: Path) -> None:
    curve = tuple(
        replace(point, variant=name, arm=f"{point.arm} {name}") for name in ("grpo", "rest") for point in CURVE
    )
    picture = re.findall(
        r"<svg.*?</svg>", page(tmp_path, replace(REPORT, course=replace(COURSE, curve=curve))), re.DOTALL
    )[1]
    assert ">grpo</text>" in picture
    assert ">rest</text>" in picture


def test_a_round_that_was_not_measured_leaves_a_gap_and_no_error(tmp_path: Path) -> None:
    curve = (*CURVE[:2], replace(CURVE[2], by_seed=by_seed([None, None, None])))
    text = page(
        tmp_path,
        replace(REPORT, arms=(*ARMS[:2], Arm("round-2", None, None, 0, 0, 9)), course=replace(COURSE, curve=curve)),
    )
    assert "round-2 \N{EN DASH} (\N{EN DASH})" in text


def test_every_element_of_the_sections_is_closed_and_names_are_no_markup(tmp_path: Path) -> None:
    still_open: list[str] = []

    class Nesting(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag != "meta":
                still_open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert still_open.pop() == tag

    evil = "<img src=x>"
    lines = tuple(replace(entry, kind=evil, arm=f"{entry.arm} {evil}") for entry in LINES[::2])
    variety = (replace(COURSE.variety[0], stage=evil),)
    named = replace(COURSE.changes[0], kind=evil, a=lines[0].arm, b=lines[1].arm)
    text = page(tmp_path, replace(REPORT, course=Course(CURVE, variety, lines, (named,))))
    Nesting().feed(text)
    assert still_open == []
    assert "<img" not in text
    assert headline(REPORT).startswith("Two rounds of RL raised")


def test_a_kind_of_line_that_one_writer_alone_wrote_is_a_gap_in_the_others_row(tmp_path: Path) -> None:
    alone = LineShare("judged", "empty", "round-2", 0.02, (0.0, 0.04), 0.1, 84)
    text = page(tmp_path, replace(REPORT, course=replace(COURSE, lines=(*LINES, alone))))
    assert re.search(r'<th scope="row">round-0</th>(<td>.*?</td>){2}<td>\N{EN DASH}</td>', text)


CHOSEN = Course(
    CURVE,
    COURSE.variety,
    tuple(
        LineShare("settings", kind, f"round-{i}", share, None, share, 84)
        for i, shares in ((0, (0.5, 0.5)), (2, (0.9, 0.1)))
        for kind, share in zip(("0.005 x 8", "unusable"), shares, strict=True)
    ),
    (replace(change("0.005 x 8", 0.4, 0.3, 0.5), way="settings"),),
    (
        SettingReward("train-1", "0.005 x 8", 12, Interval(0.25, (0.2, 0.3), 6, 0), 48.0),
        SettingReward("train-1", "unusable", 0, Interval(None, None, 0, 0), None),
    ),
)


def test_chosen_settings_have_tables_of_their_own_and_are_no_lines(tmp_path: Path) -> None:
    text = page(tmp_path, replace(REPORT, course=CHOSEN))
    assert re.search(r"<h3>Settings that the self-edits chose.*?90\.0.*?</table>", text, re.DOTALL)
    worth = text[text.index("What the settings were worth") :]
    assert re.search(r"25\.0 <small>20\.0 to 30\.0</small><small>12 self-edits, 48 steps</small>", worth)
    assert re.search(r"<td>\N{EN DASH}</td></tr>", worth)
    lines = shown(replace(REPORT, course=CHOSEN))
    assert "0.005 x 8|50.0|90.0|+40.0|+30.0 to +50.0|+27.3 to +52.7" in lines
    assert not any("Kinds of lines" in line for line in lines)
    assert what_changed(CHOSEN).startswith("No kind of line became clearly")


def test_names_at_the_ends_of_curves_keep_apart() -> None:
    assert apart([1.0, 1.5, 9.0], 2.0) == [1.0, 3.0, 9.0]
    assert apart([], 2.0) == []
