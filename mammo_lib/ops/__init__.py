"""State-space operators: the selective scan and, for constant coefficients, its three classical forms."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "scan": ["backends", "selective_scan"],
        "ssm": ["ssm_convolve", "ssm_euler", "ssm_kernel", "ssm_recurrence", "ssm_zero_order_hold"],
    },
)
