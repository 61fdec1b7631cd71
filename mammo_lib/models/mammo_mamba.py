"""Mammo-Mamba: two streams of two views, fused into one decision about a breast.

| code | meaning | shape |
|---|---|---|
| images[s] | views of stream s, grey, [0, 1] | (batch, views, 1, height, width) |
| maps[s] | instead of images, if given: the output of the frozen first part | (batch, views, dim, rows, columns) |
| present[s] | which views exist | (batch, views) |
| z_s | embedding of stream s | (batch, d_model) |
| g | stream gate | (batch, d_model) or (batch, 1) |

Streams have independent weights; the views of a stream share one encoder, and their embeddings are concatenated and
projected to z_s. The streams are fused by g = sigmoid(W [z_crop; z_whole] + b), z = g z_crop + (1 - g) z_whole.

NOTE: the paper mentions a fusion gate without a formula; this one is ours, and ``fusion`` offers alternatives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..config import TARGETS, RunConfig

if TYPE_CHECKING:
    from .encoders import ViewEncoder

MALIGNANCY = "malignancy"  # the first target, and what a network is scored by
Overrides = Mapping[str, Mapping[str, Tensor]]  # stream -> block -> gate values


@dataclass(frozen=True)
class MammoMambaOutput:
    """The output of a forward pass.

    ``logits`` (batch, 2); ``embeddings`` {stream: (batch, views, features)}, zeros where a view is missing; ``gates``
    {stream: {block: (batch, views, ...)}}, NaN where a view is missing, the rest of the shape by gate scope (in
    training, a stream that is absent from the whole batch has none);
    ``stream_gate``: the weight of the crop stream, (batch, d_model) or (batch, 1), None without a gate;
    ``target_logits`` {target: (batch, classes)}, including malignancy.
    """

    logits: Tensor
    embeddings: dict[str, Tensor]
    gates: dict[str, dict[str, Tensor]]
    stream_gate: Tensor | None
    target_logits: dict[str, Tensor]


def log_odds(logits: Float[Tensor, "batch 2"]) -> Float[Tensor, " batch"]:
    """Return the logit of malignancy from two class logits, in 32-bit floats.

    >>> log_odds(torch.tensor([[1.0, 3.0]]))
    tensor([2.])
    """
    return logits[:, 1].float() - logits[:, 0].float()


class MammoMamba(nn.Module):
    """Encoders, fusion and classifier; any non-empty subset of streams and views is a valid network."""

    def __init__(
        self, encoders: dict[str, ViewEncoder], n_views: int, d_model: int, fusion: str, *,
        targets: Mapping[str, int] | None = None, view_fusion: str = "concat", dropout: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        self.view_fusion, self.n_views = view_fusion, n_views
        joined = n_views if view_fusion == "concat" else 1
        self.streams = tuple(sorted(encoders))
        self.encoders = nn.ModuleDict({stream: encoders[stream] for stream in self.streams})
        self.projections = nn.ModuleDict(
            {
                stream: nn.Sequential(
                    nn.Dropout(dropout), nn.Linear(joined * encoders[stream].num_features, d_model), nn.GELU()
                )
                for stream in self.streams
            }
        )
        self.fusion = build_fusion(fusion if len(self.streams) > 1 else "mean", d_model)
        width = d_model * 2 if isinstance(self.fusion, ConcatFusion) else d_model
        self.heads = nn.ModuleDict(
            {name: build_head(width, d_model, n) for name, n in (targets or {MALIGNANCY: 2}).items()}
        )

    def forward(self, batch: dict, overrides: Overrides | None = None) -> MammoMambaOutput:
        """Classify the breasts of a batch (its form: :mod:`mammo_lib.data.loader`).

        ``overrides`` replaces gates by given values: {stream: {block: (batch, views) or the form of
        ``MammoMambaOutput.gates``}}; other gates are unchanged.
        """
        are_maps = "maps" in batch
        check_batch(batch, self.streams, self.n_views)
        inputs, embeddings, gates = batch["maps" if are_maps else "images"], {}, {}
        for stream in self.streams:
            forced = (overrides or {}).get(stream)
            embeddings[stream], gates[stream] = self.encoders[stream](
                inputs[stream], batch["present"][stream], forced, are_maps=are_maps
            )
        return self.decide(embeddings, batch["present"], gates)

    def decide(
        self, embeddings: Mapping[str, Tensor], present: Mapping[str, Tensor],
        gates: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> MammoMambaOutput:  # fmt: skip
        """Fuse and classify view embeddings, (batch, views, features) and (batch, views) by stream.

        ``gates`` are passed on to the output.
        """
        joined = {stream: self._join(embeddings[stream], present[stream]) for stream in self.streams}
        projected = [self.projections[stream](joined[stream]) for stream in self.streams]
        has_stream = torch.stack([present[stream].any(dim=1) for stream in self.streams], dim=1)
        z, stream_gate = self.fusion(torch.stack(projected, dim=1), has_stream)
        logits = {name: head(z) for name, head in self.heads.items()}
        return MammoMambaOutput(logits[MALIGNANCY], dict(embeddings), dict(gates or {}), stream_gate, logits)

    def _join(self, views: Float[Tensor, "batch views features"], present: Bool[Tensor, "batch views"]) -> Tensor:
        """Concatenate the views of a stream, or average those that exist."""
        if self.view_fusion == "concat":
            return views.flatten(1)
        return views.sum(dim=1) / present.sum(dim=1, keepdim=True).clamp(min=1)


def check_batch(batch: dict, streams: Sequence[str], n_views: int) -> None:
    """Refuse a batch that the network cannot read, and say why.

    Raises
    ------
    ValueError
        A stream is missing, or images or ``present`` have the wrong form.
    """
    kind, dims = ("maps", "dim") if "maps" in batch else ("images", "1")
    for part in (kind, "present"):
        if part not in batch or not isinstance(batch[part], Mapping):
            raise ValueError(f"the batch must hold {part!r}, a tensor per stream, got {sorted(batch)}")
        if absent := [stream for stream in streams if stream not in batch[part]]:
            raise ValueError(f"the batch has no {part}[{absent[0]!r}]: this network reads {', '.join(streams)}")
    n = len(batch["present"][streams[0]])
    for stream in streams:
        images, present = batch[kind][stream], batch["present"][stream]
        shape = images.shape[:2] if kind == "maps" else images.shape[:3] if isinstance(images, Tensor) else ()
        if not isinstance(images, Tensor) or images.ndim != 5 or shape != (n, n_views, *(1,) * (len(shape) - 2)):
            expected = f"(batch={n}, views={n_views}, {dims}, height, width)"
            raise ValueError(f"{kind}[{stream!r}] must be {expected}, got {_form(images)}")
        if not isinstance(present, Tensor) or present.dtype != torch.bool or present.shape != (n, n_views):
            kind = f"{present.dtype} " if isinstance(present, Tensor) else ""
            raise ValueError(f"present[{stream!r}] must be torch.bool {(n, n_views)}, got {kind}{_form(present)}")


def _form(value: object) -> tuple[int, ...] | str:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


class GateFusion(nn.Module):
    """z = g z_crop + (1 - g) z_whole with g = sigmoid(W [z_crop; z_whole] + b); a missing stream has weight 0.

    At least one stream of each breast must be present. Without any, z is the embedding of an absent whole film.
    """

    def __init__(self, d_model: int, d_gate: int):
        super().__init__()
        self.gate = nn.Linear(2 * d_model, d_gate)

    def forward(self, z: Float[Tensor, "batch 2 dim"], present: Bool[Tensor, "batch 2"]) -> tuple[Tensor, Tensor]:
        """Return the fused embedding and the gate."""
        gate = torch.sigmoid(self.gate((z * present[..., None]).flatten(1)))
        has_crop, has_whole = present[:, :1], present[:, 1:]
        gate = torch.where(has_crop & has_whole, gate, has_crop.to(gate.dtype))
        return gate * z[:, 0] + (1 - gate) * z[:, 1], gate


class ConcatFusion(nn.Module):
    """z = [z_crop; z_whole], a missing stream zero."""

    def forward(self, z: Float[Tensor, "batch 2 dim"], present: Bool[Tensor, "batch 2"]) -> tuple[Tensor, None]:
        """Return the fused embedding."""
        return (z * present[..., None]).flatten(1), None


class MeanFusion(nn.Module):
    """The mean over the streams that are present."""

    def forward(
        self, z: Float[Tensor, "batch streams dim"], present: Bool[Tensor, "batch streams"]
    ) -> tuple[Tensor, None]:
        """Return the fused embedding."""
        weight = present[..., None].to(z.dtype)
        return (z * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1), None


def build_head(width: int, hidden: int, classes: int) -> nn.Module:
    """Return a small perceptron from a fused embedding to the logits of a target's classes."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, classes))


def build_fusion(name: str, d_model: int) -> nn.Module:
    """Return the fusion module with this name: gate, scalar_gate, concat or mean."""
    if name in ("gate", "scalar_gate"):
        return GateFusion(d_model, d_model if name == "gate" else 1)
    if name in ("concat", "mean"):
        return ConcatFusion() if name == "concat" else MeanFusion()
    raise ValueError(f"fusion must be one of gate, scalar_gate, concat, mean, got {name!r}")


def build_model(config: RunConfig) -> MammoMamba:
    """Build the network of a run config, with its weights loaded and its stages frozen as the config says.

    Raises
    ------
    InputError
        The checkpoint of ``model.weights`` cannot be read or does not fit the backbone.
    """
    model, build = config.model, config.model.encoder.builder()
    encoders = {stream: build(config) for stream in model.streams}
    d_model = next(iter(encoders.values())).num_features
    targets = {name: len(TARGETS[name].classes) for name in model.targets}
    return MammoMamba(
        encoders, len(model.views), d_model, model.fusion, targets=targets, view_fusion=model.view_fusion,
        dropout=config.train.dropout,
    )  # fmt: skip


def without_weights(config: RunConfig) -> RunConfig:
    """Return the config of the same network, built without reading the checkpoint of ``model.weights``."""
    return config.model_copy(update={"model": config.model.model_copy(update={"weights": None})})


def count_parameters(config: RunConfig) -> int:
    """Return the number of parameters of a run's network; nothing is allocated and no checkpoint read."""
    with torch.device("meta"):
        network = build_model(without_weights(config))
    return sum(parameter.numel() for parameter in network.parameters())
