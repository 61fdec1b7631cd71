"""Analysis of the gates and maps of a trained network, and tables of results made from run records."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["answers", "diagnostics", "limits", "official_split", "published", "tables", "wording"],
    submod_attrs={
        "gates": ["examine"],
        "maps": ["SpatialMap", "forward_maps", "grad_cam", "saliency_maps"],
    },
)
