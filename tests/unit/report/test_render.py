"""The report's files and tables: their schema, their words, and that a page needs nothing but itself."""

import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from selfedit.report.record import EditPair, KindArm, Report
from selfedit.report.render import _draw_arms, headline, render_one_table, render_table, write_report
from selfedit.report.stats import Arm, Pair

ARMS = (
    Arm("base", 0.327, (0.291, 0.362), 200, 974, 0),
    Arm("passage", 0.335, (0.298, 0.373), 200, 974, 0),
    Arm("round-0", 0.397, (0.359, 0.435), 200, 974, 0),
    Arm("round-1", 0.427, (0.386, 0.469), 200, 970, 4),
    Arm("round-2", 0.470, (0.434, 0.507), 200, 974, 0),
    Arm("shuffled", None, None, 0, 0, 12),
)
GAIN = Pair("round-0", "round-2", 0.073, (0.029, 0.119), 200)
REPORT = Report(
    model="pup",
    seed=7,
    seconds=252.4,
    arms=ARMS,
    paired=(Pair("base", "round-0", 0.07, (0.025, 0.118), 200), GAIN, Pair("base", "shuffled", None, None, 0)),
    examples=(EditPair("The first passage", "Otrar", "Otrar fell in 1219.", "It fell.", "When did Otrar fall? 1219."),),
    notes=("One run.",),
)


def page(folder: Path, report: Report = REPORT) -> str:
    return write_report(folder, report).read_text(encoding="utf-8")


def with_pair(pair: Pair) -> Report:
    return replace(REPORT, paired=(pair,))


def test_the_json_has_exactly_the_promised_keys(tmp_path: Path) -> None:
    write_report(tmp_path, REPORT)
    document = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert list(document) == ["model", "seed", "seconds", "arms", "paired", "notes"]
    assert document["notes"] == ["One run."]
    assert document["arms"][0] == {
        "name": "base",
        "accuracy": 0.327,
        "ci95": [0.291, 0.362],
        "n_passages": 200,
        "n_questions": 974,
        "n_failed": 0,
    }
    assert document["paired"][1] == {
        "a": "round-0",
        "b": "round-2",
        "difference": 0.073,
        "ci95": [0.029, 0.119],
        "n": 200,
    }


def test_what_was_not_measured_is_null_in_the_json(tmp_path: Path) -> None:
    write_report(tmp_path, REPORT)
    document = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert document["arms"][-1]["accuracy"] is None
    assert document["arms"][-1]["ci95"] is None
    assert document["paired"][-1] == {"a": "base", "b": "shuffled", "difference": None, "ci95": None, "n": 0}


def test_kinds_are_a_key_of_their_own_and_a_table_of_their_own(tmp_path: Path) -> None:
    text = page(tmp_path, replace(REPORT, kinds=(KindArm("two-step", ARMS[0]), KindArm("", ARMS[2]))))
    kinds = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["kinds"]
    assert [(entry["kind"], entry["name"], entry["accuracy"]) for entry in kinds] == [
        ("two-step", "base", 0.327),
        ("", "round-0", 0.397),
    ]
    assert "By kind of question" in text
    assert "two-step" in text


def test_the_page_holds_its_picture_with_every_arm_and_its_words(tmp_path: Path) -> None:
    text = page(tmp_path)
    (picture,) = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert 'role="img"' in picture
    assert "round-2 47.0 (43.4 to 50.7)" in picture
    for arm in ARMS:
        assert f">{arm.name}</text>" in picture


def test_the_page_loads_nothing_from_anywhere(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert "://" not in text
    assert "<script" not in text
    assert re.findall(r"""(?:src|href)=["'](?!#)""", text) == []
    assert re.findall(r"url\((?!#)", text) == []


def test_the_picture_takes_every_colour_from_the_page_so_that_the_dark_mode_reaches_it(tmp_path: Path) -> None:
    (picture,) = re.findall(r"<svg.*?</svg>", page(tmp_path), flags=re.DOTALL)
    assert "var(--accent)" in picture
    assert "var(--quiet)" in picture
    assert re.findall(r":\s*#[0-9a-f]{6}", picture) == []


def test_every_element_that_is_opened_is_closed(tmp_path: Path) -> None:
    still_open: list[str] = []

    class Nesting(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag != "meta":
                still_open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert still_open.pop() == tag

    Nesting().feed(page(tmp_path))
    assert still_open == []


def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    assert page(tmp_path / "one") == page(tmp_path / "two")


def test_what_a_model_wrote_cannot_become_markup(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    arms = (replace(ARMS[0], name=f"$x_1$ {evil}"),)
    report = Report(
        evil, 0, 1.0, arms, (), (EditPair(evil, evil, evil, evil, evil),), (KindArm(evil, arms[0]),), (evil,)
    )
    assert "<img" not in page(tmp_path, report)


def test_the_self_edits_before_and_after_are_on_the_page(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert (
        text.index("before RL") < text.index("It fell.") < text.index("after RL") < text.index("When did Otrar fall?")
    )


def test_an_unfinished_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(tmp_path, REPORT)
    old = (tmp_path / "report.json").read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(tmp_path, replace(REPORT, seed=8))
    assert (tmp_path / "report.json").read_bytes() == old


def test_nothing_but_the_two_files_stays_in_the_folder(tmp_path: Path) -> None:
    write_report(tmp_path / "new" / "folder", REPORT)
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["report.html", "report.json"]


def test_the_headline_is_the_last_round_against_round_0() -> None:
    assert headline(REPORT) == "Two rounds of RL raised closed-book accuracy by 7.3 points (95 % interval 2.9 to 11.9)."


def test_a_headline_never_claims_what_its_interval_does_not_hold() -> None:
    tie = headline(with_pair(replace(GAIN, difference=0.007, ci95=(-0.034, 0.049))))
    assert tie == (
        "Two rounds of RL made no clear difference to closed-book accuracy: "
        "+0.7 points (95 % interval \N{MINUS SIGN}3.4 to +4.9)."
    )


def test_a_headline_says_when_accuracy_fell() -> None:
    loss = headline(with_pair(replace(GAIN, difference=-0.05, ci95=(-0.08, -0.02))))
    assert loss == "Two rounds of RL lowered closed-book accuracy by 5.0 points (95 % interval 2.0 to 8.0)."


def test_a_headline_without_an_interval_says_why() -> None:
    assert "on one passage: too few for an interval" in headline(with_pair(replace(GAIN, ci95=None, n=1)))


def test_a_headline_without_rounds_names_both_arms() -> None:
    report = replace(with_pair(replace(GAIN, a="base", b="passage")), arms=ARMS[:2])
    assert headline(report).startswith("Against base, passage raised closed-book accuracy by 7.3 points")


def test_an_empty_report_is_still_a_page(tmp_path: Path) -> None:
    report = Report("pup", 0, 0.0, ())
    assert headline(report) == "No two arms were measured on the same passages."
    assert headline(report) in page(tmp_path, report)
    assert len(render_table(report)) == 1


def test_the_terminal_shows_percent_points_intervals_and_counts() -> None:
    console = Console(width=120)
    with console.capture() as shown:
        console.print(*render_table(REPORT))
    lines = [re.sub(r" *│ *", "|", line).strip("|") for line in shown.get().splitlines()]
    assert "round-1|42.7|38.6 to 46.9|200|970|4" in lines
    assert "shuffled|\N{EN DASH}|\N{EN DASH}|0|0|12" in lines
    assert "round-2 \N{MINUS SIGN} round-0|+7.3|+2.9 to +11.9|200|gain" in lines


def test_brackets_in_a_name_are_shown_in_the_terminal_as_they_are() -> None:
    console = Console(width=120)
    with console.capture() as shown:
        console.print(*render_table(replace(REPORT, arms=(replace(ARMS[0], name="[red]base"),), paired=())))
    assert "[red]base" in shown.get()


def test_one_table_of_80_columns_holds_arms_and_differences_each_with_its_n_and_interval() -> None:
    console = Console(width=80)
    wide = Pair("round-0", "shuffled-reward", -0.3, (-0.4, -0.2), 2067)
    with console.capture() as shown:
        console.print(render_one_table(replace(REPORT, paired=(*REPORT.paired, wide))))
    lines = [" ".join(line.split()) for line in shown.get().splitlines()]
    assert "round-1 42.7 38.6 to 46.9 200 970 4" in lines
    assert "shuffled \N{EN DASH} \N{EN DASH} 0 0 12" in lines
    assert "round-2 \N{MINUS SIGN} round-0 +7.3 +2.9 to +11.9 200" in lines
    minus = "\N{MINUS SIGN}"
    assert f"shuffled-reward {minus} round-0 {minus}30.0 {minus}40.0 to {minus}20.0 2,067" in lines
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown.get()


def test_arms_with_a_passage_in_view_are_not_called_closed_book(tmp_path: Path) -> None:
    view = Arm("in-context", 0.9, (0.85, 0.95), 200, 974, 0)
    report = replace(with_pair(Pair("base", "in-context", 0.5, (0.4, 0.6), 200)), arms=(ARMS[0], view))
    assert headline(report) == "Against base, in-context raised accuracy by 50.0 points (95 % interval 40.0 to 60.0)."
    text = page(tmp_path, report)
    assert "in-context, not trained, the right passage in view" in text.replace("&#8209;", "-")
    assert "losed-book" not in text
    assert str(render_one_table(report).title).startswith("Accuracy")
    assert str(render_one_table(REPORT).title).startswith("Closed-book accuracy")


def test_without_reinforcement_the_headline_is_what_self_edits_bring() -> None:
    paired = (Pair("base", "passage", 0.1, (0.05, 0.15), 9), Pair("passage", "round-0", 0.2, (0.1, 0.3), 9))
    assert headline(replace(REPORT, arms=ARMS[:3], paired=paired)).startswith("Against passage, round-0 raised")


def test_what_was_left_out_is_counted_on_the_page_and_complete_in_the_json(tmp_path: Path) -> None:
    sentences = tuple(f"row {i} is empty" for i in range(7))
    text = page(tmp_path, replace(REPORT, left_out=sentences))
    assert "7 left out: row 0 is empty" in text
    assert "row 6" not in text
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["left_out"] == list(sentences)


def test_the_picture_joins_the_rounds_of_a_variant_and_of_no_other() -> None:
    names = ["base a", "round-0 a", "round-1 a", "base b", "round-0 b", "round-1 b"]
    axes = Figure().subplots()
    _draw_arms(axes, [Arm(name, 0.1 * i, None, 5, 9, 0) for i, name in enumerate(names)])
    assert [np.asarray(line.get_xdata()).tolist() for line in axes.lines] == [[1, 2], [4, 5]]
