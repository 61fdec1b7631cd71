"""Mammo-Mamba: two streams of two views, fused into one decision about a breast.

| code | meaning | shape |
|---|---|---|
| images[s] | views of stream s, grey, [0, 1] | (batch, views, 1, height, width) |
| present[s] | which views exist | (batch, views) |
| z_s | embedding of stream s | (batch, d_model) |
| g | stream gate | (batch, d_model) or (batch, 1) |

Streams have independent weights; the views of a stream share one encoder, and their embeddings are concatenated and
projected to z_s. The streams are fused by g = sigmoid(W [z_crop; z_whole] + b), z = g z_crop + (1 - g) z_whole.

NOTE: the paper names a fusion gate without a formula; this is ours, and ``fusion`` offers the alternatives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..config import RunConfig
from .baselines import PARTS, TimmEncoder, create_timm_encoder
from .lite import on_imagenet_stages
from .mambavision import VARIANTS, create_mambavision, mixer_kinds
from .seqmoe import SeqMoE
from .weights import IMAGENET_MEAN, IMAGENET_STD, find_checkpoint, fold_grey_stem, load_checkpoint

N_CLASSES = 2
Overrides = Mapping[str, Mapping[str, Tensor]]  # stream -> block -> gate values


@dataclass(frozen=True)
class MammoMambaOutput:
    """Everything a forward pass has to say.

    ``logits`` (batch, 2); ``embeddings`` {stream: (batch, views, features)}, zeros where a view is missing; ``gates``
    {stream: {block: (batch, views, ...)}}, NaN where a view is missing, the rest of the shape by gate scope (in
    training a stream of which the whole batch holds nothing has none);
    ``stream_gate``: the weight of the crop stream, (batch, d_model) or (batch, 1), None where nothing is gated;
    ``lesion_type_logits`` (batch, 2), mass and calcification, None without that head.
    """

    logits: Tensor
    embeddings: dict[str, Tensor]
    gates: dict[str, dict[str, Tensor]]
    stream_gate: Tensor | None
    lesion_type_logits: Tensor | None = None


def log_odds(logits: Float[Tensor, "batch 2"]) -> Float[Tensor, " batch"]:
    """Return the logit of malignancy from two class logits, in 32-bit floats."""
    return (logits[:, 1] - logits[:, 0]).float()


class MammoMamba(nn.Module):
    """Encoders, fusion and classifier; any non-empty subset of streams and views is a valid network."""

    def __init__(
        self, encoders: dict[str, ViewEncoder], n_views: int, d_model: int, fusion: str, *,
        view_fusion: str = "concat", has_lesion_type: bool = False, dropout: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        self.view_fusion = view_fusion
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
        self.classifier = build_head(width, d_model)
        self.lesion_type = build_head(width, d_model) if has_lesion_type else None

    def forward(self, batch: dict, overrides: Overrides | None = None) -> MammoMambaOutput:
        """Classify the breasts of a batch (its form: :mod:`mammo_lib.data.loader`).

        ``overrides`` puts given values in the place of gates: {stream: {block: (batch, views) or the form of
        ``MammoMambaOutput.gates``}}; what it does not name stays as it is.
        """
        embeddings, gates = {}, {}
        for stream in self.streams:
            forced = (overrides or {}).get(stream)
            embeddings[stream], gates[stream] = self.encoders[stream](
                batch["images"][stream], batch["present"][stream], forced
            )
        return self.decide(embeddings, batch["present"], gates)

    def decide(
        self, embeddings: Mapping[str, Tensor], present: Mapping[str, Tensor],
        gates: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> MammoMambaOutput:  # fmt: skip
        """Fuse and classify view embeddings, (batch, views, features) and (batch, views) by stream.

        ``gates`` only travel along into the output.
        """
        joined = {stream: self._join(embeddings[stream], present[stream]) for stream in self.streams}
        projected = [self.projections[stream](joined[stream]) for stream in self.streams]
        has_stream = torch.stack([present[stream].any(dim=1) for stream in self.streams], dim=1)
        z, stream_gate = self.fusion(torch.stack(projected, dim=1), has_stream)
        lesion_type = None if self.lesion_type is None else self.lesion_type(z)
        return MammoMambaOutput(self.classifier(z), dict(embeddings), dict(gates or {}), stream_gate, lesion_type)

    def _join(self, views: Float[Tensor, "batch views features"], present: Bool[Tensor, "batch views"]) -> Tensor:
        """Concatenate the views of a stream, or average those that are there."""
        if self.view_fusion == "concat":
            return views.flatten(1)
        return views.sum(dim=1) / present.sum(dim=1, keepdim=True).clamp(min=1)


class ViewEncoder(nn.Module):
    """One network for all views of a stream; only views that exist pass through it.

    ``frozen`` parts keep their weights, and their batch statistics stay as they are, also after ``.train()``.
    """

    def __init__(
        self, network: SeqMoE | TimmEncoder, *, is_folded: bool = False, frozen: tuple[str, ...] = (),
        mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD,
    ):  # fmt: skip
        super().__init__()
        self.network, self.is_folded = network, is_folded
        self.frozen = tuple(f"backbone.{name}" for name in frozen)
        for name in self.frozen:
            network.get_submodule(name).requires_grad_(False)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    @property
    def num_features(self) -> int:
        """Width of a view's embedding."""
        return self.network.num_features

    def train(self, mode: bool = True) -> ViewEncoder:
        """Switch to training, frozen parts excepted."""
        super().train(mode)
        for name in self.frozen:
            self.network.get_submodule(name).eval()
        return self

    def forward(
        self, images: Float[Tensor, "batch views 1 height width"], present: Bool[Tensor, "batch views"],
        overrides: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """Embed each view, (batch, views, features), and return its gates; ``overrides`` replaces gates, by block.

        A missing view is zeros, whatever its pixels hold, and stays out of the batch statistics.
        """
        # BatchNorm cannot learn from an empty batch; in evaluation it passes, and the gates keep their shapes.
        if self.training and not present.any():
            return images.new_zeros(*present.shape, self.num_features), {}
        seen = images[present]
        if not self.is_folded:
            seen = (seen - self.mean) / self.std  # the grey channel broadcasts to three
        forced = {name: values[present] for name, values in (overrides or {}).items()}
        embedded, gates = self.network(seen, forced) if forced else self.network(seen)
        return _scatter(embedded, present, 0.0), {
            name: _scatter(gate, present, torch.nan) for name, gate in gates.items()
        }


def _scatter(values: Tensor, present: Bool[Tensor, "batch views"], missing: float) -> Tensor:
    """Put one row per present view where it belongs in (batch, views, ...)."""
    return values.new_full((*present.shape, *values.shape[1:]), missing).index_put((present,), values)


class GateFusion(nn.Module):
    """z = g z_crop + (1 - g) z_whole with g = sigmoid(W [z_crop; z_whole] + b); a missing stream has weight 0."""

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
    """The mean over the streams that are there."""

    def forward(
        self, z: Float[Tensor, "batch streams dim"], present: Bool[Tensor, "batch streams"]
    ) -> tuple[Tensor, None]:
        """Return the fused embedding."""
        weight = present[..., None].to(z.dtype)
        return (z * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1), None


def build_head(width: int, hidden: int) -> nn.Module:
    """Return a small perceptron from a fused embedding to two logits."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, N_CLASSES))


def build_fusion(name: str, d_model: int) -> nn.Module:
    """Return the fusion of a name: gate, scalar_gate, concat or mean."""
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
    model = config.model
    encoders = {stream: _build_encoder(config) for stream in model.streams}
    d_model = next(iter(encoders.values())).num_features
    return MammoMamba(
        encoders, len(model.views), d_model, model.fusion, has_lesion_type=model.lesion_type_head,
        view_fusion=model.view_fusion, dropout=config.train.dropout,
    )  # fmt: skip


def without_weights(config: RunConfig) -> RunConfig:
    """Return the config of the same network, built without reading the checkpoint of ``model.weights``."""
    return config.model_copy(update={"model": config.model.model_copy(update={"weights": None})})


def count_parameters(config: RunConfig) -> int:
    """Return the number of parameters of a run's network; nothing is allocated and no checkpoint read."""
    with torch.device("meta"):
        network = build_model(without_weights(config))
    return sum(parameter.numel() for parameter in network.parameters())


def _build_encoder(config: RunConfig) -> ViewEncoder:
    return _build_timm(config) if config.model.backbone in PARTS else _build_mambavision(config)


def _build_timm(config: RunConfig) -> ViewEncoder:
    model = config.model
    network = create_timm_encoder(
        model.backbone,
        config.data.image_size,
        drop_path=config.train.drop_path,
        weights=model.weights and find_checkpoint(model.backbone, model.weights),
    )
    return ViewEncoder(network, frozen=frozen_parts(config), mean=network.mean, std=network.std)


def _build_mambavision(config: RunConfig) -> ViewEncoder:
    model = config.model
    backbone = create_mambavision(
        model.backbone, num_classes=0, drop_path=config.train.drop_path, mixer=model.mixer,
        token_blocks=model.token_blocks, window_sizes=fitting_windows(model.backbone, config.data.image_size),
    )  # fmt: skip
    if model.backbone == "lite":
        backbone = on_imagenet_stages(backbone)
    if model.weights:
        load_checkpoint(backbone, find_checkpoint(model.backbone, model.weights), new=_new_mixers(config))
    if model.stem == "fold":
        backbone = fold_grey_stem(backbone)
    stages = () if model.gate == "none" else tuple(int(stage) for stage in model.gate_stages.split("+"))
    network = SeqMoE(
        backbone, kind=model.gate, scope=model.gate_scope, bias=model.gate_bias, stages=stages,
        mixers_only=model.gate_blocks == "mixer",
    )  # fmt: skip
    return ViewEncoder(network, is_folded=model.stem == "fold", frozen=frozen_parts(config))


def _new_mixers(config: RunConfig) -> list[str]:
    """Name the token mixers that no checkpoint can hold, because the config puts another kind in their place."""
    model, names = config.model, []
    for stage, depth in enumerate(VARIANTS[model.backbone].depths[2:], start=2):
        official = mixer_kinds(depth, "selective", "hybrid")
        own = mixer_kinds(depth, model.mixer, model.token_blocks)
        differs = [one != other for one, other in zip(official, own, strict=True)]
        names += [f"levels.{stage}.blocks.{j}.mixer" for j in range(depth) if differs[j]]
    return names


def frozen_parts(config: RunConfig) -> tuple[str, ...]:
    """Return the parts of the backbone that a config freezes."""
    freeze = config.model.freeze
    if freeze == "auto":
        freeze = "stages12" if config.model.is_pretrained else "none"
    other = PARTS.get(config.model.backbone)
    stem, stages = (other.stem, other.stages12) if other else (("patch_embed",), ("levels.0", "levels.1"))
    if config.model.backbone == "lite":
        stem, stages = ("patch_embed.project",), ("patch_embed.features",)
    return {"none": (), "stages12": stages, "stages12_and_stem": (*stem, *stages)}[freeze]


def fitting_windows(backbone: str, image_size: int) -> tuple[int, ...]:
    """Return the variant's windows, no larger than the stage maps: padding would be scanned and attended to."""
    windows, strides = VARIANTS[backbone].windows, (4, 8, 16, 32)
    return tuple(min(w, -(-image_size // stride)) for w, stride in zip(windows, strides, strict=True))
