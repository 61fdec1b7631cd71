"""Networks for inference: batch normalisation folded into the convolution before it."""

from __future__ import annotations

import copy
from itertools import pairwise

from torch import nn
from torch.nn.utils import fuse_conv_bn_eval


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
