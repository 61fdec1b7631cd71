"""MambaVision among timm's networks: after ``import mammo_lib.models``, ``timm.create_model`` knows it.

``pretrained=True`` downloads the official weights from the Hugging Face hub (CC-BY-NC-SA-4.0). To use your own file
instead, pass ``pretrained_cfg_overlay={"file": path}``. timm adapts the weights to ``in_chans`` and ``num_classes``.

>>> import mammo_lib.models, timm
>>> network = timm.create_model("mambavision_tiny", features_only=True, in_chans=1)
>>> network.feature_info.channels(), network.feature_info.reduction()
([80, 160, 320, 640], [4, 8, 16, 32])
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from ..config.checkpoints import OFFICIAL
from ..files import read_json
from .mambavision import MambaVision, create_mambavision
from .weights import IMAGENET_MEAN, IMAGENET_STD, LICENCE_NOTICE, unwrapped

# Name, our variant, official checkpoint, side of the images, share of their side that evaluation crops.
NAMES = {
    "mambavision_tiny": ("T", "T", 224, 1.0),
    "mambavision_tiny2": ("T2", "T2", 224, 0.98),
    "mambavision_small": ("S", "S", 224, 0.93),
    "mambavision_base": ("B", "B", 224, 1.0),
    "mambavision_large": ("L", "L", 224, 1.0),
    "mambavision_large2": ("L2", "L2", 224, 1.0),
    "mambavision_large3": ("L3", "L3_256_21k", 256, 1.0),
}


def _config(checkpoint: str, side: int, crop_pct: float) -> dict:
    entry = read_json(OFFICIAL)[checkpoint]
    return {
        "hf_hub_id": entry["repository"], "hf_hub_filename": entry["file"], "license": entry["licence"].lower(),
        "num_classes": 1000, "input_size": (3, side, side), "crop_pct": crop_pct, "interpolation": "bicubic",
        "mean": IMAGENET_MEAN, "std": IMAGENET_STD, "first_conv": "patch_embed.conv_down.0", "classifier": "head",
    }  # fmt: skip


default_cfgs = generate_default_cfgs({name: _config(*how) for name, (_, *how) in NAMES.items()})


def _official(state: dict, _: MambaVision) -> dict[str, Tensor]:
    """Return a checkpoint under the official names."""
    return unwrapped(state)


def _build(variant: str, drop_path_rate: float | None = None, **numbers) -> MambaVision:
    return create_mambavision(variant, drop_path=drop_path_rate, **numbers)


def _entry_point(name: str) -> Callable[..., nn.Module]:
    """Return the function that ``timm.create_model`` calls for a name."""

    def create(pretrained: bool = False, **options) -> nn.Module:
        if pretrained:
            print(LICENCE_NOTICE)
        features = {"out_indices": (0, 1, 2, 3), "feature_cls": "getter"}
        build = partial(_build, NAMES[name][0])
        return build_model_with_cfg(
            build, name, pretrained, pretrained_filter_fn=_official, feature_cfg=features, **options
        )

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"Return MambaVision-{NAMES[name][0]}, or its stages with ``features_only=True``."
    return register_model(create)


globals().update({name: _entry_point(name) for name in NAMES})
