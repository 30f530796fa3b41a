"""Train pup-grid from random weights: copy, then align, then read, then choose.

The stages are pup's in small grids: random sequences said twice form the induction heads, over short and then over long
distances; grids said twice teach which cell is at the place of which; tasks with their demonstrations in view, what a
rule is; then everything, with requests for a choice and with grids as large as practice makes them. Without the third
stage, models were seen to spend hundreds of steps of the fourth on how frequent colours are.

    python -m selfedit.recipes.pup_grid.train --out runs/pup-grid   # 2 cores: about two hours; goes on where it was
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import Qwen2ForCausalLM

from selfedit.recipes.pup import stages
from selfedit.recipes.pup.corpus import Maker
from selfedit.recipes.pup.packing import Stage
from selfedit.recipes.pup_grid import corpus
from selfedit.recipes.pup_grid.tokenizer import VOCABULARY, make_tokenizer

CONTEXT, LAYERS = 1280, 4  # practice sets of four pairs of 12 by 12 cells have 1,268 tokens

ALIGN: Mapping[Maker | int, float] = {160: 0.05, corpus.echoing: 0.95}
READ: Mapping[Maker | int, float] = {200: 0.03, corpus.echoing: 0.12, corpus.reading: 0.85}
CHOOSE: Mapping[Maker | int, float] = {
    200: 0.02,
    corpus.echoing: 0.06,
    corpus.reading: 0.65,
    corpus.reading_large: 0.12,
    corpus.choosing: 0.15,
}
STAGES = (
    Stage("copy", 3000, 32, 64, 2e-3, 2e-3, {32: 1.0}, enough=0.9),
    Stage("copy-far", 1500, 8, 480, 2e-3, 2e-3, {240: 1.0}, enough=0.95),
    Stage("align", 800, 8, 480, 2e-3, 2e-3, ALIGN, enough=0.94),
    Stage("read", 4500, 8, 480, 2e-3, 1e-3, READ),
    Stage("choose", 1500, 3, CONTEXT, 1e-3, 5e-5, CHOOSE),
)


def new_model(seed: int, size: str = "medium") -> Qwen2ForCausalLM:
    """Draw a model's first weights."""
    return stages.draw_model(seed, VOCABULARY, CONTEXT, size, LAYERS)


def run(out: Path, seed: int, device: str, size: str = "medium") -> None:
    """Train through all stages, from the newest checkpoint in `out` or from random weights."""
    course = stages.Course(STAGES, corpus.PRIOR, make_tokenizer(CONTEXT))
    stages.run(course, new_model(seed, size), out, seed, None, device)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train pup-grid from random weights.")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/pup-grid"), help="folder of checkpoints and of the finished model"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--size", choices=list(stages.SIZES), default="medium", help="0.6, 2.2 or 4.8 million parameters"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    run(given.out, given.seed, given.device, given.size)


if __name__ == "__main__":
    main()
