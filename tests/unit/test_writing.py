"""Bulk writing: what is in the lines, what a kill costs, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfedit import writing
from selfedit.engine.base import Backend
from selfedit.errors import ConfigError, InputError, RunError
from selfedit.experiment import writers
from selfedit.recipe import Recipe
from selfedit.sources.documents import Documents
from selfedit.types import SampleSettings, Task
from selfedit.writing import Job, make_job, write_corpus
from tests.unit.conftest import FakeEngine, Fault, make_tasks

RECIPE = Recipe(model="fake", format="implications", sample=SampleSettings(edits=2))
NOTES = make_tasks(9, "T")


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    opened = FakeEngine(NOTES)

    def open_fake(name: str, model: str, device: str) -> Backend:
        return opened

    monkeypatch.setattr(writers, "open_backend", open_fake)
    monkeypatch.setattr(writing, "AT_ONCE", 2)
    monkeypatch.setattr("os.fsync", lambda file: None)
    return opened


def job(to: Path, **changes: Any) -> Job:
    return Job(Documents(tuple(NOTES), ()), replace(RECIPE, **changes), to)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_line_says_where_it_comes_from(tmp_path: Path, engine: FakeEngine) -> None:
    totals = write_corpus(job(tmp_path / "out.jsonl"), "cpu")
    found = rows(tmp_path / "out.jsonl")
    assert totals.lines == len(found)
    assert totals.sources == len(NOTES)
    assert {row["source"] for row in found} == {task.id for task in NOTES}
    first = found[0]
    assert set(first) == {"text", "source", "format", "edit", "seed", "writer"}
    assert (first["format"], first["edit"], first["seed"], first["writer"]) == ("implications", 0, 0, engine.base)
    assert first["text"].startswith(f"{NOTES[0].title}\n")


def test_no_text_is_written_twice_and_the_rest_is_counted(tmp_path: Path) -> None:
    totals = write_corpus(job(tmp_path / "out.jsonl"), "cpu")
    texts = [" ".join(row["text"].split()).casefold() for row in rows(tmp_path / "out.jsonl")]
    assert len(texts) == len(set(texts))
    assert totals.duplicates >= len(NOTES), "the bare passage of each second edit, if nothing else"


def test_as_messages_the_title_asks_and_the_text_answers(tmp_path: Path) -> None:
    write_corpus(job(tmp_path / "texts.jsonl"), "cpu")
    write_corpus(replace(job(tmp_path / "turns.jsonl"), layout="messages"), "cpu")
    turns = [[turn["content"] for turn in row["messages"]] for row in rows(tmp_path / "turns.jsonl")]
    assert ["\n".join(pair) for pair in turns] == [row["text"] for row in rows(tmp_path / "texts.jsonl")]
    assert [turn["role"] for turn in rows(tmp_path / "turns.jsonl")[0]["messages"]] == ["user", "assistant"]


@pytest.mark.parametrize("layout", ["text", "messages"])
def test_killed_anywhere_and_started_again_it_ends_as_if_it_had_not_been(tmp_path: Path, layout: Any) -> None:
    whole = replace(job(tmp_path / "whole.jsonl"), layout=layout)
    totals = write_corpus(whole, "cpu")
    killed = replace(whole, to=tmp_path / "killed.jsonl")

    def kill(done: int, total: int, so_far: object) -> None:
        raise Killed

    for leftover in ("", '{"text": "half a li', '{"text": "a whole line, not told of"}\n'):
        with pytest.raises(Killed):
            write_corpus(killed, "cpu", kill)
        with killed.to.open("a") as file:
            file.write(leftover)
        with (tmp_path / "killed.jsonl.progress").open("a") as file:
            file.write(leftover[:5].replace("\n", ""))
    again = write_corpus(killed, "cpu")
    assert killed.to.read_text() == whole.to.read_text()
    assert replace(again, seconds=0) == replace(totals, seconds=0)


def test_a_corpus_that_has_grown_is_gone_on_with(tmp_path: Path, engine: FakeEngine) -> None:
    to = tmp_path / "out.jsonl"
    write_corpus(replace(job(to), documents=Documents(tuple(NOTES[:4]), ())), "cpu")
    asked = len(engine.sampled)
    write_corpus(job(to), "cpu")
    assert len(engine.sampled) - asked == len(NOTES) - 4
    assert {row["source"] for row in rows(to)} == {task.id for task in NOTES}


def test_a_source_whose_text_has_changed_is_written_for_again(tmp_path: Path, engine: FakeEngine) -> None:
    to = tmp_path / "out.jsonl"
    write_corpus(job(to), "cpu")
    changed = (replace(NOTES[0], context="Another text. With two sentences."), *NOTES[1:])
    asked = len(engine.sampled)
    write_corpus(replace(job(to), documents=Documents(changed, ())), "cpu")
    assert len(engine.sampled) - asked == 1


def test_shards_share_out_the_sources(tmp_path: Path) -> None:
    found: list[str] = []
    for i in (1, 2):
        to = tmp_path / f"{i}.jsonl"
        write_corpus(replace(job(to), shard=(i, 2)), "cpu")
        found += {row["source"] for row in rows(to)}
    assert sorted(found) == sorted(task.id for task in NOTES)


def test_what_the_model_spoils_is_counted_and_what_fails_is_tried_again(tmp_path: Path, engine: FakeEngine) -> None:
    engine.spoilt = [(NOTES[0].title, 0)]
    engine.faults = [Fault("sample", NOTES[1].title, None)]
    totals = write_corpus(job(tmp_path / "out.jsonl"), "cpu")
    assert (totals.unusable, totals.failed, totals.why) == (1, 1, "told to fail at sample")
    assert NOTES[1].id not in {row["source"] for row in rows(tmp_path / "out.jsonl")}
    engine.faults = []
    again = write_corpus(job(tmp_path / "out.jsonl"), "cpu")
    assert (again.failed, again.sources) == (0, len(NOTES))


def test_the_pace_is_in_tokens_where_they_are_known() -> None:
    assert writing.Totals(lines=10, tokens=3000, seconds=2).pace == "1,500 tokens/s"
    assert writing.Totals(lines=10, seconds=2).pace == "5 lines/s"
    assert writing.Totals().pace == ""


# ── bad input ──


def test_another_job_does_not_go_on_with_the_file(tmp_path: Path) -> None:
    to = tmp_path / "out.jsonl"
    write_corpus(job(to), "cpu")
    with pytest.raises(RunError, match="begun with another recipe"):
        write_corpus(job(to, format="long"), "cpu")
    with pytest.raises(RunError, match="begun with another layout"):
        write_corpus(replace(job(to), layout="messages"), "cpu")


def test_a_file_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(RunError, match="was not written by"):
        write_corpus(job(tmp_path / "out.jsonl"), "cpu")
    assert (tmp_path / "out.jsonl").read_text() == "mine"


def test_a_damaged_file_is_said_to_be(tmp_path: Path) -> None:
    to = tmp_path / "out.jsonl"
    write_corpus(job(to), "cpu")
    to.write_text("")
    with pytest.raises(RunError, match="is shorter than it was"):
        write_corpus(job(to), "cpu")
    (tmp_path / "out.jsonl.progress").write_text("{}\n[]\n")
    with pytest.raises(RunError, match="is damaged"):
        write_corpus(job(to), "cpu")


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_a_shard_that_is_none_is_refused(tmp_path: Path, shard: str) -> None:
    with pytest.raises(ConfigError, match="expected I/N"):
        make_job(str(tmp_path), RECIPE, tmp_path / "o", shard=shard)


def test_a_layout_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="written as text or messages, not as 'chat'"):
        make_job(str(tmp_path), RECIPE, tmp_path / "o", "chat")


def test_a_shard_without_sources_is_refused(tmp_path: Path) -> None:
    one = replace(job(tmp_path / "o"), documents=Documents((Task("a", "A", "Text.", ()),), ()))
    for i in (1, 2):
        if not replace(one, shard=(i, 2)).tasks:
            with pytest.raises(InputError, match="has none of the 1 sources"):
                write_corpus(replace(one, shard=(i, 2)), "cpu")
            break


def test_the_documents_of_a_folder_are_cut_to_the_writers_context(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\n\n" + "\n\n".join(f"## {i}\n\n{'Some words here. ' * 60}" for i in range(3)))
    found = make_job(str(tmp_path), replace(RECIPE, model="pup"), tmp_path / "o.jsonl").documents
    assert len(found.tasks) >= 3
    assert len({task.id for task in found.tasks}) == len(found.tasks)
