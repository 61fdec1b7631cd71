"""The Triton kernels outside the interpreter: they compile for real GPUs, and on one they agree with the reference."""

import os
import subprocess
import sys

import pytest
import torch

from mammo_lib.ops import selective_scan
from mammo_lib.ops.scan import reason_against

COMPILE = """
import warnings; warnings.simplefilter("ignore")
import mammo_lib, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mammo_lib.ops import scan_gpu
constants = {"BLOCK": scan_gpu.BLOCK, "STATE": 8, "CHUNK": scan_gpu.CHUNK, "KEEP": True}
pointers = "u step A B C D y last starts g g_last scratch du dstep dA dB dC dD".split()
for kernel in (scan_gpu._forward_kernel, scan_gpu._backward_kernel):
    kind = lambda n: "constexpr" if n in constants else "*fp32" if n in pointers else "i32"
    source = ASTSource(fn=kernel, signature={n: kind(n) for n in kernel.arg_names},
                       constexprs={n: v for n, v in constants.items() if n in kernel.arg_names})
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1})
    print(len(built.asm["cubin"]) > 0)
"""


@pytest.mark.skipif(reason_against("triton") is not None, reason=f"triton: {reason_against('triton')}")
def test_both_kernels_compile_to_machine_code_without_a_gpu(tmp_path):
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, env=env)
    assert done.stdout.split() == ["True", "True"], done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(8, 392, 196, 8), (3, 50, 77, 5)])
def test_parity_on_a_gpu(shape):
    batch, dim, length, N = shape
    torch.manual_seed(0)
    draw = {"u": (batch, dim, length), "delta": (batch, dim, length), "B": (batch, N, length), "C": (batch, N, length)}
    one = {name: torch.randn(size, dtype=torch.float64) for name, size in draw.items()}
    one |= {"A": -torch.rand(dim, N, dtype=torch.float64), "D": torch.randn(dim, dtype=torch.float64)}
    exact = {name: value.requires_grad_() for name, value in one.items()}
    ours = {name: value.detach().float().cuda().requires_grad_() for name, value in one.items()}
    expected = selective_scan(**exact, delta_softplus=True, backend="reference")
    out = selective_scan(**ours, delta_softplus=True, backend="triton")
    pairs = [(out, expected)]
    slopes = [torch.autograd.grad(y.square().sum(), list(x.values())) for y, x in ((out, ours), (expected, exact))]
    for found, wanted in pairs + list(zip(*slopes, strict=True)):
        assert ((found.double().cpu() - wanted).abs().max() / wanted.abs().max()).item() < 1e-4
