"""Mammo-Mamba, reproduced: the thin library behind the notebooks.

Importing it has no visible effect. It installs an import hook that keeps torchvision
importable with a CPU build of torch, and sets a passive OpenMP wait policy.
"""

import os

from . import _torchvision_shim

# Idle OpenMP threads otherwise spin: with more threads than free cores, training gets 5 to 14 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

_torchvision_shim.install()
del _torchvision_shim

__version__ = "0.1.0"
