"""Networks for inference: batch normalisation folded, weights channels last and, on request, in 16 bits."""

from __future__ import annotations

import copy
import functools
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from .encoders import ViewEncoder
from .mammo_mamba import MammoMamba


@torch.inference_mode(False)
def for_inference(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a copy for inference, which cannot be trained; in 32 bits its outputs agree up to rounding.

    Batch normalisation is folded (:func:`fold_batch_norm`), and weights of convolutions are stored channels last, as
    images should be. The copy takes images in 32 bits, whatever its weights.

    ``dtype=torch.bfloat16`` rounds the weights to 16 bits once, where autocast does so at each call. The first
    convolution, the classifier and, in a Mammo-Mamba, all that follows the encoders stay in 32 bits: a crop of low
    contrast has only a few grey values in 16 bits, and breasts with similar scores would share one. Scores still
    change by a few per cent, so compare them with those of the original on your own images. Very small networks do not
    gain speed, nor do processors that cannot multiply in bfloat16.

    Raises a ValueError for a type other than float32 and bfloat16.
    """
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"dtype must be torch.float32 or torch.bfloat16, got {dtype!r}")
    fast = _fold(copy.deepcopy(model).float()).requires_grad_(False)
    if dtype == torch.bfloat16:
        _narrow(fast, dtype)
    return fast.to(memory_format=torch.channels_last)


def _narrow(model: nn.Module, dtype: torch.dtype) -> None:
    """Round weights to ``dtype``, except those of the first and the last layers; cast what passes between the two."""
    encoders = [module for module in model.modules() if isinstance(module, ViewEncoder)] or [model]
    first = [next(module for module in one.modules() if isinstance(module, nn.Conv2d)) for one in encoders]
    if isinstance(model, MammoMamba):
        entries, last = [*model.projections.values()], [model.projections, model.fusion, model.heads]
    else:
        entries = last = [model.get_classifier()] if hasattr(model, "get_classifier") else []
    kept = {id(tensor) for module in (*first, *last) for tensor in (*module.parameters(), *module.buffers())}
    kept |= {id(tensor) for one in encoders for tensor in one.buffers(recurse=False)}  # mean and deviation of pixels
    for tensor in (*model.parameters(), *model.buffers()):
        if id(tensor) not in kept and tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
    for module in (*first, *entries):
        module.register_forward_pre_hook(_widen)
    for module in first:
        module.register_forward_hook(functools.partial(_round, dtype=dtype))


def _widen(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(one.float() for one in inputs)


def _round(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, *, dtype: torch.dtype) -> Tensor:
    return output.to(dtype)


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode whose convolutions contain the batch normalisation that follows them.

    With mean m, standard deviation s, scale g and shift c, ``g (W x + b - m) / s + c`` is a convolution by ``g W / s``
    with the bias ``g (b - m) / s + c``. Outputs agree up to rounding. A normalisation is taken to follow a convolution
    if it is the next child of the same module and has as many channels. This holds for MambaVision, EfficientNet-Lite
    and timm's convolutional networks. The copy cannot be trained further, and its ``state_dict`` is not a checkpoint of
    the original.
    """
    return _fold(copy.deepcopy(model))


def _fold(model: nn.Module) -> nn.Module:
    for module in model.eval().modules():
        for (first, conv), (second, norm) in pairwise([*module.named_children()]):
            follows = isinstance(conv, nn.Conv2d) and type(norm) is nn.BatchNorm2d  # a subclass may also activate
            if follows and conv.out_channels == norm.num_features:
                setattr(module, first, fuse_conv_bn_eval(conv, norm))
                setattr(module, second, nn.Identity())
    return model
