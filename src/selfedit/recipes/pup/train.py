"""Train pup from random weights: copy, then read and recall, then write.

In stages, because copying from the context is learnt last and needed first: random sequences said twice form the
induction heads in minutes, first over short distances, then over long ones; then passages with questions in view teach
reading, beside a few famous entities told again and again; then everything, with the writing documents of one mixture
of qualities. Some copying goes on throughout: without it what was formed is lost again before reading needs it.

How documents become batches stands in `packing`, the loop with its checkpoints in `stages`.

    python -m selfedit.recipes.pup.train --out runs/pup            # 2 cores: about an hour
    python -m selfedit.recipes.pup.train --out runs/pup-b --mixture b --from runs/pup/recall.pt
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import Qwen2ForCausalLM

from selfedit.recipes.pup import corpus, stages
from selfedit.recipes.pup.packing import Stage
from selfedit.recipes.pup.tokenizer import train_tokenizer

CONTEXT, VOCABULARY, LAYERS = 768, 512, 4

READ: Mapping[corpus.Maker | int, float] = {
    380: 0.10,
    corpus.reading: 0.64,
    corpus.telling: 0.13,
    corpus.recalling: 0.13,
}
WRITE: Mapping[corpus.Maker | int, float] = {
    380: 0.03,
    corpus.reading: 0.15,
    corpus.telling: 0.19,
    corpus.recalling: 0.17,
    corpus.writing: 0.36,
    corpus.examining: 0.06,
    corpus.conversing: 0.04,
}
STAGES = (
    Stage("copy", 3000, 32, 64, 2e-3, 2e-3, {32: 1.0}, enough=0.9),
    Stage("copy-far", 1500, 5, CONTEXT, 2e-3, 2e-3, {380: 1.0}, enough=0.95),
    Stage("recall", 800, 5, CONTEXT, 2e-3, 2e-3, READ),
    Stage("write", 3200, 5, CONTEXT, 2e-3, 5e-5, WRITE),
)


def new_model(seed: int, size: str = "medium", layers: int = LAYERS) -> Qwen2ForCausalLM:
    """Draw a model's first weights: with pup's four layers 0.6, 2.2 (pup itself) or 4.8 million parameters."""
    return stages.draw_model(seed, VOCABULARY, CONTEXT, size, layers)


def run(out: Path, seed: int, mixture: str, start: Path | None, device: str, size: str = "medium") -> None:
    """Train through all stages, from the newest checkpoint in `out`, or from `start`, or from random weights."""
    tokenizer = train_tokenizer(VOCABULARY, CONTEXT, seed)
    course = stages.Course(STAGES, corpus.MIXTURES[mixture], tokenizer)
    stages.run(course, new_model(seed, size), out, seed, start, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/pup"), help="folder of checkpoints and of the finished model"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--size", choices=list(stages.SIZES), default="medium", help="0.6, 2.2 or 4.8 million parameters"
    )
    parser.add_argument(
        "--mixture", choices=sorted(corpus.MIXTURES), default="a", help="qualities of the writing documents"
    )
    parser.add_argument(
        "--from", dest="start", type=Path, help="checkpoint of another run to go on from (its recall.pt)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    run(given.out, given.seed, given.mixture, given.start, given.device, given.size)


if __name__ == "__main__":
    main()
