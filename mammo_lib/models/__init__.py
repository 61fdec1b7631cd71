"""Networks: the MambaVision backbone and Mammo-Mamba on top of it. Nothing here knows where images come from."""

from .mambavision import MambaVision, create_mambavision
from .mammo_mamba import MammoMamba, MammoMambaOutput, build_model

__all__ = ["MambaVision", "MammoMamba", "MammoMambaOutput", "build_model", "create_mambavision"]
