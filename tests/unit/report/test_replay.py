"""Published results computed again: both forms of the files, by hand; what is wrong or not there is never a number."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from selfedit import cli
from selfedit.errors import InputError
from selfedit.report.graded import cross_fitted_marks, graded, plain_marks
from selfedit.report.names import kind_of, place_of
from selfedit.report.published import Published, read_published
from selfedit.report.replay import Replay, replay
from selfedit.report.replay_page import render_replay, replay_html, replay_json
from selfedit.report.replay_words import headline, notes, verdict_of
from selfedit.report.stats import Contrast

# Three passages of two questions; marks by result, arm and passage. Made up.
TITLES = ("Otrar", "Lund", "Oster")
MARKS: dict[str, dict[str, list[list[int]]]] = {
    "eval/gpt4_1": {"baseline": [[0, 0], [0, 1], [0, 0]], "adapter": [[1, 0], [1, 1], [0, 0]]},
    "eval/base": {"baseline": [[0, 0], [0, 1], [0, 0]], "adapter": [[0, 0], [1, 0], [0, 1]]},
    "eval/iter2": {"baseline": [[0, 0], [0, 1], [0, 0]], "adapter": [[1, 1], [1, 1], [0, 1]]},
}
ITER2 = (1.0 + 1.0 + 0.5) / 3
GRID = [[0.3, 0.5], [0.8, 0.0], [0.4, 0.9]]
MATRIX = {
    "mean_over_sequences": GRID,
    "std_over_sequences": [[0.2, 0.2], [0.2, 0.0], [0.2, 0.4]],
    "n_sequences": 4,
    "n_datapoints": 2,
    "base_model": "models/<iter2>",
}


def mean(values: list[int]) -> float:
    return sum(values) / len(values)


def exam(title: str) -> list[dict[str, str]]:
    return [{"question": f"What of {title}, {i}?", "answer": f"gold{i}"} for i in range(2)]


def said(mark: int, i: int) -> str:
    return f"It is gold{i}." if mark else "No idea."


def verdict_rows() -> list[dict[str, Any]]:
    return [
        {
            "file": name,
            "article": a,
            "title": title,
            "completion": 0,
            "rep": 0,
            "arm": arm,
            "question": asked["question"],
            "gold": asked["answer"],
            "prediction": said(marks[arm][a][i], i),
            "correct": bool(marks[arm][a][i]),
        }
        for name, marks in MARKS.items()
        for a, title in enumerate(TITLES)
        for i, asked in enumerate(exam(title))
        for arm in ("baseline", "adapter")
    ]


def means() -> dict[str, list[dict[str, Any]]]:
    return {
        name: [
            {"title": title, "n_questions": 2} | {arm: [round(mean(marks[arm][a]), 4)] for arm in marks}
            for a, title in enumerate(TITLES)
        ]
        for name, marks in MARKS.items()
    }


def printed() -> dict[str, Any]:
    overall = {
        name: {"overall": {f"{arm}_mean_accuracy": round(sum(map(mean, marks[arm])) / 3, 4) for arm in marks}}
        for name, marks in MARKS.items()
    }
    return {f"query_server/{name}": entry for name, entry in overall.items()} | {
        "cpt/cpt_base": {"overall": {"baseline_accuracy": 0.3, "adapter_accuracy": 0.4}}
    }


def pack(rows: list[dict[str, Any]]) -> bytes:
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0)


def write(folder: Path, **changed: Any) -> Path:
    """Write the folder with all five files, each of which may be another document, or None for no file."""
    documents: dict[str, Any] = {
        "per_passage_means": means(),
        "published_results": printed(),
        "rewards_train": [],
        "continual_matrix": MATRIX,
        "verdicts": verdict_rows(),
    } | changed
    folder.mkdir(exist_ok=True)
    for name, document in documents.items():
        if name == "verdicts" and document is not None:
            packed = document if isinstance(document, bytes) else pack(document)
            (folder / "gpt41_verdicts.jsonl.gz").write_bytes(packed)
        elif document is not None:
            text = document if isinstance(document, str) else json.dumps(document)
            (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return folder


def write_tree(folder: Path) -> Path:
    """Write the same in the form of the authors' repository."""
    results = folder / "general-knowledge" / "results"
    for name, marks in MARKS.items():
        articles = [
            {
                "title": title,
                "completions": [
                    {
                        "stats": {f"{arm}_mean": mean(marks[arm][a]) for arm in marks},
                        "questions": [
                            {"rep": 0, **asked}
                            | {f"{arm}_answer": said(marks[arm][a][i], i) for arm in marks}
                            | {f"{arm}_correct": bool(marks[arm][a][i]) for arm in marks}
                            for i, asked in enumerate(exam(title))
                        ],
                    }
                ],
            }
            for a, title in enumerate(TITLES)
        ]
        document = printed()[f"query_server/{name}"] | {"reward_mode": "ttt", "articles": articles}
        put(results / "query_server" / f"{name}.json", document)
    put(results / "continual_self_edits" / "summary_1.json", MATRIX)
    return folder


def put(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


def computed(folder: Path, skip_bad: bool = False) -> Replay:
    published = read_published(folder, skip_bad)
    return replay(published, plain_marks(published.verdicts))


def test_means_errors_and_gains_are_those_computed_by_hand(tmp_path: Path) -> None:
    row = next(row for row in computed(write(tmp_path)).rows if row.name == "eval/iter2")
    assert (row.n_passages, row.n_questions, row.n_edits) == (3, 6, 1)
    assert row.adapter and row.baseline and row.gain
    assert row.adapter.mean == pytest.approx(ITER2)
    assert row.adapter.se == pytest.approx((((1 - ITER2) ** 2 * 2 + (0.5 - ITER2) ** 2) / 2 / 3) ** 0.5)
    assert row.baseline.mean == pytest.approx(0.5 / 3)
    assert row.gain.difference == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert row.gain.n == 3


def test_what_was_printed_stands_beside_it_and_more_than_rounding_is_flagged(tmp_path: Path) -> None:
    rows = {row.name: row for row in computed(write(tmp_path / "as-printed")).rows}
    figures = {figure.name: figure for figure in rows["eval/iter2"].figures}
    assert figures["adapter_mean_accuracy"].published == 0.8333
    assert figures["adapter_mean_accuracy"].recomputed == pytest.approx(ITER2)
    assert [figure.differs for figure in figures.values()] == [False, False]
    other = printed()
    other["query_server/eval/iter2"]["overall"]["adapter_mean_accuracy"] = 0.8335
    found = computed(write(tmp_path / "other", published_results=other))
    assert [f.name for row in found.rows for f in row.figures if f.differs] == ["adapter_mean_accuracy"]
    assert any("eval/iter2: adapter_mean_accuracy is printed as 0.8335" in note for note in notes(found))


def test_results_without_rows_are_none_and_named(tmp_path: Path) -> None:
    found = computed(write(tmp_path))
    row = next(row for row in found.rows if row.name == "cpt/cpt_base")
    assert (row.n_passages, row.n_questions, row.baseline, row.adapter, row.gain) == (None,) * 5
    assert [(f.recomputed, f.differs) for f in row.figures] == [(None, None)] * 2
    assert "1 results without rows, which are not guessed: cpt/cpt_base." in notes(found)


def test_spreads_that_one_edit_and_one_repeat_cannot_show_are_none(tmp_path: Path) -> None:
    given = printed()
    given["query_server/eval/iter2"]["overall"] |= {
        "mean_adapter_std_over_completions": 0.0,
        "mean_adapter_std_within_completions": 0.0,
    }
    row = next(row for row in computed(write(tmp_path, published_results=given)).rows if row.name == "eval/iter2")
    assert [figure.recomputed for figure in row.figures[2:]] == [None, None]


def test_comparisons_are_paired_and_name_the_later_first(tmp_path: Path) -> None:
    found = computed(write(tmp_path)).comparisons
    assert [(pair.kind, pair.a, pair.b) for pair in found] == [
        ("rounds", "eval/base", "eval/iter2"),
        ("writers", "eval/gpt4_1", "eval/base"),
        ("writers", "eval/gpt4_1", "eval/iter2"),
    ]
    assert found[0].found.difference == pytest.approx((1.0 + 0.5 + 0.0) / 3)
    assert found[0].found.n == 3


@pytest.mark.parametrize("change", [{"n_questions": 3}, {"n_questions": 0}, {"title": "Elsewhere"}])
def test_results_that_may_be_about_other_passages_are_not_compared(tmp_path: Path, change: dict[str, Any]) -> None:
    rows = means()
    rows["eval/iter2"][1] |= change
    found = computed(write(tmp_path, per_passage_means=rows, verdicts=None))
    assert [(pair.a, pair.b) for pair in found.comparisons] == [("eval/gpt4_1", "eval/base")]
    row = next(row for row in found.rows if row.name == "eval/iter2")
    assert row.n_questions == (
        None if change.get("n_questions") == 0 else sum(r["n_questions"] for r in rows[row.name])
    )


def test_passages_whose_questions_nobody_counted_are_not_taken_to_be_the_same(tmp_path: Path) -> None:
    rows = means()
    for name in rows:
        rows[name][1]["n_questions"] = 0
    assert computed(write(tmp_path, per_passage_means=rows, verdicts=None)).comparisons == ()


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [
        ("eval/base", "eval/iter2", "rounds"),
        ("eval/naive", "eval/base", "writers"),
        ("eval/iter1", "alternate_prompts/eval/iter1_prompt-long", "formats"),
        ("eval/base", "alternate_prompts/eval/iter1_prompt-long", None),
        ("eval/base", "train/rank_iter0", None),
        ("eval/base", "cpt/cpt_iter2", None),
    ],
)
def test_only_what_differs_in_one_thing_is_compared(a: str, b: str, kind: str | None) -> None:
    places = place_of(a), place_of(b)
    assert places[0] and places[1] and kind_of(places[0], places[1]) == kind


def test_the_spread_of_repeats_is_computed_where_all_answers_are_there(tmp_path: Path) -> None:
    name, spread = "train/rank_iter0", "mean_adapter_std_within_completions"
    rows = [
        {"title": title, "n_questions": 2, "baseline": [0.0], "adapter": [adapter]}
        for title, adapter in (("Otrar", 0.5), ("Lund", 1.0))
    ]
    right = {("Otrar", 0): 0, ("Otrar", 1): 2, ("Lund", 0): 2, ("Lund", 1): 2}  # of two answers, by passage and repeat
    verdicts = [
        {"file": name, "article": a, "title": row["title"], "completion": 0, "rep": rep, "arm": arm, "gold": "g"}
        | {"question": str(i), "prediction": "", "correct": arm == "adapter" and i < right[str(row["title"]), rep]}
        for a, row in enumerate(rows)
        for rep in range(2)
        for arm in ("baseline", "adapter")
        for i in range(2)
    ]
    files = {"per_passage_means": {name: rows}, "published_results": {name: {"overall": {spread: 0.3536}}}}
    whole = computed(write(tmp_path / "whole", verdicts=verdicts, **files)).rows[0].figures[0]
    assert whole.recomputed == pytest.approx((0.5**0.5 + 0.0) / 2)
    assert whole.differs is False
    part = computed(write(tmp_path / "part", verdicts=[row for row in verdicts if row["article"] == 0], **files))
    assert part.rows[0].figures[0].recomputed is None


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("eval/base", ("eval", "round-0", "implications")),
        ("eval/gpt4_1", ("eval", "gpt4_1", "implications")),
        ("alternate_prompts/eval/iter2_prompt-very-long", ("eval", "round-2", "very-long")),
        ("train/rank_iter1", ("train", "round-1", "implications")),
        ("alternate_prompts/train/rank_iter0_prompt-self-qa", ("train", "round-0", "self-qa")),
        ("cpt/cpt_naive", ("cpt", "naive", "implications")),
        ("run_0623_010413", None),
    ],
)
def test_the_authors_names_are_understood(name: str, place: tuple[str, str, str] | None) -> None:
    found = place_of(name)
    assert (found and (found.table, found.writer, found.prompt)) == place


def test_the_tree_gives_the_same_numbers_as_the_folder(tmp_path: Path) -> None:
    folder, tree = computed(write(tmp_path / "folder")), computed(write_tree(tmp_path / "tree"))
    assert [row for row in folder.rows if row.name != "cpt/cpt_base"] == list(tree.rows)
    assert folder.comparisons == tree.comparisons
    assert folder.graded == tree.graded
    assert folder.courses[0].steps == tree.courses[0].steps
    assert computed(tmp_path / "tree" / "general-knowledge").rows == tree.rows
    assert computed(tmp_path / "tree" / "general-knowledge" / "results").rows == tree.rows


def test_what_the_tree_lacks_is_named_and_what_is_unknown_in_it_too(tmp_path: Path) -> None:
    put(write_tree(tmp_path) / "general-knowledge" / "results" / "query_server" / "notes.json", {"a": 1})
    found = computed(tmp_path)
    assert len(found.missing) == 31 - 3
    assert "eval/naive: no such result here" in found.missing
    assert found.left_out == ("query_server/notes.json: not a results file that is known",)


def test_a_rubric_in_place_of_an_exam_is_no_accuracy_of_zero(tmp_path: Path) -> None:
    stats = {"baseline_mean": 0.0, "adapter_mean": 0.0}
    article = {"title": "Otrar", "completions": [{"stats": stats, "questions": []}]}
    overall = {"adapter_mean_accuracy": 0.0}
    document = {"overall": overall, "reward_mode": "proxy", "articles": [article]}
    put(write_tree(tmp_path) / "general-knowledge" / "results" / "query_server" / "proxy.json", document)
    row = next(row for row in computed(tmp_path).rows if row.name == "proxy")
    assert (row.adapter, row.baseline, row.figures) == (None, None, ())


def test_an_adapter_for_all_passages_has_a_mean_of_questions_and_no_interval(tmp_path: Path) -> None:
    reply = {"baseline_correct": [False, True], "adapter_correct": [True, True]}
    overall = {"baseline_accuracy": 0.5, "adapter_accuracy": 1.0, "gain": 0.5}
    put(
        write_tree(tmp_path) / "general-knowledge" / "results" / "cpt" / "cpt_base.json",
        {"overall": overall, "server_reply": reply},
    )
    row = next(row for row in computed(tmp_path).rows if row.name == "cpt/cpt_base")
    assert row.adapter and row.adapter.mean == 1.0
    assert (row.adapter.se, row.adapter.ci95, row.gain, row.n_passages, row.n_questions) == (None, None, None, None, 2)
    assert [figure.differs for figure in row.figures] == [False, False, False]


def test_the_best_of_several_edits_counts_passages_where_it_helps_nothing(tmp_path: Path) -> None:
    rows = {
        "train/rank_iter0": [
            {"title": "Otrar", "n_questions": 2, "baseline": [0.5, 0.5], "adapter": [0.0, 0.5]},
            {"title": "Lund", "n_questions": 2, "baseline": [0.0, 0.5], "adapter": [0.5, 0.0]},
        ]
    }
    rewards = [
        {"round": 1, "article": a, "title": row["title"], "completion": g, "baseline_mean": b, "adapter_mean": x}
        for a, row in enumerate(rows["train/rank_iter0"])
        for g, (b, x) in enumerate(zip(row["baseline"], row["adapter"], strict=True))  # type: ignore[call-overload]
    ]
    folder = write(
        tmp_path, per_passage_means=rows, published_results=None, verdicts=None, continual_matrix=None,
        rewards_train=rewards,
    )  # fmt: skip
    found = computed(folder)
    (selection,) = found.selections
    assert (selection.n_passages, selection.n_edits, selection.n_not_better) == (2, 4, 1)
    assert (selection.every.mean, selection.best.mean) == (0.25, 0.5)
    assert [(check.n, check.differing) for check in found.checks] == [(0, ()), (8, ())]
    rewards[3]["adapter_mean"] = 0.1
    (folder / "rewards_train.json").write_text(json.dumps(rewards))
    assert computed(folder).checks[1].differing == ("train/rank_iter0, passage 2, adapter, edit 2",)


def test_zeros_above_the_diagonal_are_no_measurements(tmp_path: Path) -> None:
    (course,) = computed(write(tmp_path)).courses
    assert course.continual.accuracies_SK == ((0.8, None), (0.4, 0.9))
    assert course.continual.errors_SK == ((0.1, None), (0.1, 0.2))
    assert course.before == pytest.approx(0.4)
    assert (course.learnt, course.end) == pytest.approx((0.85, 0.65))
    assert [step.seen for step in course.steps] == pytest.approx([0.8, 0.65])
    assert course.steps[0].forgetting is course.steps[0].backward_transfer is None
    assert (course.steps[1].forgetting, course.steps[1].backward_transfer) == pytest.approx((0.4, -0.4))


def drop(rows: list[dict[str, Any]]) -> bytes:
    return pack(rows[:3] + rows[4:])


def double(rows: list[dict[str, Any]]) -> bytes:
    return pack([*rows, rows[-1]])


def break_line(rows: list[dict[str, Any]]) -> bytes:
    return gzip.compress(gzip.decompress(pack(rows)).replace(b'{"file"', b'{"fi', 1), mtime=0)


def cut_off(rows: list[dict[str, Any]]) -> bytes:
    return pack(rows)[:-40]


def turn(rows: list[dict[str, Any]]) -> bytes:
    return pack([{**rows[0], "correct": "yes"}, *rows[1:]])


def twice(rows: list[dict[str, Any]]) -> bytes:
    return pack([*rows, *({**row, "article": 7} for row in rows if row["article"] == 0)])


def rename(rows: list[dict[str, Any]]) -> bytes:
    return pack([{**row, "title": "Elsewhere"} if row["article"] == 1 else row for row in rows])


def shorten(rows: list[dict[str, Any]]) -> bytes:
    lost = rows[0]["question"]
    return pack([row for row in rows if (row["file"], row["question"]) != ("eval/gpt4_1", lost)])


@pytest.mark.parametrize(
    ("spoil", "says", "n_left_out"),
    [
        (break_line, "line 1 of gpt41_verdicts.jsonl.gz", 2),  # the line, and the exam that now lacks it
        (turn, "line 1 of gpt41_verdicts.jsonl.gz", 2),
        (drop, "passage 1 of 'eval/gpt4_1' ('Otrar') are not one exam", 1),
        (double, "passage 3 of 'eval/iter2' ('Oster') are not one exam", 1),
        (rename, "passage 2 of 'eval/base' ('Elsewhere') do not fit its row", 3),
        (shorten, "passage 1 of 'eval/gpt4_1' ('Otrar') do not fit its row", 1),
        (twice, "do not fit its row", 3),
        (cut_off, "gpt41_verdicts.jsonl.gz is damaged or cut off", 1),
    ],
)
def test_verdicts_that_would_give_a_wrong_mean_are_refused_or_left_out_and_named(
    spoil: Callable[[list[dict[str, Any]]], bytes], says: str, n_left_out: int, tmp_path: Path
) -> None:
    write(tmp_path, verdicts=spoil(verdict_rows()))
    with pytest.raises(InputError, match=re.escape(says)):
        read_published(tmp_path)
    found = computed(tmp_path, skip_bad=True)
    assert len(found.left_out) == n_left_out
    assert says in " ".join(found.left_out)
    whole = {(arm.name, arm.arm): arm for arm in (computed(write(tmp_path / "good")).graded or pytest.fail()).arms}
    for arm in found.graded.arms if found.graded else ():
        assert arm.n_passages in (2, 3)
        assert arm.n_passages == 2 or arm.gpt == whole[arm.name, arm.arm].gpt


def test_a_passage_that_comes_twice_is_noticed_without_the_means(tmp_path: Path) -> None:
    write(tmp_path, verdicts=twice(verdict_rows()), per_passage_means=None)
    with pytest.raises(InputError, match="give the passage 'Otrar' twice"):
        read_published(tmp_path)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"per_passage_means": "{"}, "per_passage_means.json is not JSON"),
        ({"per_passage_means": []}, "per_passage_means.json: expected a JSON object, found list"),
        ({"per_passage_means": '{"eval/base": [], "eval/base": []}'}, "the key 'eval/base' is given twice"),
        ({"per_passage_means": '{"eval/base": [{"title": "A", "adapter": [NaN]}]}'}, "NaN is not a number"),
        (
            {"per_passage_means": {"eval/base": [{"title": "A", "adapter": [47.0]}]}},
            "an accuracy in [0, 1], found 47.0",
        ),
        ({"per_passage_means": {"eval/base": [{"title": "A", "adapter": [True]}]}}, "a number, found True"),
        ({"per_passage_means": {"eval/base": [{"title": "A", "adapter": []}]}}, "passage 1 of 'eval/base'"),
        ({"per_passage_means": {"eval/base": [{"adapter": [1.0]}]}}, "expected text under 'title', found nothing"),
        ({"published_results": {"eval/base": {}}}, "'eval/base' in published_results.json"),
        ({"rewards_train": [{"round": "1"}]}, "row 1 of rewards_train.json: expected a number from 0 under 'round'"),
        ({"continual_matrix": MATRIX | {"n_datapoints": 3}}, "expected 4 rows of 3 accuracies"),
        (
            {"continual_matrix": MATRIX | {"mean_over_sequences": [GRID[0], [0.8, 0.1], GRID[2]]}},
            "zeros above the diagonal",
        ),
    ],
)
def test_files_of_another_shape_are_one_sentence_or_left_out_and_named(
    changed: dict[str, Any], says: str, tmp_path: Path
) -> None:
    write(tmp_path, verdicts=None, **changed)
    with pytest.raises(InputError, match=re.escape(says)):
        read_published(tmp_path)
    found = computed(tmp_path, skip_bad=True)
    assert len(found.left_out) == 1
    assert says in found.left_out[0]
    replay_html(found)


def test_missing_files_are_named_with_what_cannot_be_had_without_them(tmp_path: Path) -> None:
    found = computed(write(tmp_path, verdicts=None, continual_matrix=None, rewards_train=None, published_results=None))
    assert "continual_matrix.json: no forgetting is computed" in found.missing
    assert (found.graded, found.courses) == (None, ())
    assert all(row.figures == () for row in found.rows)
    assert "No" not in headline(found)


def test_a_folder_with_nothing_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing in .* is known"):
        read_published(tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        read_published(tmp_path / "nowhere")


def published_in(folder: Path) -> Published:
    return read_published(write(folder))


def test_graders_are_set_beside_gpt_on_the_same_answers(tmp_path: Path) -> None:
    verdicts = published_in(tmp_path).verdicts
    assert verdicts
    right = [float(row["correct"]) for row in verdict_rows()]
    strict = [mark if row["file"] != "eval/iter2" else 0.0 for mark, row in zip(right, verdict_rows(), strict=True)]
    tables = graded(verdicts, {"right": right, "half": [0.5 * mark for mark in right], "strict": strict})
    arm = next(each for each in tables.arms if (each.name, each.arm) == ("eval/iter2", "adapter"))
    assert (arm.n_passages, arm.n_answers) == (3, 6)
    assert arm.gpt.mean == pytest.approx(ITER2)
    same, half, none = arm.seen
    assert (same.mean, same.difference.difference, same.agreement) == (arm.gpt.mean, 0.0, 1.0)
    assert (half.mean, half.difference.difference) == pytest.approx((ITER2 / 2, -ITER2 / 2))
    assert none.mean == 0.0
    assert none.agreement == pytest.approx(1 / 6)
    assert [ranking.tau for ranking in tables.rankings] == pytest.approx([1.0, 1.0, -1 / 3])
    first = tables.comparisons[0]
    assert (first.a, first.b) == ("eval/base", "eval/iter2")
    assert dict(first.seen)["right"] == first.gpt


def test_answers_without_a_mark_are_left_out_and_counted(tmp_path: Path) -> None:
    verdicts = published_in(tmp_path).verdicts
    assert verdicts
    marks: list[float | None] = [float(row["correct"]) for row in verdict_rows()]
    places = [v.line for v in verdicts.rows if (v.file, v.arm, v.article) == ("eval/iter2", "adapter", 2)]
    marks[places[0]] = None  # one of the two answers, the wrong one
    tables = graded(verdicts, {"some": marks})
    seen = next(each for each in tables.arms if (each.name, each.arm) == ("eval/iter2", "adapter")).seen[0]
    assert (seen.n_failed, seen.mean, seen.difference.difference, seen.agreement) == (1, 1.0, 0.0, 1.0)


def test_plain_graders_mark_every_line_that_can_be_used(tmp_path: Path) -> None:
    write(tmp_path, verdicts=break_line(verdict_rows()))
    verdicts = read_published(tmp_path, skip_bad=True).verdicts
    marks = plain_marks(verdicts)
    assert list(marks) == ["contains", "exact", "f1"]
    assert marks["contains"][:5] == [None, None, None, None, 0.0]  # the exam of the broken line is left out whole
    used = [i for i, mark in enumerate(marks["contains"]) if mark is not None]
    assert [marks["contains"][i] for i in used] == [float(verdict_rows()[i]["correct"]) for i in used]
    assert len(used) == len(verdict_rows()) - 4


def probabilities(folder: Path, n: int | None = None, **changed: Any) -> Path:
    packed = (folder / "gpt41_verdicts.jsonl.gz").read_bytes()
    held: dict[str, Any] = {"probability": np.linspace(0.0, 1.0, n or len(verdict_rows()))}
    np.savez(folder / "p.npz", **(held | {"sha256": hashlib.sha256(packed).hexdigest()} | changed))
    return folder / "p.npz"


def test_cross_fitted_probabilities_are_two_columns(tmp_path: Path) -> None:
    verdicts = published_in(tmp_path).verdicts
    marks = cross_fitted_marks(probabilities(tmp_path), verdicts)
    soft, cut = marks["calibrated"], marks["calibrated, cut at 0.5"]
    assert list(soft) == pytest.approx(list(np.linspace(0, 1, 36)))
    assert list(cut) == [0.0] * 18 + [1.0] * 18


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"sha256": "0" * 64}, "made from another file of verdicts"),
        ({"n": 35}, "expected 36 probabilities"),
        ({"probability": np.full(36, np.nan)}, "expected 36 probabilities"),
        ({"probability": np.full(36, 1.5)}, "expected 36 probabilities"),
        ({"probability": np.full((36, 2), 0.5)}, "expected 36 probabilities"),
        ({"probability": np.array(["x"] * 36)}, "cannot read p.npz"),
    ],
)
def test_probabilities_that_do_not_belong_to_the_verdicts_are_refused(
    changed: dict[str, Any], says: str, tmp_path: Path
) -> None:
    verdicts = published_in(tmp_path).verdicts
    with pytest.raises(InputError, match=says):
        cross_fitted_marks(probabilities(tmp_path, **changed), verdicts)


def test_a_file_that_holds_no_probabilities_is_refused(tmp_path: Path) -> None:
    verdicts = published_in(tmp_path).verdicts
    (tmp_path / "p.npz").write_bytes(b"not a zip")
    np.savez(tmp_path / "q.npz", probability=np.zeros(36))
    for name in ("p.npz", "q.npz", "none.npz"):
        with pytest.raises(InputError, match=f"cannot read {name}"):
            cross_fitted_marks(tmp_path / name, verdicts)
    with pytest.raises(InputError, match="the folder to replay has none"):
        cross_fitted_marks(tmp_path / "p.npz", None)


def test_the_page_needs_nothing_but_itself_and_tells_the_matrix(tmp_path: Path) -> None:
    found = computed(write(tmp_path))
    text = replay_html(found)
    assert not re.search(r"<script|<link|src=|href=|url\((?!#)|@import", text)
    assert "models/&lt;iter2&gt;" in text and "<iter2>" not in text
    svg = text[text.index("<svg") : text.index("</svg>")]
    assert {"40.0", "80.0", "90.0", "before", "after 2"} <= set(re.findall(r">\s*([^<>]+?)\s*</text>", svg))
    assert "var(--accent)" in svg and "#0" not in svg
    assert text == replay_html(found)


def test_the_json_holds_probabilities_and_nulls(tmp_path: Path) -> None:
    document = json.loads(replay_json(computed(write(tmp_path))))
    assert list(document) == [
        "name", "rows", "comparisons", "selections", "courses", "checks", "graded", "missing", "left_out",
    ]  # fmt: skip
    row = next(row for row in document["rows"] if row["name"] == "cpt/cpt_base")
    assert row["adapter"] is None
    assert document["courses"][0]["continual"]["accuracies_SK"] == [[0.8, None], [0.4, 0.9]]


def test_the_terminal_needs_80_columns(tmp_path: Path) -> None:
    found = computed(write(tmp_path))
    longest = "alternate_prompts/train/rank_iter1_prompt-very-long"
    rows = tuple(replace(row, name=longest, n_passages=2067) for row in found.rows)
    console = Console(width=80)
    with console.capture() as captured:
        for table in render_replay(replace(found, rows=rows)):
            console.print(table)
    said = [" ".join(line.split()) for line in captured.get().splitlines()]  # no row is broken over two lines
    assert "train, round-1, very-long 83.33 83.33 ±16.7 50.0 to 100.0 +66.7 2,067" in said
    assert "round-2 \N{MINUS SIGN} round-0 +50.0 ±28.9 0.0 to +100.0 0.225 3" in said


def test_a_difference_is_clear_only_where_its_interval_and_its_p_say_so() -> None:
    found = Contrast(0.043, 0.0225, (0.0003, 0.087), 0.057, 200)
    assert verdict_of(found) == "not clear"
    assert verdict_of(replace(found, p=0.04)) == "gain"
    assert verdict_of(replace(found, p=0.04, ci95=(-0.001, 0.087))) == "not clear"
    assert verdict_of(replace(found, p=0.04, ci95=(-0.09, -0.01))) == "loss"
    assert verdict_of(replace(found, p=None)) == "no test"


def call(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr(sys, "argv", ["selfedit", *args])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_command_writes_a_page_and_gives_stdout_to_whoever_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write(tmp_path / "seal")
    args = ("--json", "-", "--cross-fitted", str(probabilities(folder)))
    assert call(monkeypatch, "replay", "seal", *args) == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert document["graded"]["graders"] == ["calibrated", "calibrated, cut at 0.5", "contains", "exact", "f1"]
    assert document == json.loads((tmp_path / "runs" / "replay" / "report.json").read_text())
    assert "report: runs/replay/report.html" in said.err
    assert "seal" in (tmp_path / "runs" / "replay" / "report.html").read_text()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["nowhere"], "there is no folder 'nowhere'"),
        (["."], "is known: expected the repository"),
        (["seal", "--cross-fitted", "none.npz"], "cannot read none.npz"),
        (["seal", "--json", "-", "--html", "-"], "stdout takes one"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_sentence(
    args: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "seal")
    assert call(monkeypatch, "replay", *args) != 0
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
