"""Networks: the MambaVision backbone, SeqMoE's gates, and Mammo-Mamba. None of them depends on the data sets.

Importing this package loads no network. It arranges that ``timm.create_model`` knows MambaVision once timm is imported.
"""

import lazy_loader

from ._timm_hook import register_with_timm

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "encoders": ["ViewEncoder"],
        "folding": ["fold_batch_norm", "for_inference"],
        "gated_conv": ["GatedConvMixer"],
        "mambavision": ["MambaVision", "create_mambavision"],
        "mammo_mamba": ["MammoMamba", "MammoMambaOutput", "build_model", "count_parameters", "log_odds"],
        "network": ["Network", "load_best"],
        "portable": ["export_backbone", "export_mammo_mamba"],
        "scoring": ["mean_log_odds", "score", "score_passes"],
        "seqmoe": ["SeqMoE"],
        "weights": ["fetch_weights", "fold_grey_stem", "load_checkpoint"],
    },
)

register_with_timm()
del register_with_timm
