"""What a round of reinforcement costs: 50 passages, 5 self-edits each, one seed, timed on the embedded model; and what
such a round would take of a GPU at 7B.

The clock runs over the whole round: writing 250 self-edits, as many inner loops with their exams, and the update of the
writer. Opening the model is left out, and so are the exams on unseen passages, which an experiment adds after a round.

The second table is arithmetic. Nothing in it was timed at 7B unless `results/inner_loop_cuda.json` (or `--measured`)
holds the pool's rate on that GPU: then `train` stands on it, and else on a share of the GPU's peak that is named. What
is counted, for P weights of which each takes 2 bytes, and L weights of a LoRA:

    train     tokens x (4 P + 6 L) FLOP              every adapter, and the writer on what is kept of its own
    write     steps x (2 P) bytes from memory        all self-edits at once, a step of decoding reads all weights
    examine   steps x waves x (2 P + 2 K L) bytes    K adapters in a wave, each read at every step as well

The lengths are those of the paper's first round, ten epochs each (`workload.py`).

    python -m bench.round
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from bench.measure import H200_FLOPS, machine, versions
from bench.workload import read_lengths
from selfedit.config import load_recipe
from selfedit.engine.local import LocalBackend
from selfedit.experiment.plans import domain_of, make_plans
from selfedit.judges import open_grader
from selfedit.loop.algorithms import load_algorithm
from selfedit.loop.outer import Known, Lab, Round, Wrote, improve
from selfedit.types import Trial

PASSAGES, EDITS = 50, 5
H200_BYTES_A_SECOND = 4.8e12  # of its memory, by its data sheet
EPOCHS, QUESTIONS, ANSWER = 10, 5, 32  # of an inner loop; questions of a passage, tokens of an answer
WAVE = 48  # adapters examined at once
SHARES = (0.2, 0.4)  # of the peak, where no rate was measured


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of one round by phase; `usable` of the `edits` could be learnt, `kept` of them were reinforced."""

    write_s: float
    inner_s: float
    update_s: float
    edits: int
    usable: int
    kept: int

    @property
    def round_s(self) -> float:
        return self.write_s + self.inner_s + self.update_s


def time_round(engine: LocalBackend, seed: int) -> Timed:
    """Run one round of the recipe "demo" on fresh passages, from an untouched writer."""
    changes = [f"outer.tasks={PASSAGES}", f"sample.edits={EDITS}", "outer.rounds=1", "outer.repeats=1", f"seed={seed}"]
    recipe = load_recipe("demo", changes)
    with TemporaryDirectory() as folder:
        (plan, *_), _ = make_plans(recipe, Path(folder))
    recipe = plan.recipe
    grade = open_grader(recipe.exam.grader, recipe.judge, plan.above)
    lab = Lab(domain_of(recipe), engine, grade, recipe.sample, recipe.exam, recipe.seed)
    start = time.perf_counter()
    written = tried = start
    trials: list[Trial] = []
    for event in improve("bench", plan.train, lab, load_algorithm(recipe.outer), recipe.outer, Known()):
        match event:
            case Wrote():
                written = time.perf_counter()
            case Trial():
                tried = time.perf_counter()
                trials.append(event)
            case Round(n_kept=kept):
                phases = (written - start, tried - written, time.perf_counter() - tried)
                return Timed(*phases, len(trials), sum(trial.failure is None for trial in trials), kept)
    raise AssertionError("a round ends with a Round")


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds that a GPU takes for a round, by phase. `rate` says what training was reckoned by."""

    rate: str
    write_s: float
    train_s: float
    examine_s: float
    update_s: float

    @property
    def round_s(self) -> float:
        return self.write_s + self.train_s + self.examine_s + self.update_s


@dataclass(frozen=True, slots=True)
class Large:
    """A model of `weights` weights with a LoRA of `lora` on it: Qwen2.5-7B, rank 32 on all linear layers."""

    weights: float = 7.07e9
    lora: float = 80.7e6


def reckon(tokens_a_second: float, rate: str, lengths: Sequence[Sequence[int]], large: Large) -> Cost:
    """Reckon a round of PASSAGES x EDITS inner loops on an H200 that trains at this rate."""
    edits = PASSAGES * EDITS
    tokens = fmean(map(sum, lengths))
    longest, bare = max(map(sum, lengths)), fmean(lengths_S[-1] for lengths_S in lengths)
    weights = 2 * large.weights
    return Cost(
        rate=rate,
        write_s=longest * weights / H200_BYTES_A_SECOND,
        train_s=edits * EPOCHS * tokens / tokens_a_second,
        examine_s=ANSWER * math.ceil(edits / WAVE) * (weights + 2 * WAVE * large.lora) / H200_BYTES_A_SECOND,
        update_s=PASSAGES * EPOCHS * (bare + tokens) / tokens_a_second,
    )


def costs(measured: Path, large: Large) -> Iterator[Cost]:
    """Reckon by what the pool was measured to do on a GPU; where it was not, by shares of the peak."""
    lengths = read_lengths()
    flops = 4 * large.weights + 6 * large.lora
    if measured.exists():
        rows = json.loads(measured.read_text(encoding="utf-8"))["arms"]
        rates = [row["tokens_per_second"] for row in rows if (row["arm"], row["model"]) == ("ours", "7B")]
        if rates:
            yield reckon(max(rates), f"measured: {max(rates):.0f} tokens/s", lengths, large)
            return
    for share in SHARES:
        yield reckon(share * H200_FLOPS / flops, f"assumed: {100 * share:.0f} % of the peak", lengths, large)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a round on the embedded model; reckon one at 7B.")
    parser.add_argument("--device", default="cpu", help="where the embedded model runs: cpu or cuda")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one round each")
    parser.add_argument("--measured", type=Path, default=Path("bench/results/inner_loop_h200.json"), help="GPU's rates")
    parser.add_argument("--out", type=Path, default=Path("bench/results/round_cpu.json"), help="where results go")
    given = parser.parse_args()
    engine = LocalBackend("pup", given.device)
    report: dict[str, Any] = {"machine": machine(), "versions": versions()}
    rounds = []
    for seed in given.seeds:
        timed = time_round(engine, seed)
        rounds.append({"seed": seed, "round_s": timed.round_s, **asdict(timed)})
        print(json.dumps(rounds[-1]), flush=True)
    reckoned = [{"round_s": cost.round_s, **asdict(cost)} for cost in costs(given.measured, Large())]
    for row in reckoned:
        print(json.dumps(row))
    report |= {"rounds": rounds, "seven_billion_on_an_h200": reckoned}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
