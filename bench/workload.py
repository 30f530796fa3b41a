"""Workload B: how long the training sequences of the paper's first-round self-edits are. Lengths only, never a text.

SEAL's first round wrote ten self-edits for each of 100 passages (arXiv 2506.10943). Split by line as the published code
does, a self-edit is about nine sequences: its lines and, last, the bare passage, each under the title. Their tokens are
an estimate, made without the paper's tokenizer: characters divided by one constant, rounded up, plus one token for the
end. The constant, `CHARACTERS_PER_TOKEN`, is such that the mean of all 1000 is 442 tokens an epoch, or 4,420 over ten
epochs, which is what they are taken to have with the tokenizer of Qwen2.5.

48 self-edits are drawn, one from each of 48 strata of the 1000 by size, so that they have the spread of the whole. They
are listed such that every prefix has nearly the mean of all, in sequences and in tokens: an arm that can afford only
eight of them is timed on eight of the usual size. The extremes therefore come last.

    python bench/workload.py self_edits_train_round1.json > bench/workload_b.json
"""

from __future__ import annotations

import json
import math
import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

LENGTHS = Path(__file__).with_name("workload_b.json")
CHARACTERS_PER_TOKEN = 4.5
EDITS = 48
SEED = 0


def read_lengths(path: Path = LENGTHS) -> list[list[int]]:
    """Return the tokens of every sequence of every self-edit, its end-of-sequence token included."""
    lengths: list[list[int]] = json.loads(path.read_text(encoding="utf-8"))["lengths"]
    return lengths


def derive(path: Path) -> dict[str, object]:
    """Make the workload from a file of published self-edits: [{"title", "context", "completions"}]."""
    passages = json.loads(path.read_text(encoding="utf-8"))
    edits = [
        [_tokens(text) for text in _sequences(completion, passage["title"], passage["context"])]
        for passage in passages
        for completion in passage["completions"]
    ]
    rng = random.Random(SEED)
    ordered = sorted(edits, key=sum)
    drawn = [rng.choice(ordered[i * len(edits) // EDITS : (i + 1) * len(edits) // EDITS]) for i in range(EDITS)]
    return {
        "source": f"{path.name}: {len(edits)} self-edits, {fmean(map(sum, edits)):.1f} tokens an epoch on average",
        "characters_per_token": CHARACTERS_PER_TOKEN,
        "seed": SEED,
        "lengths": _balanced(drawn),
    }


def _sequences(completion: str, title: str, passage: str) -> list[str]:
    """Cut at lines and at `---`, drop what introduces a list, and add the passage.

    `selfedit.tasks.edits.split_completion` says it in full; for the 1000 self-edits of this file both agree.
    """
    lines = [line.strip() for line in re.split(r"---|\n", completion) if line.strip()]
    if len(lines) > 1 and lines[1].startswith("1."):
        lines = lines[1:]
    return [f"{title}\n{line}" for line in [*lines, passage]]


def _tokens(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN) + 1


def _balanced(edits: Sequence[list[int]]) -> list[list[int]]:
    """Order self-edits so that each prefix comes as near as it can to the mean of all."""
    rest, taken = list(edits), list[list[int]]()
    sequences, tokens = fmean(map(len, rest)), fmean(map(sum, rest))

    def distance(edit: list[int]) -> float:
        prefix = [*taken, edit]
        return abs(fmean(map(len, prefix)) / sequences - 1) + abs(fmean(map(sum, prefix)) / tokens - 1)

    while rest:
        taken.append(min(rest, key=distance))
        rest.remove(taken[-1])
    return taken


def as_tokens(lengths_S: Sequence[int], vocabulary: int, seed: int) -> list[tuple[int, ...]]:
    """Draw random token ids for a self-edit's sequences; what they say does not change what they cost."""
    rng = random.Random(seed)
    return [tuple(rng.randrange(2, vocabulary) for _ in range(length)) for length in lengths_S]


if __name__ == "__main__":
    found = derive(Path(sys.argv[1]))
    rows = ",\n".join(f"  {row}" for row in found.pop("lengths"))  # type: ignore[attr-defined]
    print(f'{json.dumps(found, indent=1)[:-2]},\n "lengths": [\n{rows}\n ]\n}}')
