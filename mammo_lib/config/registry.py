"""Registries of encoders and targets. A registered name is valid in a config.

This module does not import torch: the builder of an encoder is named as ``module:function`` and imported when a network
is built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Backbone:
    """An encoder that a run may choose.

    ``build`` maps a run config to a :class:`mammo_lib.models.ViewEncoder`. ``stem`` and ``stages12`` name the modules
    that ``model.freeze`` refers to. ``has_weights``: the encoder always starts from pretrained weights of its own.
    ``is_mambavision``: it has MambaVision's settings (mixer, token blocks, gates, one-channel stem). Image sides must
    be multiples of ``patch``.
    """

    name: str
    build: str | Callable
    stem: tuple[str, ...] = ()
    stages12: tuple[str, ...] = ()
    has_weights: bool = False
    is_mambavision: bool = True
    patch: int = 1

    def builder(self) -> Callable:
        """Return the function that builds the encoder."""
        return self.build if callable(self.build) else import_named(self.build)


@dataclass(frozen=True)
class Target:
    """The target of a head: a ``column`` of the cohort, and the ``classes`` that its values number or name.

    ``lowest`` is the number of the first class, if the column holds numbers.
    """

    name: str
    column: str
    classes: tuple[str, ...]
    lowest: int = 0


def import_named(name: str) -> Callable:
    """Return the function that ``module:function`` names."""
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)


BACKBONES: dict[str, Backbone] = {}
TARGETS: dict[str, Target] = {}


def register_backbone(backbone: Backbone) -> None:
    """Make an encoder available under its name."""
    BACKBONES[backbone.name] = backbone


def register_target(target: Target) -> None:
    """Make a target available under its name."""
    TARGETS[target.name] = target


for _name in ("nano", "T", "T2", "S", "B", "L", "L2", "L3"):
    register_backbone(
        Backbone(_name, "mammo_lib.models.encoders:build_mambavision", ("patch_embed",), ("levels.0", "levels.1"))
    )
# MambaVision's stages 3 and 4 on the frozen ImageNet stages of EfficientNet-Lite0, 1 or 2: ours, see models/lite.py.
for _name in ("lite", "lite1", "lite2"):
    register_backbone(
        Backbone(_name, "mammo_lib.models.encoders:build_lite", (), ("patch_embed",), has_weights=True)
    )  # fmt: skip
_TIMM = "mammo_lib.models.encoders:build_timm"
for _name, _stem, _stages, _patch in (
    ("resnet50", ("conv1", "bn1"), ("layer1", "layer2"), 1),
    ("convnext_tiny", ("stem",), ("stages.0", "stages.1"), 1),
    ("swin_tiny_patch4_window7_224", ("patch_embed",), ("layers.0", "layers.1"), 1),
    # NOTE: ViT has no stages; Swin-T's first two hold 4 of 12 blocks, so 4 of 12 are frozen here too.
    ("vit_small_patch16_224", ("patch_embed",), tuple(f"blocks.{i}" for i in range(4)), 16),
):
    register_backbone(Backbone(_name, _TIMM, _stem, _stages, is_mambavision=False, patch=_patch))

register_target(Target("malignancy", "label", ("benign", "malignant")))
register_target(Target("lesion_type", "lesion_type", ("mass", "calcification")))
register_target(Target("shape", "shape", ("ROUND", "OVAL", "LOBULATED", "IRREGULAR", "ARCHITECTURAL_DISTORTION")))
register_target(
    Target("margins", "margins", ("CIRCUMSCRIBED", "OBSCURED", "MICROLOBULATED", "ILL_DEFINED", "SPICULATED"))
)
# The words that describe eight or more training breasts with calcifications alone.
_CALCIFICATIONS = (
    "VASCULAR", "COARSE", "DYSTROPHIC", "LUCENT_CENTER",
    "PUNCTATE", "AMORPHOUS", "PLEOMORPHIC", "FINE_LINEAR_BRANCHING",
)  # fmt: skip
register_target(Target("calc_type", "calc_type", _CALCIFICATIONS))
register_target(
    Target(
        "calc_distribution", "calc_distribution",
        ("DIFFUSELY_SCATTERED", "REGIONAL", "CLUSTERED", "LINEAR", "SEGMENTAL"),
    )
)  # fmt: skip
register_target(Target("subtlety", "subtlety", ("1", "2", "3", "4", "5"), lowest=1))
