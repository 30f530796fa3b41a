"""Batched generation: left-padded prompts, one key-value cache, finished rows dropped, one rule for the next token.

Written out rather than left to `generate()`, for three reasons: a draw must not depend on what else is in the batch, so
every row brings its own stream of uniform numbers and the token is read off the cumulative distribution; the
log-probabilities wanted are those before temperature and top-p; and rows that have stopped must not be computed on.

Rows may have different adapters: those of a `LoraStack` that hangs on the network, each row with its slot.

Axes: B rows, T tokens, V vocabulary.

    rows = [Row(prompt=[5, 7], limit=16)]
    decode(network, rows, stops=frozenset({2}), pad=2, budget=16_384, stage="answer")
    rows[0].tokens, rows[0].stop
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

import torch
from torch import Tensor

from selfedit.engine.lora import Groups, LoraStack, is_out_of_memory
from selfedit.types import Failure, Stage

EXPECTED_TOKENS = 256  # of an answer, when batches are cut: most rows stop early, and running out of memory is caught


@dataclass(slots=True)
class Row:
    """One prompt and what was generated for it: at most `limit` tokens, the last a stop id where `stop` is "eos".

    `temperature` 0 takes the likeliest token; otherwise `seed` starts the row's own stream of uniform numbers. `slot`
    is that of its adapter, where there are several. `failure` is set instead of `stop` when even this row alone does
    not fit in memory.
    """

    prompt: Sequence[int]
    limit: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: str = ""
    slot: int = 0
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stop: Literal["eos", "length"] | None = None
    failure: Failure | None = None
    stream: Random = field(init=False)

    def restart(self) -> None:
        """Forget what was generated, and take the stream from its start."""
        self.tokens, self.logprobs, self.stop, self.stream = [], [], None, Random(self.seed)


def decode(
    network: Any,
    rows: Sequence[Row],
    stops: frozenset[int],
    pad: int,
    budget: int,
    stage: Stage,
    stack: LoraStack | None = None,
) -> None:
    """Fill `rows`, in batches of like length of about `budget` tokens.

    When memory runs out, the batch is repeated with half the budget. `pad` is any token id; `stage` names failures.
    `stack` holds the adapters of the rows, where they have several; it hangs on the network.
    """
    waiting = sorted(rows, key=lambda row: -len(row.prompt))
    while waiting:
        cost = len(waiting[0].prompt) + min(waiting[0].limit, EXPECTED_TOKENS)
        batch = waiting[: max(1, budget // cost)]
        try:
            _decode_batch(network, batch, stops, pad, stack)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) > 1:
                budget = cost * len(batch) // 2
                continue
            batch[0].failure = Failure(stage, "OutOfMemoryError", str(error).splitlines()[0])
        waiting = waiting[len(batch) :]


@torch.no_grad()
def _decode_batch(network: Any, rows: Sequence[Row], stops: frozenset[int], pad: int, stack: LoraStack | None) -> None:
    rows = sorted(rows, key=lambda row: row.slot)
    for row in rows:
        row.restart()
    device = network.device
    longest = max(len(row.prompt) for row in rows)
    filled = [[pad] * (longest - len(row.prompt)) + list(row.prompt) for row in rows]
    tokens_BT = torch.tensor(filled, device=device)
    mask_BT = torch.tensor([[0] * (longest - len(row.prompt)) + [1] * len(row.prompt) for row in rows], device=device)
    positions_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    cache = None
    while rows:
        with _of_slots(rows, tokens_BT.shape[1], stack, device):
            output = network(
                input_ids=tokens_BT,
                attention_mask=mask_BT,
                position_ids=positions_BT,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        cache = output.past_key_values
        tokens_B = _append(rows, output.logits[:, -1].float(), stops)
        kept = [i for i, row in enumerate(rows) if row.stop is None]
        if len(kept) < len(rows):
            index = torch.tensor(kept, dtype=torch.long, device=device)
            tokens_B, mask_BT, positions_BT = tokens_B[index], mask_BT[index], positions_BT[index]
            rows = [rows[i] for i in kept]
            cache.batch_select_indices(index)
        tokens_BT = tokens_B[:, None]
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(rows), 1)], dim=1)
        positions_BT = positions_BT[:, -1:] + 1


def _of_slots(
    rows: Sequence[Row], width: int, stack: LoraStack | None, device: torch.device
) -> AbstractContextManager[None]:
    """Tell the stack whose tokens come next: `width` of every row."""
    if stack is None:
        return nullcontext()
    counts = Counter(row.slot for row in rows)
    return stack.during(Groups.of([counts[slot] * width for slot in range(stack.slots)], device))


def _append(rows: Sequence[Row], logits_BV: Tensor, stops: frozenset[int]) -> Tensor:
    """Choose every row's next token and write it down; return the tokens [B]."""
    logprobs_BV = logits_BV.log_softmax(-1)
    tokens_B = logprobs_BV.argmax(-1)
    if any(row.temperature > 0 for row in rows):
        is_drawn_B = torch.tensor([row.temperature > 0 for row in rows], device=tokens_B.device)
        tokens_B = torch.where(is_drawn_B, _draw(rows, logprobs_BV), tokens_B)
    logprobs_B = logprobs_BV.gather(1, tokens_B[:, None])[:, 0]
    for row, token, logprob in zip(rows, tokens_B.tolist(), logprobs_B.tolist(), strict=True):
        row.tokens.append(token)
        row.logprobs.append(logprob)
        row.stop = "eos" if token in stops else "length" if len(row.tokens) == row.limit else None
    return tokens_B


def _draw(rows: Sequence[Row], logprobs_BV: Tensor) -> Tensor:
    """Draw by the inverse of the cumulative distribution, [B].

    The cumulative sum runs in vocabulary order and in fp64: in order of probability two nearly equal tokens could
    change places with rounding, and the same uniform number would then name another token in another batch.
    """
    kwargs: dict[str, Any] = {"dtype": torch.float64, "device": logprobs_BV.device}
    temperature_B1 = torch.tensor([[row.temperature or 1.0] for row in rows], **kwargs)
    top_p_B1 = torch.tensor([[row.top_p] for row in rows], **kwargs)
    probs_BV = (logprobs_BV / temperature_B1).softmax(-1)
    if any(row.top_p < 1 for row in rows):
        ordered_BV, index_BV = probs_BV.sort(dim=-1, descending=True, stable=True)
        is_outside_BV = ordered_BV.cumsum(-1) - ordered_BV >= top_p_B1
        is_outside_BV = is_outside_BV.scatter(-1, index_BV, is_outside_BV)
        probs_BV = probs_BV.masked_fill(is_outside_BV, 0.0)
    cumulative_BV = probs_BV.cumsum(-1)
    uniform_B1 = torch.tensor([[row.stream.random()] for row in rows], **kwargs)
    tokens_B1 = torch.searchsorted(cumulative_BV, uniform_B1 * cumulative_BV[:, -1:], right=True)
    return tokens_B1[:, 0].clamp(max=logprobs_BV.shape[1] - 1)
