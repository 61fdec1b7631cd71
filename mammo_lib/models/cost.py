"""What a network costs, counted and not measured: operations, parameters, and the memory that a training step keeps.

Networks run on fake tensors, which have shapes but no values, so that any size is counted in seconds. A multiply-add
counts as two operations.

| part | operations |
|---|---|
| convolution, matrix product, attention | those of torch's own counter |
| selective scan | per channel and token 7 N + 3, with N states |

The scan counts per state exp(dt A) 2, (dt u) B 1, a h + b 2 and C h 2, and per channel dt u 1 and D u 2. An exponential
counts as one operation.

Normalisation, activations and other elementwise steps are not counted. On a CPU they take time all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ..ops import scan_cpu  # noqa: F401  (registers mammo::scan_cpu)

SCAN = "selective scan"
KINDS = {"convolution": ("conv",), "attention": ("attention",), SCAN: ("scan",)}  # anything else: matrix product
PER_STATE, PER_CHANNEL = 7, 3


@dataclass(frozen=True)
class Cost:
    """Operations of one forward pass by part, parameters, and bytes kept between forward and backward pass."""

    operations: dict[str, int]
    parameters: int
    kept_bytes: int

    @property
    def total(self) -> int:
        """All operations of a forward pass."""
        return sum(self.operations.values())

    def per_image(self, n: int) -> Cost:
        """Return the cost of one of the ``n`` images of the pass."""
        return Cost(
            {name: count // n for name, count in self.operations.items()}, self.parameters, self.kept_bytes // n
        )


def scan_operations(u: tuple[int, ...], states: int) -> int:
    """Return the operations of a selective scan over u, (batch, channels, length), with ``states`` states per channel.

    >>> scan_operations((1, 2, 10), 8)
    1180
    """
    batch, channels, length = u
    return batch * channels * length * (PER_STATE * states + PER_CHANNEL)


def cost_of(build: Callable[[], nn.Module], run: Callable[[nn.Module], object]) -> Cost:
    """Count a network: ``build`` returns it, ``run`` makes one forward pass with inputs that it creates.

    Nothing is computed, and no weight is allocated.
    """
    with torch.device("meta"):
        network = build().eval()
    with FakeTensorMode(allow_non_fake_inputs=True):
        network.to_empty(device="cpu")
        parameters = sum(one.numel() for one in network.parameters())
        counter = FlopCounterMode(display=False, custom_mapping=operator_formulas())
        with torch.no_grad(), counter:
            run(network)
        kept = _kept_bytes(network.train(), run)
    found = Counter()
    for operator, count in counter.get_flop_counts().get("Global", {}).items():
        found[_kind(str(operator))] += int(count)
    return Cost(dict(found), parameters, kept)


def operator_formulas() -> dict:
    """Return formulas, from shapes, for the operators that torch's counter does not know."""
    return {
        torch.ops.mammo.scan_cpu: lambda u, step, A, *_, **__: scan_operations(tuple(u), A[1]),
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    }


def _kind(operator: str) -> str:
    return next((kind for kind, words in KINDS.items() if any(word in operator for word in words)), "matrix product")


def _kept_bytes(network: nn.Module, run: Callable[[nn.Module], object]) -> int:
    """Return the bytes of everything that a forward pass keeps for the backward pass, parameters excepted."""
    own = {one.untyped_storage()._cdata for one in (*network.parameters(), *network.buffers())}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run(network)
    return sum(storage.nbytes() for storage in kept.values())
