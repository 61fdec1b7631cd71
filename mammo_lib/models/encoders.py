"""Encoders of views, and the builders of all registered backbones (:mod:`mammo_lib.config.registry`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..config import RunConfig
from ..config.checkpoints import find_checkpoint
from .lite import on_imagenet_stages
from .mambavision import VARIANTS, MambaVision, create_mambavision, mixer_kinds
from .seqmoe import SeqMoE
from .weights import IMAGENET_MEAN, IMAGENET_STD, fold_grey_stem, load_checkpoint

if TYPE_CHECKING:
    from .timm_encoders import TimmEncoder

STRIDES = (4, 8, 16, 32)


class ViewEncoder(nn.Module):
    """One network for all views of a stream; only existing views pass through it.

    ``frozen`` parts keep their weights and batch statistics even after ``.train()``. ``n_frozen`` is the number of
    steps, from the front of the network, without trainable weights. ``strides``: pixels per position of the four
    stages' maps; the third is also the stride of the frozen part's output.
    """

    def __init__(
        self, network: SeqMoE | TimmEncoder, *, is_folded: bool = False, frozen: tuple[str, ...] = (),
        mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD,
        strides: tuple[int, ...] = STRIDES,
    ):  # fmt: skip
        super().__init__()
        self.network, self.is_folded, self.strides = network, is_folded, strides
        self.frozen = tuple(f"backbone.{name}" for name in frozen)
        for name in self.frozen:
            network.get_submodule(name).requires_grad_(False)
        steps = getattr(network, "steps", [])  # a network without them cannot be entered midway
        learns = [any(p.requires_grad for p in step.parameters()) for step in steps]
        self.n_frozen = [*learns, True].index(True)
        # Not part of a checkpoint, so real values are needed even if the network is built on the meta device.
        self.register_buffer("mean", torch.tensor(mean, device="cpu").view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, device="cpu").view(3, 1, 1), persistent=False)

    @property
    def num_features(self) -> int:
        """Width of a view's embedding."""
        return self.network.num_features

    def first_part(self, images: Float[Tensor, "n 1 height width"]) -> Float[Tensor, "n dim rows columns"]:
        """Return the output of the frozen steps at the front for grey images in [0, 1]."""
        return self.network.first_steps(self._normalised(images), self.n_frozen)

    def train(self, mode: bool = True) -> ViewEncoder:
        """Switch to training mode, except for frozen parts."""
        super().train(mode)
        for name in self.frozen:
            self.network.get_submodule(name).eval()
        return self

    def forward(
        self, images: Float[Tensor, "batch views dim height width"], present: Bool[Tensor, "batch views"],
        overrides: Mapping[str, Tensor] | None = None, *, are_maps: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """Embed each view, (batch, views, features), and return its gates; ``overrides`` replaces gates, by block.

        The embedding of a missing view is zero, whatever its pixels, and the view does not enter the batch statistics.
        ``are_maps``: the images are outputs of :meth:`first_part`.
        """
        # BatchNorm cannot train on an empty batch; in evaluation an empty batch passes, and gates keep their shapes.
        if self.training and not present.any():
            return self._nothing(images.new_zeros(*present.shape, self.num_features)), {}
        seen = images[present] if are_maps else self._normalised(images[present])
        options = {"start": self.n_frozen} if are_maps else {}
        forced = {name: values[present] for name, values in (overrides or {}).items()}
        # The last stage of one small image has one number per channel, too few for batch statistics.
        is_small = max(seen.shape[-2:]) <= self.strides[-1] // (self.strides[2] if are_maps else 1)
        is_single = self.training and len(seen) == 1 and is_small
        with held_statistics(self) if is_single else nullcontext():
            embedded, gates = self.network(seen, forced, **options) if forced else self.network(seen, **options)
        return scatter(embedded, present, 0.0), {
            name: scatter(gate, present, torch.nan) for name, gate in gates.items()
        }

    def embed_all(
        self, images: Float[Tensor, "batch views 1 height width"], present: Bool[Tensor, "batch views"]
    ) -> Float[Tensor, "batch views features"]:
        """Return the embeddings of :meth:`forward` in evaluation, by a graph that does not depend on ``present``.

        Missing views pass through the network too, without effect: in evaluation no image influences another.
        """
        embedded, _ = self.network(self._normalised(images.flatten(0, 1)))
        return embedded.unflatten(0, images.shape[:2]).where(present[..., None], 0.0)

    def _normalised(self, images: Tensor) -> Tensor:
        """Give grey images the mean and deviation that the weights expect; the channel broadcasts to three."""
        return images if self.is_folded else (images - self.mean) / self.std

    def _nothing(self, zeros: Tensor) -> Tensor:
        """Return zeros that depend on every parameter: processes that share a run need a gradient, if only of 0."""
        return zeros + sum(parameter.sum() * 0 for parameter in self.parameters() if parameter.requires_grad)


def scatter(values: Tensor, present: Bool[Tensor, "batch views"], missing: float) -> Tensor:
    """Scatter one row per present view into (batch, views, ...)."""
    return values.new_full((*present.shape, *values.shape[1:]), missing).index_put((present,), values)


@contextmanager
def held_statistics(module: nn.Module) -> Iterator[None]:
    """Make the BatchNorms of a module use their running statistics, as in evaluation."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


def build_mambavision(config: RunConfig) -> ViewEncoder:
    """Build a MambaVision under SeqMoE's gates, with its weights and its frozen stages."""
    model = config.model
    new = _new_mixers(config) if model.weights else []
    with torch.device("meta") if model.weights and not new else nullcontext():  # the file has every weight: draw none
        backbone = _new_mambavision(config)
    if model.weights:
        load_checkpoint(backbone, find_checkpoint(model.backbone, model.weights), new=new)
    if model.stem == "fold":
        backbone = fold_grey_stem(backbone)
    return ViewEncoder(_gated(backbone, config), is_folded=model.stem == "fold", frozen=frozen_parts(config))


def build_lite(config: RunConfig) -> ViewEncoder:
    """Build MambaVision's stages 3 and 4 under SeqMoE's gates on an EfficientNet-Lite's frozen ImageNet stages."""
    model = config.model
    backbone = on_imagenet_stages(_new_mambavision(config), model.frozen_stride, model.backbone)
    return ViewEncoder(_gated(backbone, config), frozen=frozen_parts(config), strides=_strides(config))


def build_timm(config: RunConfig) -> ViewEncoder:
    """Build one of timm's networks."""
    from .timm_encoders import create_timm_encoder  # imports timm, which no other encoder needs

    model = config.model
    network = create_timm_encoder(
        model.backbone, config.data.image_size, drop_path=config.train.drop_path,
        weights=model.weights and find_checkpoint(model.backbone, model.weights),
    )  # fmt: skip
    frozen = frozen_parts(config)
    return ViewEncoder(network, frozen=frozen, mean=network.mean, std=network.std, strides=(4, 8, 8, 32))


def frozen_parts(config: RunConfig) -> tuple[str, ...]:
    """Return the modules of the backbone that a config freezes."""
    encoder = config.model.encoder
    parts = {"none": (), "stages12": encoder.stages12, "stages12_and_stem": (*encoder.stem, *encoder.stages12)}
    return parts[config.model.frozen_part]


def fitting_windows(backbone: str, image_size: tuple[int, int], strides: tuple[int, ...] = STRIDES) -> tuple[int, ...]:
    """Return the variant's windows, limited to a map's longer side, so that padding is not scanned or attended to.

    The shorter side of a map may be padded; a window of its size would cut the longer side into narrow strips.

    >>> fitting_windows("L", (96, 48))
    (8, 8, 6, 3)
    """
    windows = VARIANTS[backbone].windows
    return tuple(min(w, -(-max(image_size) // stride)) for w, stride in zip(windows, strides, strict=True))


def _strides(config: RunConfig) -> tuple[int, ...]:
    """Return the pixels per position of the four stages' maps."""
    third = config.model.frozen_stride if config.model.encoder.has_weights else STRIDES[2]
    return (*STRIDES[:2], third, 2 * third)


def _new_mambavision(config: RunConfig) -> MambaVision:
    model = config.model
    return create_mambavision(
        model.backbone, num_classes=0, drop_path=config.train.drop_path, mixer=model.mixer,
        token_blocks=model.token_blocks, mlp_ratio=model.mlp_ratio,
        window_sizes=fitting_windows(model.backbone, config.data.image_size, _strides(config)),
    )  # fmt: skip


def _gated(backbone: MambaVision, config: RunConfig) -> SeqMoE:
    gate = config.model.gate
    if gate.kind == "none":
        return SeqMoE(backbone, stages=())
    learned = gate.model_dump(include={"scope", "bias", "binary"})
    return SeqMoE(
        backbone, kind=gate.kind, stages=tuple(map(int, gate.stages.split("+"))), mixers_only=gate.blocks == "mixer",
        **learned,
    )  # fmt: skip


def _new_mixers(config: RunConfig) -> list[str]:
    """Name the token mixers that no checkpoint can contain, because the config replaces them by another kind."""
    model, names = config.model, []
    for stage, depth in enumerate(VARIANTS[model.backbone].depths[2:], start=2):
        official = mixer_kinds(depth, "selective", "hybrid")
        own = mixer_kinds(depth, model.mixer, model.token_blocks)
        differs = [one != other for one, other in zip(official, own, strict=True)]
        names += [f"levels.{stage}.blocks.{j}.mixer" for j in range(depth) if differs[j]]
    return names
