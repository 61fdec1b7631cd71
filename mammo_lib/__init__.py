"""Mammo-Mamba, reproduced: the thin library behind the notebooks.

Importing it does nothing visible. Its two acts are the import hook that keeps
torchvision importable beside a CPU build of torch, and a passive OpenMP wait policy.
"""

import os

from . import _torchvision_shim

# Idle OpenMP threads otherwise spin: with more threads than free cores, training gets 5 to 14 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

_torchvision_shim.install()
del _torchvision_shim

__version__ = "0.1.0"
