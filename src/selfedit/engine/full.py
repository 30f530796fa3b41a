"""Full updates: every weight of the network learns, where a LoRA leaves all of them alone.

A full update in memory is a `Full`, the weights themselves and not their change: what it was trained on is in it, so
that nothing stands under one. It lies in main memory in fp32, 4 bytes a weight, and is on the device only while used.

It is trained by what trains LoRAs. `FullStack` is a stack of a single slot: for as long as it hangs on the network, the
network's parameters are views of its one row of masters, and their gradients go into its one row of gradients. Order,
batches, passes, losses, clipping and AdamW are the pool's and know no difference. Where the network computes in bf16,
its parameters are copies of the fp32 masters, renewed before every step, and answers are given as by any checkpoint
that is opened in bf16. Tied weights are one parameter and stay so; buffers are left alone.

A folder is a checkpoint that Transformers opens as any other, weights in fp32, and `selfedit.json` as in a PEFT folder:
{"base": name@digest, "adapter": id}.

Axes: K slots, here always 1, W all weights of a slot, as in `lora.py`.

    stack = FullStack(network)
    stack.put(0, merged(network, [lora]))
    with stack.hung_on(network):
        network(tokens).logits.sum().backward()
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from selfedit.engine.adapters import Lora, check_digest, read_note, replacing, write_note
from selfedit.engine.checkpoints import Checkpoint, open_network, quiet
from selfedit.engine.lora import Dropout, Groups, aligned
from selfedit.errors import ConfigError, ModelError

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False, slots=True)
class Full:
    """All weights of a network: parameter name → tensor, tied ones once, by their first name. Its `rank` is 0."""

    weights: Mapping[str, Tensor]
    rank: ClassVar[int] = 0

    def tensors(self) -> Iterator[Tensor]:
        """Give every tensor, in the order of the names."""
        return (self.weights[name] for name in sorted(self.weights))


def check_weights(checkpoint: Checkpoint) -> None:
    """Raise `ConfigError` where a network's weights cannot learn."""
    if getattr(checkpoint.network, "is_quantized", False):
        raise ConfigError(
            f"{checkpoint.base} is quantised, so its weights cannot learn; open the model unquantised, or train with "
            'method "lora"'
        )


def check_memory(checkpoint: Checkpoint, free: int) -> None:
    """Raise `ModelError` if so many bytes of main memory do not hold one more full update.

    On a CPU its training takes four times the weights more. Where that is too much the system ends the process, and
    with it what else was trained.
    """
    network = checkpoint.network
    weights = sum(4 * parameter.numel() for parameter in network.parameters())
    needed = 5 * weights if network.device.type == "cpu" else weights
    if needed > free:
        raise ModelError(
            f"a full update of {checkpoint.base} takes {needed / 2**30:.1f} GiB of main memory and {free / 2**30:.1f} "
            'GiB are free; release other adapters, or train with method "lora"'
        )


def merged(network: Any, updates: Sequence[Lora | Full]) -> Full:
    """Work out all weights of the network with `updates` on it, each on top of those before; without any, its own.

    What no update touches is the network's tensor itself, what one does is in fp32. Raises `ConfigError` for a LoRA on
    a layer whose weight is another layer's too: it means to change one of them alone.
    """
    weights = {name: parameter.data for name, parameter in network.named_parameters()}
    for update in updates:
        weights |= update.weights if isinstance(update, Full) else _with_lora(network, weights, update)
    return Full(weights)


def _with_lora(network: Any, weights: Mapping[str, Tensor], lora: Lora) -> dict[str, Tensor]:
    uses = Counter(map(id, (parameter for _, parameter in network.named_parameters(remove_duplicate=False))))
    changed = {}
    for name, (down_RI, up_OR) in lora.weights.items():
        module = network.get_submodule(name)
        if uses[id(module.weight)] > 1:
            raise ConfigError(
                f"the adapter below changes {name!r}, whose weight is tied to another layer's, so that it cannot be "
                "merged; train it with other targets"
            )
        own = weights[f"{name}.weight"]
        left, right = (down_RI.T, up_OR.T) if isinstance(module, Conv1D) else (up_OR, down_RI)
        master = own.to(torch.promote_types(own.dtype, torch.float32))
        changed[f"{name}.weight"] = master.addmm(left.to(master), right.to(master), alpha=lora.scale)
    return changed


@contextmanager
def exchanged(network: Any, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let the network's parameters be these tensors, and its own again afterwards whatever happens, bit by bit."""
    own = [(parameter, parameter.data) for parameter in network.parameters()]
    try:
        for name, parameter in network.named_parameters():
            parameter.data = weights[name]
        yield
    finally:
        for parameter, tensor in own:
            parameter.data = tensor


def mounted_full(network: Any, full: Full) -> AbstractContextManager[None]:
    """Put a full update on the network, in the dtype in which it computes, and take it off again whatever happens."""
    return exchanged(network, {name: full.weights[name].to(own) for name, own in network.named_parameters()})


class FullStack:
    """The `lora.Stack` of one full update, whose weights are the network's own parameters."""

    slots = 1

    def __init__(self, network: Any) -> None:
        self._shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
        width = sum(aligned(shape.numel()) for shape in self._shapes.values())
        master = torch.promote_types(network.dtype, torch.float32)
        self.weights_KW = torch.zeros(1, width, device=network.device, dtype=master)
        self.gradients_KW: Tensor | None = torch.zeros_like(self.weights_KW)
        self._masters = self._views(self.weights_KW)
        self._gradients = self._views(self.gradients_KW)
        self._copies: list[tuple[Tensor, Tensor]] = []

    def put(self, slot: int, full: Full, /) -> None:
        """Copy a full update in. What was there is gone."""
        for name, master in self._masters.items():
            master.copy_(full.weights[name])

    def take(self, slot: int, like: Full, /) -> Full:
        """Copy the full update out, into main memory."""
        return Full({name: master.to(CPU, copy=True) for name, master in self._masters.items()})

    def refresh(self) -> None:
        """Cast the masters to the dtype that is computed in; where that is theirs, the network computes with them."""
        for computed, master in self._copies:
            computed.copy_(master)

    @contextmanager
    def hung_on(self, network: Any) -> Iterator[None]:
        """Let the network compute with these weights and learn, and give it its own back whatever happens."""
        computed = {name: self._masters[name].to(own.dtype) for name, own in network.named_parameters()}
        self._copies = [
            (computed[name], master) for name, master in self._masters.items() if computed[name] is not master
        ]
        with exchanged(network, computed), ExitStack() as stack:
            for name, parameter in network.named_parameters():
                stack.callback(_freeze, parameter)
                parameter.requires_grad_(True)
                hook = parameter.register_post_accumulate_grad_hook(partial(_collect, self._gradients[name]))
                stack.callback(hook.remove)
            yield

    def during(self, groups: Groups, dropouts: Sequence[Dropout] = (), /) -> AbstractContextManager[None]:
        """Nothing need be said of a pass: all tokens are those of the one slot, and LoRA's dropout has no place."""
        return nullcontext()

    def forget_gradients(self) -> None:
        """Set all gradients to 0."""
        if self.gradients_KW is not None:
            self.gradients_KW.zero_()

    def _views(self, flat_KW: Tensor) -> dict[str, Tensor]:
        """View the row as the network's parameters."""
        views, start = {}, 0
        for name, shape in self._shapes.items():
            views[name] = flat_KW[0, start : start + shape.numel()].view(shape)
            start += aligned(shape.numel())
        return views


def _collect(gradient: Tensor, parameter: Tensor) -> None:
    """Move what a backward pass left at a parameter to where the optimizer looks, in its dtype."""
    if parameter.grad is not None:
        gradient.add_(parameter.grad)
    parameter.grad = None


def _freeze(parameter: nn.Parameter) -> None:
    parameter.requires_grad_(False)
    parameter.grad = None


def write_checkpoint(folder: Path, full: Full, checkpoint: Checkpoint, adapter_id: str) -> None:
    """Write a checkpoint folder: weights, configurations, tokenizer. It appears whole or not at all."""
    network = copy(checkpoint.network)
    network.config = deepcopy(network.config)  # in which transformers notes the dtype of what it saves
    with replacing(folder) as new, quiet(), exchanged(network, full.weights):
        network.save_pretrained(new)
        checkpoint.tokenizer.save_pretrained(new)
        note = write_note(new, checkpoint, adapter_id)
        for path in new.iterdir():  # safetensors makes files that only their owner may read
            shutil.copymode(note, path)


def read_checkpoint(folder: Path, checkpoint: Checkpoint) -> Full:
    """Read a folder of `write_checkpoint`. Raises `ModelError` for another base's, a broken one, any other model."""
    made_for = read_note(folder)
    if made_for is None:
        raise ModelError(f"{str(folder)!r} is a model of its own, no update of {checkpoint.base}; open it as the model")
    check_digest(folder, made_for, checkpoint)
    with quiet():
        network = open_network(str(folder), str(folder), CPU)
    weights = {name: parameter.data for name, parameter in network.named_parameters()}
    shapes = {name: parameter.shape for name, parameter in checkpoint.network.named_parameters()}
    if {name: tensor.shape for name, tensor in weights.items()} != shapes:
        raise ModelError(f"the weights in {str(folder)!r} do not fit {checkpoint.base}: other names or shapes")
    return Full(weights)
