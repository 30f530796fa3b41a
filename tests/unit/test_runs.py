from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from io import FileIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfedit.errors import RunError
from selfedit.recipe import Recipe, recipe_hash
from selfedit.runs import (
    count_trials_written,
    open_run,
    read_exams,
    read_header,
    read_seconds,
    read_trials,
    write_atomic,
)
from selfedit.types import Exam, Failure, Question, Sample, Score, Trial

BASE = "pup@0123456789ab"
FAILURE = Failure("train", "OutOfMemory", "too large")

# NaN is left out because it does not equal itself.
numbers = st.floats(allow_nan=False)
texts = st.text()  # control characters and line separators included
token_ids = st.lists(st.integers(0, 2**40)).map(tuple)
samples = st.builds(
    Sample, texts, token_ids, token_ids, st.lists(numbers).map(tuple), texts, st.sampled_from(["eos", "length"])
)
scores = st.lists(st.builds(Score, st.none() | numbers, texts, texts), max_size=4).map(tuple)
failures = st.builds(Failure, st.sampled_from(["propose", "parse", "train", "grade"]), texts, texts)
trials = st.builds(
    Trial,
    key=texts,
    task_id=texts,
    edit=st.integers(),
    repeat=st.integers(),
    seed=st.integers(),
    sample=st.none() | samples,
    adapter=st.none() | texts,
    before_Q=scores,
    after_Q=scores,
    reward=st.none() | numbers,
    failure=st.none() | failures,
    cost=st.dictionaries(texts, numbers, max_size=3),
)


def trial(key: str, reward: float | None = 0.5, failure: Failure | None = None) -> Trial:
    sample = Sample("p", (1, 2), (3, 4), (-0.5, -1.5), "text", "eos")
    return Trial(
        key, "t", 0, 0, 7, sample, "adapter", (Score(0.0, "no"),), (Score(1.0, "yes"),), reward, failure, {"s": 1}
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of two trials."""
    with open_run(tmp_path / "run", Recipe(), BASE) as run:
        run.append(trial("a"))
        run.append(trial("b"))
    return tmp_path / "run"


def fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next write take three bytes, and the one after it find no room."""
    written: list[bytes] = []

    class FullFile(FileIO):
        def write(self, data: Any) -> int:
            if written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written.append(bytes(data[:3]))
            return super().write(written[0])

    monkeypatch.setattr("selfedit.runs.FileIO", FullFile)


# ── round trips ──


@settings(max_examples=25, deadline=None)
@given(st.lists(trials, max_size=4, unique_by=lambda t: t.key))
def test_trials_are_equal_after_a_round_trip(written: list[Trial]) -> None:
    with TemporaryDirectory() as temporary:
        with open_run(Path(temporary), Recipe(), BASE) as run:
            for one in written:
                run.append(one)
        assert list(read_trials(Path(temporary)).values()) == written


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(texts, st.lists(samples, max_size=3).map(tuple), max_size=3))
def test_samples_are_equal_after_a_round_trip(written: dict[str, tuple[Sample, ...]]) -> None:
    with TemporaryDirectory() as temporary:
        with open_run(Path(temporary), Recipe(), BASE) as run:
            for key, drawn in written.items():
                run.save_samples(key, drawn)
        with open_run(Path(temporary), Recipe(), BASE) as run:
            assert run.drawn() == written


def test_a_read_trial_is_made_of_the_same_types(folder: Path) -> None:
    read = read_trials(folder)["a"]
    assert read == trial("a")
    assert read.sample
    assert (type(read.sample.tokens), type(read.before_Q), type(read.cost)) == (tuple, tuple, dict)
    hash(read.sample)


def test_a_read_only_cost_is_written_too(folder: Path) -> None:
    with open_run(folder, Recipe(), BASE) as run:
        run.append(replace(trial("c"), cost=MappingProxyType({"train": 1.5})))
    assert read_trials(folder)["c"].cost == {"train": 1.5}


def test_the_ledger_is_one_line_a_trial_whatever_the_text_holds(folder: Path) -> None:
    with open_run(folder, Recipe(), BASE) as run:
        run.append(replace(trial("c"), task_id="a\nb\r\n\u2028c\x85d"))
    assert len((folder / "trials.jsonl").read_bytes().splitlines()) == 3
    assert read_trials(folder)["c"].task_id == "a\nb\r\n\u2028c\x85d"


def test_metrics_are_lines_with_slash_names(folder: Path) -> None:
    with open_run(folder, Recipe(), BASE) as run:
        run.metric("reward/mean", 0.25, step=3)
    assert json.loads((folder / "metrics.jsonl").read_text()) == {"name": "reward/mean", "value": 0.25, "step": 3}


def test_a_run_is_timed_over_all_the_times_it_was_taken_up(folder: Path) -> None:
    assert read_seconds(folder) == 0
    for seconds in (1.5, 2.5):
        with open_run(folder, Recipe(), BASE) as run:
            run.metric("time/run_s", seconds, step=2)
            run.metric("reward/mean", 0.5, step=2)
    assert read_seconds(folder) == 4


def test_written_trials_can_be_counted_without_a_run_and_during_one(folder: Path, tmp_path: Path) -> None:
    assert count_trials_written(tmp_path / "none") == 0
    assert count_trials_written(folder) == 2
    with open(folder / "trials.jsonl", "ab") as ledger:
        ledger.write(b'{"key": "half')
    assert count_trials_written(folder) == 2


def test_an_infinite_number_is_written_and_read() -> None:
    with TemporaryDirectory() as temporary, open_run(Path(temporary), Recipe(), BASE) as run:
        run.append(trial("a", reward=-math.inf))
        assert read_trials(Path(temporary))["a"].reward == -math.inf


# ── once per key ──


def test_the_same_key_twice_counts_once(folder: Path) -> None:
    before = (folder / "trials.jsonl").read_bytes()
    with open_run(folder, Recipe(), BASE) as run:
        run.append(trial("a", reward=0.9))
        assert run.trials()["a"].reward == 0.5
    assert (folder / "trials.jsonl").read_bytes() == before


def test_two_lines_of_one_key_count_once_and_the_first_wins(folder: Path) -> None:
    ledger = folder / "trials.jsonl"
    ledger.write_bytes(ledger.read_bytes() + ledger.read_bytes().splitlines(keepends=True)[0].replace(b"0.5", b"0.9"))
    assert {key: t.reward for key, t in read_trials(folder).items()} == {"a": 0.5, "b": 0.5}


def test_a_trial_that_lost_a_mark_of_its_baseline_is_replaced_by_one_that_has_it(folder: Path) -> None:
    lost = replace(trial("c", 0.25), before_Q=(Score(None, "no", "call failed", is_lost=True),))
    failed, whole = trial("c", None, FAILURE), trial("c", 0.75)
    with open_run(folder, Recipe(), BASE) as run:
        run.append(lost)
        run.append(failed)
        assert run.trials()["c"] == lost, "a worse one does not take its place"
        run.append(whole)
        run.append(lost)
    assert read_trials(folder)["c"] == whole


def test_a_trial_that_could_not_be_measured_is_replaced_by_one_that_could(folder: Path) -> None:
    with open_run(folder, Recipe(), BASE) as run:
        run.append(trial("c", reward=None, failure=FAILURE))
        run.append(trial("c", reward=0.75))
    assert read_trials(folder)["c"].reward == 0.75


def test_a_real_zero_is_never_replaced(folder: Path) -> None:
    with open_run(folder, Recipe(), BASE) as run:
        run.append(trial("c", reward=0.0, failure=Failure("parse", "BadEdit", "no text")))
        run.append(trial("c", reward=1.0))
    assert read_trials(folder)["c"].reward == 0.0


def test_samples_keep_what_was_drawn_first(folder: Path) -> None:
    sample = Sample("p", (), (1,), (0.0,), "first", "eos")
    with open_run(folder, Recipe(), BASE) as run:
        run.save_samples("k", [sample])
        run.save_samples("k", [replace(sample, text="second")])
    with open_run(folder, Recipe(), BASE) as run:
        assert run.drawn() == {"k": (sample,)}


def test_a_request_that_drew_more_replaces_what_there_was(folder: Path) -> None:
    first, second = (Sample("p", (), (1,), (0.0,), text, "eos") for text in ("first", "second"))
    with open_run(folder, Recipe(), BASE) as run:
        run.save_samples("k", [first])
        run.save_samples("k", [first, second])
    with open_run(folder, Recipe(), BASE) as run:
        assert run.drawn() == {"k": (first, second)}


# ── kills ──


def test_a_line_torn_anywhere_costs_only_itself(folder: Path) -> None:
    ledger = folder / "trials.jsonl"
    whole = ledger.read_bytes()
    first = whole.index(b"\n") + 1
    for end in [*range(first, len(whole), 9), len(whole) - 1]:
        ledger.write_bytes(whole[:end])
        assert list(read_trials(folder)) == ["a"]
        with open_run(folder, Recipe(), BASE) as run:
            assert list(run.trials()) == ["a"]
        assert ledger.read_bytes() == whole[:first]


@pytest.mark.parametrize("tail", [b"\0\0\0", b"\0\0\0\n", b'{"key": \n', b"{", b"\xff"])
def test_what_a_power_cut_leaves_at_the_end_is_cut_and_the_run_goes_on(folder: Path, tail: bytes) -> None:
    with open(folder / "trials.jsonl", "ab") as ledger:
        ledger.write(tail)
    with open_run(folder, Recipe(), BASE) as run:
        run.append(trial("c"))
    assert list(read_trials(folder)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("ledger", "line"),
    [
        ("samples.jsonl", b'{"key": "k", "samples": []}\n'),
        ("metrics.jsonl", b'{"name": "a", "value": 1, "step": 2}\n'),
    ],
)
def test_the_other_ledgers_are_cut_too(folder: Path, ledger: str, line: bytes) -> None:
    (folder / ledger).write_bytes(line + b'{"key"')
    open_run(folder, Recipe(), BASE).close()
    assert (folder / ledger).read_bytes() == line


def test_a_damaged_line_in_the_middle_is_refused_by_its_number(folder: Path) -> None:
    ledger = folder / "trials.jsonl"
    ledger.write_bytes(b"not json\n" + ledger.read_bytes())
    with pytest.raises(RunError, match=r"line 1 of .*trials\.jsonl cannot be read; remove it"):
        open_run(folder, Recipe(), BASE)


def test_a_line_of_another_version_is_refused_by_its_number(folder: Path) -> None:
    ledger = folder / "trials.jsonl"
    ledger.write_bytes(ledger.read_bytes() + b'{"key": "c", "unheard_of": 1}\n')
    with pytest.raises(RunError, match="line 3 of"):
        read_trials(folder)


KILLED = """
import os, signal, sys
from pathlib import Path
from selfedit.runs import open_run
from selfedit.recipe import Recipe
run = open_run(Path(sys.argv[1]), Recipe(), sys.argv[2])
print("open", flush=True)
sys.stdin.read()
"""


def test_a_living_process_keeps_others_out_and_a_killed_one_does_not(folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, str(folder), BASE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout and other.stdout.readline() == b"open\n"
        with pytest.raises(RunError, match=f"is being written by process {other.pid}; wait"):
            open_run(folder, Recipe(), BASE)
        other.send_signal(signal.SIGKILL)
        other.wait()
        open_run(folder, Recipe(), BASE).close()


def test_one_process_cannot_open_a_run_twice(folder: Path) -> None:
    with open_run(folder, Recipe(), BASE), pytest.raises(RunError, match="is being written"):
        open_run(folder, Recipe(), BASE)


def test_a_refused_opening_leaves_no_lock_behind(folder: Path) -> None:
    with pytest.raises(RunError):
        open_run(folder, Recipe(), "another model")
    open_run(folder, Recipe(), BASE).close()


def test_a_run_can_be_read_while_it_is_written(folder: Path) -> None:
    with open_run(folder, Recipe(), BASE) as run:
        run.append(trial("c"))
        assert list(read_trials(folder)) == ["a", "b", "c"]


# ── the header ──


def test_the_header_says_what_ran(folder: Path) -> None:
    header = read_header(folder)
    assert header
    assert (header.hash, header.base, header.recipe["seed"]) == (recipe_hash(Recipe()), BASE, 0)
    assert {"python", "torch"} <= set(header.versions[0])


def test_a_folder_without_a_run_has_no_header_and_no_trials(tmp_path: Path) -> None:
    assert read_header(tmp_path) is None
    assert read_trials(tmp_path) == {}


def test_another_recipe_is_refused_with_what_differs_and_what_to_do(folder: Path) -> None:
    other = replace(Recipe(), seed=5, eval_tasks=3)
    with pytest.raises(RunError) as caught:
        open_run(folder, other, BASE)
    assert str(caught.value) == (
        f"{folder} holds a run of another recipe (seed is 0 there, 5 here); "
        "choose another folder, or the settings it has"
    )


def test_another_base_is_refused_with_both_names(folder: Path) -> None:
    with pytest.raises(RunError, match=f"a run of the model '{BASE}', not of 'pup@other'; choose another folder"):
        open_run(folder, Recipe(), "pup@other")


def test_a_run_can_be_extended(folder: Path) -> None:
    with open_run(folder, replace(Recipe(), eval_tasks=500, arms=("base",)), BASE) as run:
        assert list(run.trials()) == ["a", "b"]
    header = read_header(folder)
    assert header and header.recipe["eval_tasks"] == 500


def test_versions_that_changed_between_two_openings_are_both_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfedit.runs.version", lambda package: "99.0")
    open_run(folder, Recipe(), BASE).close()
    open_run(folder, Recipe(), BASE).close()
    header = read_header(folder)
    assert header and [v["torch"] == "99.0" for v in header.versions] == [False, True]


def test_a_damaged_header_is_refused(folder: Path) -> None:
    (folder / "recipe.json").write_text('{"hash": 1}')
    with pytest.raises(RunError, match=r"recipe\.json is damaged"):
        open_run(folder, Recipe(), BASE)


def test_trials_without_a_header_are_refused(folder: Path) -> None:
    (folder / "recipe.json").unlink()
    with pytest.raises(RunError, match=r"no recipe\.json to say of what"):
        open_run(folder, Recipe(), BASE)


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file; a run needs a folder"):
        open_run(tmp_path / "file", Recipe(), BASE)


# ── the disk ──


def test_a_full_disk_leaves_the_ledger_whole_and_says_how_to_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (folder / "trials.jsonl").read_bytes()
    with open_run(folder, Recipe(), BASE) as run:
        fill_the_disk(monkeypatch)
        with pytest.raises(RunError, match="is full; free some space on it and give the same command again: nothing"):
            run.append(trial("c"))
        assert (folder / "trials.jsonl").read_bytes() == before
        monkeypatch.undo()
        run.append(trial("c"))
    assert list(read_trials(folder)) == ["a", "b", "c"]


def test_write_atomic_writes_text_and_bytes_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", "café")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "café"
    write_atomic(tmp_path / "file", b"\0\1")
    assert (tmp_path / "file").read_bytes() == b"\0\1"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_who_reads_while_write_atomic_writes_sees_all_of_the_old_content(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", "old")
    with open(tmp_path / "file") as reader:
        write_atomic(tmp_path / "file", "new")
        assert reader.read() == "old"


def test_write_atomic_that_fails_leaves_the_old_content_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_atomic(tmp_path / "file", "old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="is full"):
        write_atomic(tmp_path / "file", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write to .*missing: No such file or directory"):
        write_atomic(tmp_path / "missing" / "file", "x")


def test_an_exam_is_read_again_and_the_first_stands_unless_it_failed(tmp_path: Path) -> None:
    exam = Exam("t", (Question("Who?\u2028", "Ada", "self-made", "hidden"),), 5, 1, 2, 1, 0)
    failed = Exam("u", failure=FAILURE)
    with open_run(tmp_path, Recipe(), BASE) as run:
        run.save_exam(failed)
        run.save_exam(exam)
        run.save_exam(replace(exam, questions=()))
        assert run.exams() == {"u": failed, "t": exam}
    assert read_exams(tmp_path) == {"u": failed, "t": exam}
    with open_run(tmp_path, Recipe(), BASE) as run:
        run.save_exam(replace(exam, task_id="u"))
    assert read_exams(tmp_path) == {"u": replace(exam, task_id="u"), "t": exam}
    assert len((tmp_path / "exams.jsonl").read_bytes().splitlines()) == 3
