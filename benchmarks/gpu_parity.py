"""Run the GPU tests and record that they passed: `mammo_lib.ops.backends()` reads the record.

python benchmarks/gpu_parity.py        (on a machine with an NVIDIA GPU)
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent


def main():
    """Run ``pytest -m gpu`` and write ``gpu_parity.json``."""
    if not torch.cuda.is_available():
        sys.exit("no CUDA device here: nothing to record")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"]
    done = subprocess.run(command, cwd=HERE.parent, check=False)
    record = {
        "command": "python benchmarks/gpu_parity.py",
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "passed": done.returncode == 0,
    }
    (HERE / "gpu_parity.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
