"""An update of the network is a LoRA or all of its weights: what the engine does with either, without asking which.

| | `Lora` | `Full` |
|---|---|---|
| is trained in | a slot of many (`lora.LoraStack`) | a slot of its own (`full.FullStack`), one job after another |
| stands on | the adapter under it, which stays frozen | nothing: what was under it is merged in first |
| is put on the network | added to its layers | in the place of its weights |
| is kept | on the device | in main memory |
| is written as | a PEFT folder (`adapters.py`) | a checkpoint folder (`full.py`) |

So a chain has a full update at its foot at most, and is used as that and the one LoRA that all others sum up to.

    with mounted(network, *fold(chain)):
        network(tokens)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from selfedit.engine.adapters import Lora, read_folder, summed, write_folder
from selfedit.engine.checkpoints import Checkpoint
from selfedit.engine.full import Full, merged, mounted_full, read_checkpoint, write_checkpoint
from selfedit.engine.lora import mounted_lora

Update = Lora | Full


def fold(chain: Sequence[Update]) -> tuple[Update, ...]:
    """Reduce a chain, lowest first, to what is put on the network: a full update, a LoRA, both or neither."""
    fulls = [update for update in chain if isinstance(update, Full)]
    loras = [update for update in chain if isinstance(update, Lora)]
    return (*fulls, *([summed(loras)] if loras else []))


@contextmanager
def mounted(network: Any, *updates: Update) -> Iterator[None]:
    """Put frozen updates on the network, each on top of those before; take them off again whatever happens."""
    with ExitStack() as stack:
        for update in updates:
            put = mounted_full(network, update) if isinstance(update, Full) else mounted_lora(network, update)
            stack.enter_context(put)
        yield


def content_id(base: str, under: str, update: Update) -> str:
    """Name an adapter by what it is: 16 hex digits over base, adapter under it, configuration and every tensor."""
    kind = [update.rank, float(update.alpha)] if isinstance(update, Lora) else ["full"]
    digest = hashlib.sha256(json.dumps([base, under, *kind, sorted(update.weights)]).encode())
    for tensor in update.tensors():
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]


def write(folder: Path, updates: Sequence[Update], checkpoint: Checkpoint, adapter_id: str) -> None:
    """Write a folded chain so that it is valid on the bare base: a PEFT folder, or with a full update a checkpoint.

    It appears whole or not at all. Raises `ConfigError` for a LoRA that cannot be merged into the full update below it.
    """
    match updates:
        case [Lora() as lora]:
            write_folder(folder, lora, checkpoint, adapter_id)
        case _:
            write_checkpoint(folder, merged(checkpoint.network, updates), checkpoint, adapter_id)


def read(folder: Path, checkpoint: Checkpoint) -> Update:
    """Read a folder of either kind, a PEFT folder also of somebody else's.

    Raises `ModelError` if it was made for another base, or cannot be used.
    """
    is_checkpoint = (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file()
    return read_checkpoint(folder, checkpoint) if is_checkpoint else read_folder(folder, checkpoint)
