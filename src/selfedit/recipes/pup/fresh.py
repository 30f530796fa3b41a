"""Make a small model with random weights and the embedded model's tokenizer: a learner that knows nothing, not even
the language.

    python -m selfedit.recipes.pup.fresh --out runs/fresh   # 0.3 million parameters
"""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

from transformers import AutoTokenizer

from selfedit.engine.checkpoints import quiet
from selfedit.recipes.pup.train import new_model

SIZE, LAYERS = "small", 2


def make_fresh(folder: Path, seed: int) -> Path:
    """Write a checkpoint that training can begin with, the same one for the same seed; return its folder."""
    with quiet():
        new_model(seed, SIZE, LAYERS).save_pretrained(folder)
        AutoTokenizer.from_pretrained(str(files("selfedit").joinpath("pup"))).save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a small model with random weights.")
    parser.add_argument("--out", type=Path, default=Path("runs/fresh"), help="folder of the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    make_fresh(given.out, given.seed)


if __name__ == "__main__":
    main()
