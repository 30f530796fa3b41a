"""Follow a run from elsewhere: its metrics, as they are written, sent to TensorBoard, W&B, MLflow or trackio.

The run folder stays where truth lives: `metrics.jsonl` is written whether anybody listens or not, and a tracker gets
what stands there, in order, each number once. A note in the folder (`tracker-wandb.json`) says how many it has and
which run there is ours. So a run that was killed goes on in the same curves, and one that is given a tracker late sends
what it had missed. The note comes before the number: a kill in between costs the tracker that number and never sends it
twice.

A tracker that cannot be started stops the run before it has begun. One that fails on the way (no network) is left alone
with a warning, and gets the rest when the run is started again: hours of training do not hang on a dashboard.

Accelerate knows how to talk to each of them; here is what it leaves open: what a run is called there, how it is found
again, and that W&B refuses steps that go back, which ours do, as every stage counts its own.

    with open_run(folder, recipe, base) as run, reporting(run, recipe):
        run.metric("reward/mean", 0.5, step=1)
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

from selfedit.errors import ConfigError, MissingExtra, RunError, from_extra, near_miss
from selfedit.recipe import Recipe
from selfedit.runs import Metric, Run, read_metrics, write_atomic
from selfedit.types import Trial, mean_measured

log = logging.getLogger(__name__)

# What installs each; the extra brings the one that needs no account and no server.
TRACKERS = {"tensorboard": "'selfedit[track]'", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}
PROJECT = "selfedit"
EVERY = 24  # trials between two looks at how the stages do


# ── what is worth watching ──


def watch(run: Run) -> None:
    """Write how every stage does so far. Done again it writes what is new, so that it may be called at any time."""
    for metric in how_stages_do(run.trials().values()):
        run.metric(metric.name, metric.value, metric.step)


def how_stages_do(trials: Iterable[Trial]) -> list[Metric]:
    """Sum up the trials of every stage; the step is their number, of which some may not have been measured.

    Seconds are means of one inner loop, by phase. Writing the self-edits is in none of them.
    """
    stages: dict[str, list[Trial]] = {}
    for trial in trials:
        stages.setdefault(trial.key.partition("/")[0], []).append(trial)
    return [
        Metric(f"stage/{stage}/{name}", value, len(found))
        for stage, found in stages.items()
        for name, value in _sums(found).items()
    ]


def _sums(trials: Sequence[Trial]) -> dict[str, float]:
    reward = mean_measured([trial.reward for trial in trials])
    phases = {name for trial in trials for name in trial.cost}
    seconds = {f"time/{name}": fmean(trial.cost.get(name, 0.0) for trial in trials) for name in sorted(phases)}
    total = sum(seconds.values())
    unusable = sum(t.failure is not None and t.failure.stage == "parse" and t.reward is not None for t in trials)
    return {
        **({} if reward is None else {"reward/mean": reward}),
        "edits/unusable": unusable,
        "failure/trials": sum(trial.reward is None for trial in trials),
        **seconds,
        **({"speed/trials_per_min": 60 / total} if total else {}),
    }


# ── who is told ──


def check_trackers(names: Sequence[str]) -> None:
    """Raise `ConfigError` for a tracker that is none and `MissingExtra` for one that is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"unknown tracker {name!r} in report_to; {near_miss(name, TRACKERS)}")
        if find_spec(name) is None:
            raise MissingExtra(f"the tracker {name!r} is not installed: pip install {TRACKERS[name]}")


@contextmanager
def reporting(run: Run, recipe: Recipe) -> Iterator[None]:
    """Send the run's metrics to the trackers of `recipe.report_to`; what they lack of those that are there goes first.

    Raises as `check_trackers` does, and `RunError` for a tracker that cannot be started.
    """
    check_trackers(recipe.report_to)
    with ExitStack() as stack:
        for name in dict.fromkeys(recipe.report_to):
            mirror = _open_mirror(name, run.folder, recipe)
            stack.callback(mirror.finish)
            for metric in read_metrics(run.folder)[mirror.note.sent :]:
                mirror.send(metric)
            run.listen(mirror.send)
        yield


@dataclass(frozen=True, slots=True)
class _Note:
    """What a tracker has: how many of the run's metrics, in which run of its own ("" where the folder says it)."""

    run: str = ""
    sent: int = 0


@dataclass(slots=True)
class _Mirror:
    """A tracker that was started, and the note on what it has."""

    name: str
    tracker: Any
    path: Path
    note: _Note
    is_lost: bool = False

    def write(self, note: _Note) -> None:
        self.note = note
        write_atomic(self.path, json.dumps(asdict(note)) + "\n")

    def send(self, metric: Metric) -> None:
        if self.is_lost:
            return
        before = self.note
        self.write(_Note(before.run, before.sent + 1))
        if not self._try(lambda: self._log(metric)):
            self.write(before)

    def finish(self) -> None:
        self._try(self.tracker.finish)

    def _log(self, metric: Metric) -> None:
        if self.name == "wandb":
            self.tracker.log({metric.name: metric.value, "step": metric.step})
        else:
            self.tracker.log({metric.name: metric.value}, step=metric.step)

    def _try(self, act: Callable[[], None]) -> bool:
        try:
            act()
        except Exception as error:  # whatever it is, it is not the run's
            self.is_lost = True
            log.warning(
                "the tracker %r failed (%s) and is left out; metrics.jsonl goes on, and what it misses is sent "
                "once the run is started again",
                self.name,
                " ".join(str(error).split()) or type(error).__name__,
            )
        return not self.is_lost


def _open_mirror(name: str, folder: Path, recipe: Recipe) -> _Mirror:
    path = folder / f"tracker-{name}.json"
    note = _read_note(path)
    title = f"{recipe.name or recipe.domain}-{folder.name}"
    try:
        tracker = _start(name, folder, title, note.run if note else "")
        if note is None:
            tracker.store_init_configuration(_flat(asdict(recipe)))
        mirror = _Mirror(name, tracker, path, note or _Note())
        mirror.write(_Note(_run_of(name, tracker.tracker), mirror.note.sent))
    except MissingExtra:
        raise
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise RunError(
            f"the tracker {name!r} cannot be started: {said}; set it up, or leave it out of report_to"
        ) from error
    return mirror


def _read_note(path: Path) -> _Note | None:
    if not path.exists():
        return None
    try:
        return _Note(**json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} is damaged; remove it, and the tracker gets the run as a new one") from error


def _start(name: str, folder: Path, title: str, earlier: str) -> Any:
    """Start a new run there, or go on with the `earlier` one."""
    with from_extra("track", f"the tracker {name!r}"):
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS
    PartialState()  # the trackers' own logging asks it who the main process is
    made = LOGGER_TYPE_TO_CLASS[name]
    match name:
        case "tensorboard":
            tracker = made(name, str(folder))
        case "wandb":
            tracker = made(PROJECT, name=title, dir=str(folder), id=earlier or None, resume="allow")
        case "mlflow":
            tracker = made(PROJECT, run_name=title, run_id=earlier or None)
        case _:  # trackio finds runs by their names alone
            name_there = earlier or f"{title}-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:6]}"
            tracker = made(PROJECT, name=name_there, resume="allow" if earlier else "never")
    tracker.start()
    if name == "wandb":
        tracker.tracker.define_metric("*", step_metric="step")
    return tracker


def _run_of(name: str, found: Any) -> str:
    """Say by what a tracker finds its run again. TensorBoard's is its folder."""
    match name:
        case "wandb":
            return str(found.id)
        case "mlflow":
            return str(found.info.run_id)
        case "trackio":
            return str(found.name)
    return ""


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, str | float | None]:
    """Flatten a recipe into dotted keys with plain values, as trackers want settings."""
    flat: dict[str, str | float | None] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
    return flat
