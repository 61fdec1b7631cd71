"""Collections other than CBIS-DDSM, one file each, and detection of the collection in a folder."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adapter": ["About", "OtherCollection"],
        "cmmd": ["open_cmmd"],
        "detect": ["ADAPTERS", "open_other"],
    },
)
