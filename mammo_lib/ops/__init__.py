"""State-space operators: the selective scan and, for constant coefficients, its three classical forms."""

from .scan import backends, selective_scan
from .ssm import ssm_convolve, ssm_kernel, ssm_recurrence

__all__ = ["backends", "selective_scan", "ssm_convolve", "ssm_kernel", "ssm_recurrence"]
