"""Networks for inference: batch normalisation folded, images channels last, and on request narrower weights."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

SCAN_COEFFICIENTS = ("A_log", "D")  # of the scan, which computes in 32-bit floats


def for_inference(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a copy that computes faster and cannot be trained; the outputs agree up to rounding.

    Batch normalisation is folded (:func:`fold_batch_norm`), and weights of convolutions are stored channels last, as
    their images should be. ``dtype=torch.bfloat16`` stores the weights in 16 bits once, where autocast converts them at
    each call; the images must have the same type. The scan keeps its coefficients, state and sums in 32-bit floats.
    bfloat16 is faster only on processors that multiply it (AVX-512 BF16, AMX) and on GPUs.

    Raises a ValueError for a type other than float32 and bfloat16.
    """
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"dtype must be torch.float32 or torch.bfloat16, got {dtype}")
    exact = {name: p for name, p in model.named_parameters() if name.rpartition(".")[2] in SCAN_COEFFICIENTS}
    fast = fold_batch_norm(model).requires_grad_(False).to(dtype=dtype, memory_format=torch.channels_last)
    for name, parameter in exact.items():
        fast.get_parameter(name).data = parameter.detach().to(torch.float32, copy=True)
    return fast


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode whose convolutions contain the batch normalisation that follows them.

    With mean m, standard deviation s, scale g and shift c, ``g (W x + b - m) / s + c`` is a convolution by ``g W / s``
    with the bias ``g (b - m) / s + c``. Outputs agree up to rounding. A normalisation is taken to follow a convolution
    if it is the next child of the same module and has as many channels. This holds for MambaVision, EfficientNet-Lite
    and timm's convolutional networks. The copy cannot be trained further, and its ``state_dict`` is not a checkpoint of
    the original.
    """
    folded = copy.deepcopy(model).eval()
    for module in folded.modules():
        for (first, conv), (second, norm) in pairwise([*module.named_children()]):
            follows = isinstance(conv, nn.Conv2d) and type(norm) is nn.BatchNorm2d  # a subclass may also activate
            if follows and conv.out_channels == norm.num_features:
                setattr(module, first, fuse_conv_bn_eval(conv, norm))
                setattr(module, second, nn.Identity())
    return folded
