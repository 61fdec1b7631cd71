"""Collections other than CBIS-DDSM, one file each."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"cmmd": ["open_cmmd"]})
