"""Networks: the MambaVision backbone, SeqMoE's gates, and Mammo-Mamba. Nothing here knows where images come from."""

from .gated_conv import GatedConvMixer
from .mambavision import MambaVision, create_mambavision
from .mammo_mamba import MammoMamba, MammoMambaOutput, build_model, log_odds
from .seqmoe import SeqMoE
from .weights import fetch_weights, fold_grey_stem, load_checkpoint

__all__ = [
    "GatedConvMixer", "MambaVision", "MammoMamba", "MammoMambaOutput", "SeqMoE", "build_model", "create_mambavision",
    "fetch_weights", "fold_grey_stem", "load_checkpoint", "log_odds",
]  # fmt: skip
