"""timm's encoders in MambaVision's place: the same streams, views, fusion and head around another backbone.

A difference between two runs that share all but the backbone is then one between the encoders. Gates, mixers and token
blocks are MambaVision's; :class:`mammo_lib.config.ModelConfig` refuses them here.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import timm
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from .weights import list_differences, read_checkpoint


@dataclass(frozen=True)
class Parts:
    """What freezing means in another architecture: the modules of its stem, and of stages 1 and 2 of four."""

    stem: tuple[str, ...]
    stages12: tuple[str, ...]
    has_fixed_size: bool = False  # built for one image size, which is then data.image_size


PARTS = {
    "resnet50": Parts(("conv1", "bn1"), ("layer1", "layer2")),
    "convnext_tiny": Parts(("stem",), ("stages.0", "stages.1")),
    "swin_tiny_patch4_window7_224": Parts(("patch_embed",), ("layers.0", "layers.1"), has_fixed_size=True),
    # NOTE: it has no stages; Swin-T's first two hold 4 of 12 blocks, so 4 of 12 are frozen here too.
    "vit_small_patch16_224": Parts(("patch_embed",), tuple(f"blocks.{i}" for i in range(4)), has_fixed_size=True),
}


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
        """Mean per channel that timm's own weights were trained with: ImageNet's, 0.5 for ViT-S."""
        return self.backbone.pretrained_cfg["mean"]

    @property
    def std(self) -> tuple[float, float, float]:
        """Deviation per channel that timm's own weights were trained with."""
        return self.backbone.pretrained_cfg["std"]

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the pooled features (batch, num_features), and no gate."""
        return self.backbone(x), {}


def create_timm_encoder(
    name: str, image_size: int, *, drop_path: float = 0.0, weights: str | Path | None = None
) -> TimmEncoder:
    """Build an encoder of ``PARTS``, new or from a checkpoint in timm's layout.

    Raises
    ------
    InputError
        The checkpoint cannot be read or does not fit.
    """
    size = {"img_size": image_size} if PARTS[name].has_fixed_size else {}
    backbone = timm.create_model(name, num_classes=0, drop_path_rate=drop_path, **size)
    if weights:
        load_timm_checkpoint(backbone, weights)
    return TimmEncoder(backbone)


def load_timm_checkpoint(backbone: nn.Module, path: str | Path) -> None:
    """Load a checkpoint (``.safetensors`` or ``.pth``) strictly but for its classifier, in place.

    What was trained at another image size is resampled as timm does it: the position embedding of ViT, the tables of
    relative positions of Swin.

    Raises
    ------
    InputError
        The file cannot be read, or keys are missing, unexpected or of another shape: every one is listed.
    """
    name = backbone.pretrained_cfg["architecture"]
    if not Path(path).is_file():
        raise InputError(
            f"{path}: no such checkpoint; save {name}'s weights from timm there, or leave out model.weights"
        )
    # timm keeps beside every architecture what adapts older layouts and other sizes; ResNet needs nothing.
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
