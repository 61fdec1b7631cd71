"""timm's encoders instead of MambaVision: the same streams, views, fusion and head with another backbone.

If two runs differ only in the backbone, a difference in their results is due to the encoders. Gates, mixers and token
blocks belong to MambaVision; :class:`mammo_lib.config.ModelConfig` refuses them here.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import timm
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from .weights import list_differences, read_checkpoint

CHAINS = (  # the modules that a network calls one after another: ResNet, ConvNeXt, Swin
    ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4"),
    ("stem", "stages", "norm_pre"),
    ("patch_embed", "layers", "norm"),
)
HAVE_A_FIXED_SIZE = ("swin_tiny_patch4_window7_224", "vit_small_patch16_224")  # built for one image size


class TimmEncoder(nn.Module):
    """A timm network without its classifier, with the interface of :class:`mammo_lib.models.SeqMoE` and no gates."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    @property
    def num_features(self) -> int:
        """Width of the pooled features."""
        return self.backbone.num_features

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean per channel used in training timm's weights: ImageNet's, 0.5 for ViT-S."""
        return self.backbone.pretrained_cfg["mean"]

    @property
    def std(self) -> tuple[float, float, float]:
        """Standard deviation per channel used in training timm's weights."""
        return self.backbone.pretrained_cfg["std"]

    @property
    def steps(self) -> list[nn.Module]:
        """The network's modules in order, stages one by one; none if its forward is not just a chain of them (ViT)."""
        for names in CHAINS:
            if all(hasattr(self.backbone, name) for name in names):
                parts = [getattr(self.backbone, name) for name in names]
                return [step for part, name in zip(parts, names, strict=True)
                        for step in (part if name in ("stages", "layers") else [part])]  # fmt: skip
        return []

    def first_steps(self, x: Float[Tensor, "batch 3 height width"], n: int) -> Tensor:
        """Return the output of the first ``n`` of ``steps``."""
        for step in self.steps[:n]:
            x = step(x)
        return x

    def forward(
        self, x: Float[Tensor, "batch ..."], overrides: Mapping[str, Tensor] | None = None, *, start: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the pooled features (batch, num_features), and no gates.

        ``x`` contains images or, with ``start``, the output of :meth:`first_steps`.
        """
        if not start:
            return self.backbone(x), {}
        for step in self.steps[start:]:
            x = step(x)
        return self.backbone.forward_head(x), {}


def create_timm_encoder(
    name: str, image_size: tuple[int, int], *, drop_path: float = 0.0, weights: str | Path | None = None
) -> TimmEncoder:
    """Build an encoder for images of (height, width), new or from a checkpoint in timm's layout.

    Raises
    ------
    InputError
        The checkpoint cannot be read or does not fit.
    """
    size = {"img_size": image_size} if name in HAVE_A_FIXED_SIZE else {}
    backbone = timm.create_model(name, num_classes=0, drop_path_rate=drop_path, **size)
    if weights:
        load_timm_checkpoint(backbone, weights)
    return TimmEncoder(backbone)


def load_timm_checkpoint(backbone: nn.Module, path: str | Path) -> None:
    """Load a checkpoint (``.safetensors`` or ``.pth``) strictly except for its classifier, in place.

    Parameters that depend on the image size are resampled as in timm: the position embedding of ViT, the tables of
    relative positions of Swin.

    Raises
    ------
    InputError
        The file cannot be read, or keys are missing, unexpected or of another shape: the first few are named.
    """
    name = backbone.pretrained_cfg["architecture"]
    if not Path(path).is_file():
        raise InputError(
            f"{path}: no such checkpoint; save {name}'s weights from timm there, or leave out model.weights"
        )
    # timm has, for every architecture, a function that adapts older layouts and other sizes; ResNet needs none.
    adapt = getattr(import_module(type(backbone).__module__), "checkpoint_filter_fn", lambda state, _: state)
    held = read_checkpoint(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about the speed and style of timm's own resampling
            state = adapt(held, backbone)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:  # of another network
        raise InputError(f"{path}: not a checkpoint of {name} ({error})") from None
    classifier = f"{backbone.pretrained_cfg['classifier']}."
    state = {key: value for key, value in state.items() if not key.startswith(classifier)}
    if differences := list_differences(backbone.state_dict(), state):
        raise InputError(f"{path}: does not fit {name}: {'; '.join(differences)}")
    backbone.load_state_dict(state)
