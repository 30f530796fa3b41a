"""Time the inner loop: ours against the published code's way, a careful plain loop and, on CUDA, recorded graphs.

One process runs every arm on the same tokens, seeds and order, one after another, round and round, and takes medians.
`arms.py` says what each arm does, `exams.py` the same for examination and grading, `workload.py` where the lengths come
from, `ledger.py` what is written down. README.md says how to read it.

The plan is a list of groups, one for each model and question asked of it. A group has a share of the minutes: it runs
all its arms once, and then again while its share lasts, three times if that is possible and five at most. What a group
leaves over goes to those after it. What did not fit is listed as skipped, with the reason.

    python bench/inner_loop.py                              # CPU, ten minutes on two cores
    python bench/inner_loop.py --device cuda --name h200    # an H200, nine minutes
    python bench/inner_loop.py --dry-run --out runs/dry     # every line of it on toy models, less than a minute
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

if not __package__:  # run as a file: import from the repository's root and its sources all the same
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "src")]

import torch
from rich.console import Console
from transformers.utils import logging

from bench.arms import Graphed, Official, Ours, Sequential, lora_parameters
from bench.exams import CALLS, QUESTIONS, OurExam, SequentialExam, grade_at_once, grade_in_turn
from bench.ledger import Ledger, Phase, Row
from bench.measure import H200_FLOPS, calibrate, machine, peak_flops, peak_memory, release_memory, versions
from bench.report import draw, table
from bench.subjects import SHAPES, Subject, make_network, toy
from bench.workload import read_lengths

RESULTS = Path(__file__).with_name("results")
Lengths = list[list[int]]
BREAKDOWNS = (RuntimeError, ValueError, TypeError, AttributeError)  # no memory, or a graph that cannot be recorded


class Run(Protocol):
    """One timing of an arm, in seconds per self-edit (or adapter); `timed` says what was really run."""

    timed: str

    def __call__(self) -> float: ...


@dataclass(frozen=True)
class Arm:
    """An arm on a model, built when its group's turn has come. `row.timed` is filled in then."""

    row: Row
    build: Callable[[], Run]


@dataclass(frozen=True)
class Group:
    """Arms that take turns, and their share of the minutes."""

    share: float
    arms: Callable[[], Sequence[Arm]]


@dataclass(frozen=True)
class Size:
    """How much of each arm is timed on a model: affordable, and the same self-edits as far as each arm comes.

    `slots` are the K of our arm, the first that of the ratios; `edits` the most self-edits of its timings, `sequential`
    and `longest` those of the other arms, `steps` those of an official Trainer. 0 leaves an arm out. A size without
    other arms is timed for the sake of K alone.
    """

    model: str
    share: float
    slots: tuple[int, ...]
    edits: int
    sequential: int = 0
    steps: int = 0
    longest: int = 0
    targets: str = "all-linear"
    graphs: int = 0

    def edits_at(self, slots: int) -> int:
        """Return a multiple of `slots`: enough to see slots refilled, where that is affordable."""
        return slots * max(1, min(self.edits, max(12, 6 * slots)) // slots)


@dataclass(frozen=True)
class Extent:
    """How large all of it is: the real thing, or the dry run."""

    sizes: tuple[Size, ...]
    exams: tuple[tuple[str, float], ...]  # models that are examined, with their share of the minutes
    sweep: tuple[str, float] = ("", 0.0)  # the model for which self-edits of other lengths are timed, and its share
    sequences: tuple[int, ...] = (4, 9, 18, 36)  # of 49 tokens each, in the self-edits of the sweep
    width: int = 2048  # what the published code pads to
    together: int = 48  # adapters examined at once, as the loop does it
    tokens: int = 32  # of an answer
    delay: float = 0.7  # seconds that the faked judge takes
    timings: tuple[int, int] = (3, 5)  # as many as the shares allow, at least and at most
    lengths: Lengths = field(default_factory=read_lengths)
    is_toy: bool = False


# The first of `slots` is what the engine itself chooses for 48 self-edits of this length.
CPU = Extent(
    sizes=(
        Size("2M", 0.10, (16,), edits=48, sequential=12, steps=3, longest=3),
        Size("10M", 0.11, (16,), edits=16, sequential=4, steps=2, longest=2),
        Size("30M", 0.14, (8,), edits=8, sequential=2, steps=1, longest=1),
        Size("100M", 0.26, (4,), edits=4, sequential=1, steps=1, longest=1),
        Size("2M", 0.04, (16,), edits=48, sequential=12, steps=3, targets="default"),
        Size("2M", 0.17, (1, 2, 4, 8, 24, 32, 48), edits=48),
        Size("10M", 0.07, (1, 4), edits=12),
    ),
    exams=(("2M", 0.05),),
    sweep=("2M", 0.06),
)
CUDA = Extent(
    sizes=(
        Size("7B", 0.26, (24,), edits=48, sequential=2, steps=6, longest=2, graphs=8),
        Size("1B", 0.12, (24,), edits=48, sequential=4, steps=6, longest=2, graphs=8),
        Size("7B", 0.20, (1, 2, 4, 8, 16, 32, 48), edits=48),
        Size("1B", 0.08, (1, 2, 4, 8, 16, 32, 48), edits=48),
        Size("7B", 0.08, (24, 48), edits=48, sequential=2, steps=6, targets="default"),
        Size("1B", 0.04, (24, 48), edits=48, sequential=2, steps=6, targets="default"),
    ),
    exams=(("7B", 0.10), ("1B", 0.05)),
    sweep=("1B", 0.07),
)


def shrunk(extent: Extent) -> Extent:
    """Make the dry run of an extent: all of its arms, on next to nothing."""

    def small(size: Size) -> Size:
        few = {name: min(1, getattr(size, name)) for name in ("sequential", "steps", "longest", "graphs")}
        return replace(size, slots=(2,) if size.sequential else (1,), edits=2, **few)

    return replace(
        extent,
        sizes=tuple(map(small, extent.sizes)),
        sequences=(2,),
        width=64,
        together=2,
        tokens=2,
        delay=0.01,
        timings=(1, 1),
        lengths=[[5, 9], [7, 4, 12]],
        is_toy=True,
    )


class Bench:
    """What all groups share: networks, made when first needed, and the ledger that they fill."""

    def __init__(self, device: torch.device, dtype: torch.dtype, extent: Extent, ledger: Ledger, seed: int) -> None:
        self.ledger = ledger
        self.device = device
        self.timings = extent.timings
        self._extent = extent
        self._seed = seed
        self._network = cache(partial(self._make_network, dtype))

    def groups(self) -> Iterator[Group]:
        """List what is to be run, in order."""
        extent = self._extent
        for size in extent.sizes:
            yield Group(size.share, partial(self._training, size))
        for model, share in extent.exams:
            yield Group(share, partial(self._examination, model))
        if extent.sweep[0]:
            yield Group(extent.sweep[1], partial(self._sweep, extent.sweep[0]))

    def subject(
        self, model: str, targets: str = "all-linear", lengths: Lengths | None = None, workload: str = "B"
    ) -> Subject:
        """Put a workload on a model."""
        network, lengths = self._network(model), lengths or self._extent.lengths
        return Subject.of(model, network, targets, lengths, self._seed, workload)

    def _make_network(self, dtype: torch.dtype, model: str) -> Any:
        shape = toy(SHAPES[model]) if self._extent.is_toy else SHAPES[model]
        return make_network(shape, dtype, self.device, self._seed)

    def _training(self, size: Size) -> list[Arm]:
        subject = self.subject(size.model, size.targets)
        first, *others = (self._ours(subject, slots, size.edits_at(slots)) for slots in size.slots)
        arms = [first]
        if size.sequential:
            arms.append(_training_arm("sequential", subject, partial(Sequential, subject, size.sequential, 1)))
        if size.graphs:
            arms.append(_training_arm("graphs", subject, partial(Graphed, subject, size.graphs, 1)))
        if size.longest:
            build = partial(Official, subject, size.longest, 2 * size.steps, None)
            arms.append(_training_arm("longest", subject, build))
        if size.steps:
            arms.append(self._official(subject, size.steps))
        return [*arms, *others]

    def _ours(self, subject: Subject, slots: int, edits: int) -> Arm:
        return _training_arm("ours", subject, partial(Ours, subject, slots, edits, 1), slots)

    def _official(self, subject: Subject, steps: int) -> Arm:
        return _training_arm("official", subject, partial(Official, subject, 1, steps, self._extent.width))

    def _sweep(self, model: str) -> list[Arm]:
        slots = min(16, self._extent.together)
        arms = []
        for count in self._extent.sequences:
            subject = self.subject(model, lengths=[[49] * count] * slots, workload=f"{count} x 49")
            arms.append(self._ours(subject, slots, slots))
            arms.append(_training_arm("sequential", subject, partial(Sequential, subject, 2, 1)))
            arms.append(self._official(subject, 1))
        return arms

    def _examination(self, model: str) -> list[Arm]:
        subject, together, tokens = self.subject(model), self._extent.together, self._extent.tokens

        def exam(name: str, slots: int, build: Callable[[], Run]) -> Arm:
            return Arm(_row(name, subject, slots, "examine", float(QUESTIONS * tokens)), build)

        return [
            exam("ours", together, partial(OurExam, subject, together, tokens)),
            exam("sequential", 1, partial(SequentialExam, subject, min(4, together), tokens)),
            exam("ours", 1, partial(OurExam, subject, 1, tokens)),
        ]

    def grade(self) -> None:
        """Add up whole inner loops with a judge of no time and with a slow one, whose calls are slept through once."""
        extent = self._extent
        for model, _ in extent.exams:
            subject = self.subject(model)
            slots = next(size.slots[0] for size in extent.sizes if size.model == model)
            for delay in (0.0, extent.delay):
                in_turn, at_once = grade_in_turn(delay), grade_at_once(delay, extent.together)
                self._add_whole("official", subject, (1, 1), delay, in_turn)
                self._add_whole("sequential", subject, (1, 1), delay, in_turn)
                self._add_whole("ours", subject, (slots, extent.together), delay, at_once)

    def _add_whole(self, arm: str, subject: Subject, slots: tuple[int, int], delay: float, graded: float) -> None:
        """Sum up the phases; an official adapter is examined as a sequential one."""
        exam = "ours" if arm == "ours" else "sequential"
        trained = self.ledger.median("train", subject.model, "all-linear", arm, slots[0])
        answered = self.ledger.median("examine", subject.model, "all-linear", exam, slots[1])
        if trained is not None and answered is not None:
            row = _row(f"{arm}+grader{delay:g}", subject, slots[0], "all", 0.0)
            how = f"{CALLS} calls in flight" if arm == "ours" else "one call after another"
            how = f"training and examination (medians) + {graded:.3f} s of grading, {how}"
            self.ledger.add(replace(row, timed=how), trained + answered + graded, 0)


def _training_arm(name: str, subject: Subject, build: Callable[[], Run], slots: int = 1) -> Arm:
    flops = (4 * subject.parameters + 6 * lora_parameters(subject)) * subject.tokens
    return Arm(_row(name, subject, slots, "train", subject.tokens, flops), build)


def _row(name: str, subject: Subject, slots: int, phase: Phase, tokens: float, flops: float = 0.0) -> Row:
    return Row(
        arm=name,
        model=subject.model,
        params=subject.parameters,
        targets=str(subject.settings.targets),
        K=slots,
        timed="",
        is_extrapolated=phase != "examine",
        tokens=tokens,
        flops=flops,
        workload=subject.workload,
        phase=phase,
    )


def run_group(group: Group, bench: Bench, until: float, deadline: float) -> None:
    """Time every arm in turn: once, if `deadline` (seconds of the clock) allows it, and again until `until`."""
    runs = dict(_built(group, bench, deadline))
    fewest, most = bench.timings
    spent: dict[Row, float] = {}
    for turn in range(most):
        end = until if turn else deadline
        if turn and time.monotonic() + sum(spent.values()) * (1.0 if turn < fewest else 1.5) > end:
            return
        for row, run in list(runs.items()):
            start = time.monotonic()
            if start + spent.get(row, 0.0) > end:
                if not turn:
                    bench.ledger.skip(row, "the minutes were spent")
            elif not _time(row, run, bench):
                del runs[row]
            spent[row] = time.monotonic() - start


def _built(group: Group, bench: Bench, deadline: float) -> Iterator[tuple[Row, Run]]:
    for arm in group.arms():
        if time.monotonic() > deadline:
            bench.ledger.skip(arm.row, "the minutes were spent")
            continue
        try:
            run = arm.build()
        except BREAKDOWNS as error:
            bench.ledger.skip(arm.row, _named(error))
            continue
        yield replace(arm.row, timed=run.timed), run


def _time(row: Row, run: Run, bench: Bench) -> bool:
    """Time an arm once. Say whether it is worth another turn: what broke is not."""
    try:
        with peak_memory(bench.device) as peak:
            seconds = run()
    except BREAKDOWNS as error:
        bench.ledger.skip(row, _named(error))
        return False
    bench.ledger.add(row, seconds, peak.bytes)
    print(f"{'/'.join(row.key):44} {seconds:10.3f} s", flush=True)
    return True


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"


def open_ledger(path: Path, device: torch.device, seed: int, is_dry: bool) -> Ledger:
    """Describe the machine, measure its yardsticks, and begin the file."""
    shape = toy(SHAPES["2M"]) if is_dry else SHAPES["2M"]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    measured = peak_flops(device, 256 if is_dry else 8192 if device.type == "cuda" else 2048)
    peak = H200_FLOPS if device.type == "cuda" else measured
    network = make_network(shape, dtype, device, seed)
    calibration = {
        "tokens_per_second_2M_full_training": round(calibrate(network, *((2, 16) if is_dry else (16, 128)), device), 1),
        "matrix_product_flops": round(measured),
        "peak_flops_of_mfu": round(peak),
    }
    head = {"machine": machine(device), "versions": versions(), "calibration": calibration, "seed": seed}
    path.parent.mkdir(parents=True, exist_ok=True)
    return Ledger(path, head, peak)


def run(
    extents: Sequence[tuple[Extent, torch.dtype]], device: torch.device, ledger: Ledger, minutes: float, seed: int
) -> None:
    """Run all groups of all extents within the minutes."""
    began = time.monotonic()
    for extent, dtype in extents:
        bench = Bench(device, dtype, extent, ledger, seed)
        for size in extent.sizes:
            ledger.headline.setdefault(size.model, size.slots[0])
        share = 0.0
        for group in bench.groups():
            share += group.share
            run_group(group, bench, began + 60 * minutes * share, began + 60 * minutes)
            release_memory(device)
        bench.grade()


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, run, and show what came out."""
    options = _parser().parse_args(argv)
    device = torch.device(options.device)
    name = f"inner_loop_{'dry' if options.dry_run else options.name or options.device}"
    torch.set_num_threads(options.threads or torch.get_num_threads())
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    ledger = open_ledger(options.out / f"{name}.json", device, options.seed, options.dry_run)
    extents = [(CUDA, torch.bfloat16)] if device.type == "cuda" else [(CPU, torch.float32)]
    if options.dry_run:
        extents = [(shrunk(CPU), torch.float32), (shrunk(CUDA), torch.bfloat16)]
    run(extents, device, ledger, options.minutes, options.seed)
    draw(ledger, options.out / f"{name}.png")
    Console(width=150).print(table(ledger))
    print(f"ratios: {ledger.ratios()}\nwritten: {ledger.path} and {name}.png")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--device", choices=("cpu", "cuda"), default="cpu", help="Where to compute: fp32 on a CPU, bf16 on CUDA.")
    add("--name", default="", help="How to name the results, after inner_loop_; the device if nothing is given.")
    add("--out", type=Path, default=RESULTS, help="The folder in which the results are written.")
    add("--minutes", type=float, default=8.5, help="How long it may take; arms that do not fit are listed as skipped.")
    add("--dry-run", action="store_true", help="Run every arm once on toy models, those of CUDA too, to see it work.")
    add("--threads", type=int, default=0, help="How many cores all arms may use; PyTorch's choice if nothing is given.")
    add("--seed", type=int, default=0, help="What random weights and tokens are drawn from.")
    return parser


if __name__ == "__main__":
    main()
