"""Maps over the mammogram: five kinds that are easily confused.

| kind | one number per | what it is | what it is not |
|---|---|---|---|
| gate | window or token | how much of the block's output a SeqMoE gate passes | evidence for a class |
| mixer_gate | token | the gate inside ``gated_conv``, mean over channels | SeqMoE's gate |
| attention | token | the attention that a token receives, mean over heads and queries | a cause of the output |
| grad_cam | cell of stage 4 | features of the last stage that raise the log-odds of malignancy | what the pixels did |
| integrated_gradients | 4 x 4 px | how much pixels move the log-odds, in either direction | what a gate did |

The first three come from a forward pass. The last two are computed with Captum. Nothing is stored on a module: hooks
record the inputs of mixers during one pass, and the maps are recomputed from them. Whether a map follows the lesion is
tested in :mod:`mammo_lib.analysis.lesion_shares`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerGradCam
from jaxtyping import Float
from torch import Tensor, nn

from ..models import GatedConvMixer, MammoMamba, for_inference, log_odds
from ..models.encoders import ViewEncoder, scatter
from ..models.mambavision import Attention, Level, from_windows
from ..models.network import Network
from ..models.seqmoe import SeqMoE, gate_name, parse_gate_name

KINDS = {
    "gate": "SeqMoE gate",
    "mixer_gate": "mixer's token gate",
    "attention": "attention received",
    "grad_cam": "Grad-CAM",
    "integrated_gradients": "integrated gradients",
}
IG_STEPS = 16
IG_BATCH = 16  # breasts, with all their views, that pass through the network together
IG_CELL = 4  # pixels a side over which integrated gradients are added up: maps of single pixels are unreadable


@dataclass(frozen=True)
class SpatialMap:
    """One kind of map for a batch: ``values`` (batch, rows, columns), NaN where the view is missing.

    A cell covers ``stride`` x ``stride`` pixels of the network's input. ``block`` is ``stage3_block0`` and so on, empty
    for a map that belongs to no block.
    """

    kind: str
    stream: str
    view: str
    block: str
    values: np.ndarray
    stride: int

    @property
    def place(self) -> str:
        """The block in words, counted from 1, to append to the kind's name; empty if there is none."""
        if not self.block:
            return ""
        stage, block = parse_gate_name(self.block)
        return f", stage {stage}, block {block + 1}"

    def on_image(self, row: int, size: tuple[int, int]) -> np.ndarray:
        """Return one breast's map at the input's (height, width), each cell drawn as a square."""
        height, width = size
        return np.kron(self.values[row], np.ones((self.stride, self.stride), np.float32))[:height, :width]


def finest(maps: Sequence[SpatialMap]) -> SpatialMap:
    """Return the map with the smallest cells; of several, the last, which is nearest to the decision."""
    return min(reversed(maps), key=lambda one: one.stride)


def forward_maps(network: Network, batch: dict) -> list[SpatialMap]:
    """Return the maps of one forward pass: spatial SeqMoE gates, token gates of mixers, attention received."""
    model = network.model
    mixers = {
        (stream, stage, gate_name(stage, j)): block.mixer
        for stream, encoder in model.encoders.items()
        for stage, level in enumerate(_levels(encoder), start=1)
        if level.window is not None
        for j, block in enumerate(level.blocks)
    }
    with torch.inference_mode(), captured_inputs(mixers) as inputs:
        output = model(batch)
        maps = _seqmoe_maps(network, output.gates)
        for (stream, stage, block), x in inputs.items():
            kind, tokens = _token_values(mixers[stream, stage, block], x)
            if kind:
                encoder = model.encoders[stream]
                window, stride = _levels(encoder)[stage - 1].window, encoder.strides[stage - 1]
                values = _scattered(tokens, window, stride, stream, batch)
                maps += _by_view(network, kind, stream, block, values, stride)
    return maps


@contextmanager
def captured_inputs(modules: Mapping[Hashable, nn.Module]) -> Iterator[dict[Hashable, Tensor]]:
    """Record the first input of every module during a forward pass; the hooks are removed with the context."""
    inputs: dict[Hashable, Tensor] = {}

    def listen(key: Hashable):
        return lambda _, arguments: inputs.__setitem__(key, arguments[0])

    handles = [module.register_forward_pre_hook(listen(key)) for key, module in modules.items()]
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()


def attention_received(attention: Attention, x: Float[Tensor, "windows tokens dim"]) -> Float[Tensor, "windows tokens"]:
    """Return the attention that each token receives: softmax(q k^T / sqrt(d)), mean over heads and queries, sum 1."""
    windows, tokens, width = x.shape
    d = width // attention.heads
    q, k, _ = attention.qkv(x).reshape(windows, tokens, 3, attention.heads, d).permute(2, 0, 3, 1, 4)
    return torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(d), dim=-1).mean(dim=(1, 2))


def grad_cam(network: Network, batch: dict) -> list[SpatialMap]:
    """Return Grad-CAM (Selvaraju et al. 2017) of the log-odds of malignancy on the last stage of every stream.

    Negative parts are set to zero, as in the paper. The last stage is pooled by its mean, so that the map before this
    step splits the linearised decision exactly over its cells. Encoders other than MambaVision have no such map.
    """
    inputs, present = _as_tensors(network, batch)
    maps = []
    for stream in network.model.streams:
        if not _levels(network.model.encoders[stream]):
            continue
        explainer = LayerGradCam(_scorer(network.model), network.model.encoders[stream].network.backbone.norm)
        cells = explainer.attribute(inputs, additional_forward_args=present, relu_attributions=True)
        values = scatter(cells[:, 0].detach(), batch["present"][stream], torch.nan)
        maps += _by_view(network, "grad_cam", stream, "", values, network.model.encoders[stream].strides[-1])
    return maps


def integrated_gradients(network: Network, batch: dict, steps: int = IG_STEPS) -> dict[str, Tensor]:
    """Return by stream the contribution of each pixel to the log-odds of malignancy, (batch, views, height, width).

    Integrated gradients (Sundararajan et al. 2017) from black images along a straight line, Gauss-Legendre with
    ``steps`` points; over a breast they add up to log-odds(images) - log-odds(black).

    NOTE: the path bends at every ReLU, and with few points the sum often misses this change by more than its size.
    """
    inputs, present = _as_tensors(network, batch)
    # Equal up to rounding, in half the time: folded normalisation, channels last, and batches small enough for the
    # allocator to reuse its memory.
    fast = for_inference(network.model)
    explainer = IntegratedGradients(_scorer(fast))
    batch_size = max(IG_BATCH, len(inputs[0]))
    found = explainer.attribute(inputs, additional_forward_args=present, n_steps=steps, internal_batch_size=batch_size)
    return {
        stream: attribution[:, :, 0].detach() for stream, attribution in zip(network.model.streams, found, strict=True)
    }


def saliency_maps(network: Network, batch: dict, steps: int = IG_STEPS) -> list[SpatialMap]:
    """Return Grad-CAM and the absolute integrated gradients, summed over cells of 4 x 4 pixels."""
    maps = grad_cam(network, batch)
    for stream, pixels in integrated_gradients(network, batch, steps).items():
        cells = nn.functional.avg_pool2d(pixels.abs(), IG_CELL, ceil_mode=True) * IG_CELL**2
        cells = cells.masked_fill(~batch["present"][stream][..., None, None], torch.nan)
        maps += _by_view(network, "integrated_gradients", stream, "", cells, IG_CELL)
    return maps


def _levels(encoder: ViewEncoder) -> Sequence[Level]:
    """Return the stages of a MambaVision; other encoders have no stages that this module can read."""
    return encoder.network.backbone.levels if isinstance(encoder.network, SeqMoE) else ()


def _seqmoe_maps(network: Network, gates: dict) -> list[SpatialMap]:
    maps = []
    for stream, blocks in gates.items():
        encoder = network.model.encoders[stream]
        for block, values in blocks.items():
            if values.ndim < 4:  # one number per image has no place
                continue
            stage, _ = parse_gate_name(block)
            is_token = getattr(network.config.model.gate, "scope", "image") == "token"
            stride = encoder.strides[stage - 1] * (1 if is_token else _levels(encoder)[stage - 1].window)
            maps += _by_view(network, "gate", stream, block, values, stride)
    return maps


def _token_values(mixer: nn.Module, x: Tensor) -> tuple[str, Tensor | None]:
    """Return the kind of map that a mixer has and its value per token, (windows, tokens)."""
    if isinstance(mixer, GatedConvMixer):
        return "mixer_gate", mixer.token_gate(x).mean(dim=-1)
    return ("attention", attention_received(mixer, x)) if isinstance(mixer, Attention) else ("", None)


def _scattered(tokens: Tensor, window: int, stride: int, stream: str, batch: dict) -> Tensor:
    """Put the tokens of the views that exist where they belong: (batch, views, rows, columns)."""
    present = batch["present"][stream]
    sides = [math.ceil(n / stride) for n in batch["images"][stream].shape[-2:]]
    shape = torch.Size((int(present.sum()), 1, *sides))
    return scatter(from_windows(tokens[..., None], window, shape)[:, 0], present, torch.nan)


def _by_view(network: Network, kind: str, stream: str, block: str, values: Tensor, stride: int):
    arrays = values.float().cpu().numpy()
    return [
        SpatialMap(kind, stream, view, block, arrays[:, i], stride) for i, view in enumerate(network.config.model.views)
    ]


def _as_tensors(network: Network, batch: dict) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    streams = network.model.streams
    return tuple(batch["images"][s] for s in streams), tuple(batch["present"][s] for s in streams)


def _scorer(model: MammoMamba):
    """Return the log-odds of malignancy as a function of the streams' images, then of what is present."""

    def score(*tensors: Tensor) -> Tensor:
        images, present = tensors[: len(model.streams)], tensors[len(model.streams) :]
        named = [dict(zip(model.streams, group, strict=True)) for group in (images, present)]
        return log_odds(model({"images": named[0], "present": named[1]}).logits)

    return score
