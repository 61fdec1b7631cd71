"""Encoders of views: what each registered backbone (:mod:`mammo_lib.config.registry`) is built by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..config import RunConfig
from .lite import on_imagenet_stages
from .mambavision import VARIANTS, MambaVision, create_mambavision, mixer_kinds
from .seqmoe import SeqMoE
from .timm_encoders import TimmEncoder, create_timm_encoder
from .weights import IMAGENET_MEAN, IMAGENET_STD, find_checkpoint, fold_grey_stem, load_checkpoint

STRIDES = (4, 8, 16, 32)


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
            return self._nothing(images.new_zeros(*present.shape, self.num_features)), {}
        seen = images[present]
        if not self.is_folded:
            seen = (seen - self.mean) / self.std  # the grey channel broadcasts to three
        forced = {name: values[present] for name, values in (overrides or {}).items()}
        # The last stage of one small image holds one number per channel, of which there are no batch statistics.
        is_single = self.training and len(seen) == 1 and max(seen.shape[-2:]) <= STRIDES[-1]
        with held_statistics(self) if is_single else nullcontext():
            embedded, gates = self.network(seen, forced) if forced else self.network(seen)
        return scatter(embedded, present, 0.0), {
            name: scatter(gate, present, torch.nan) for name, gate in gates.items()
        }

    def _nothing(self, zeros: Tensor) -> Tensor:
        """Return zeros that depend on every parameter, with gradient 0: processes that share a run all need one."""
        return zeros + sum(parameter.sum() * 0 for parameter in self.parameters() if parameter.requires_grad)


def scatter(values: Tensor, present: Bool[Tensor, "batch views"], missing: float) -> Tensor:
    """Put one row per present view where it belongs in (batch, views, ...)."""
    return values.new_full((*present.shape, *values.shape[1:]), missing).index_put((present,), values)


@contextmanager
def held_statistics(module: nn.Module) -> Iterator[None]:
    """Let the BatchNorms of a module normalise by their running statistics, as in evaluation."""
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
    model, backbone = config.model, _new_mambavision(config)
    if model.weights:
        load_checkpoint(backbone, find_checkpoint(model.backbone, model.weights), new=_new_mixers(config))
    if model.stem == "fold":
        backbone = fold_grey_stem(backbone)
    return ViewEncoder(_gated(backbone, config), is_folded=model.stem == "fold", frozen=frozen_parts(config))


def build_lite(config: RunConfig) -> ViewEncoder:
    """Build MambaVision's stages 3 and 4 under SeqMoE's gates on EfficientNet-Lite0's frozen ImageNet stages."""
    return ViewEncoder(_gated(on_imagenet_stages(_new_mambavision(config)), config), frozen=frozen_parts(config))


def build_timm(config: RunConfig) -> ViewEncoder:
    """Build one of timm's networks."""
    model = config.model
    network = create_timm_encoder(
        model.backbone, config.data.image_size, drop_path=config.train.drop_path,
        weights=model.weights and find_checkpoint(model.backbone, model.weights),
    )  # fmt: skip
    return ViewEncoder(network, frozen=frozen_parts(config), mean=network.mean, std=network.std)


def frozen_parts(config: RunConfig) -> tuple[str, ...]:
    """Return the modules of the backbone that a config freezes."""
    encoder = config.model.encoder
    parts = {"none": (), "stages12": encoder.stages12, "stages12_and_stem": (*encoder.stem, *encoder.stages12)}
    return parts[config.model.frozen_part]


def fitting_windows(backbone: str, image_size: tuple[int, int]) -> tuple[int, ...]:
    """Return the variant's windows, no larger than a map's longer side: padding would be scanned and attended to.

    The shorter side of a map may be padded; a window of its size would cut the longer side into narrow strips.

    >>> fitting_windows("L", (96, 48))
    (8, 8, 6, 3)
    """
    windows = VARIANTS[backbone].windows
    return tuple(min(w, -(-max(image_size) // stride)) for w, stride in zip(windows, STRIDES, strict=True))


def _new_mambavision(config: RunConfig) -> MambaVision:
    model = config.model
    return create_mambavision(
        model.backbone, num_classes=0, drop_path=config.train.drop_path, mixer=model.mixer,
        token_blocks=model.token_blocks, window_sizes=fitting_windows(model.backbone, config.data.image_size),
    )  # fmt: skip


def _gated(backbone: MambaVision, config: RunConfig) -> SeqMoE:
    gate = config.model.gate
    if gate.kind == "none":
        return SeqMoE(backbone, stages=())
    learned = {"scope": gate.scope, "bias": gate.bias} if gate.kind == "learned" else {}
    return SeqMoE(
        backbone, kind=gate.kind, stages=tuple(map(int, gate.stages.split("+"))), mixers_only=gate.blocks == "mixer",
        **learned,
    )  # fmt: skip


def _new_mixers(config: RunConfig) -> list[str]:
    """Name the token mixers that no checkpoint can hold, because the config puts another kind in their place."""
    model, names = config.model, []
    for stage, depth in enumerate(VARIANTS[model.backbone].depths[2:], start=2):
        official = mixer_kinds(depth, "selective", "hybrid")
        own = mixer_kinds(depth, model.mixer, model.token_blocks)
        differs = [one != other for one, other in zip(official, own, strict=True)]
        names += [f"levels.{stage}.blocks.{j}.mixer" for j in range(depth) if differs[j]]
    return names
