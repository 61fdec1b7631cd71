"""The exported network: which form of the scan is fastest in onnxruntime, and how the whole compares with PyTorch.

    pip install -c constraints.txt -e '.[export]' && OMP_NUM_THREADS=1 python benchmarks/export.py

Four forms of the scan in standard operators, each exported to ONNX separately, at the lengths of square maps, and the
compiled scan in PyTorch for comparison. Then the exported MambaVision-T, compared with itself in PyTorch.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from pathlib import Path

import mammo_lib  # noqa: F401  (first: OpenMP reads the wait policy that this sets when torch is imported)

# isort: split
import onnxruntime
import torch
from timing import paired_medians, record
from torch import nn
from torch._higher_order_ops.scan import scan
from torch.nn import functional

from mammo_lib.models import create_mambavision
from mammo_lib.models.portable import export_backbone, write_onnx
from mammo_lib.ops.scan import OPERATORS, scan_reference
from mammo_lib.ops.scan_chunked import scan_chunked

LENGTHS, CHANNELS, N = (49, 196, 784, 3136), 160, 8  # of windows of 7, 14, 28 and 56 tokens a side
BATCHED, BATCH = (49, 196), 8  # lengths at which a batch is timed as well
CHUNK = 8  # steps of a chunk of the closed form; longer ones need more products
REPEATS = 9


def time_loop(u, step, A, B, C, D):
    """The recurrence as it stands: one ONNX Scan over time."""

    def advance(h, x):
        s, su, b, c = x
        h = torch.exp(s[:, None] * A) * h + su[:, None] * b[..., None]
        return h, (c[:, None] @ h)[:, 0]

    A = A.T.contiguous()
    sequences = [x.permute(2, 0, 1) for x in (step, step * u, B[:, 0], C[:, 0])]
    _, y = scan(advance, u.new_zeros(len(u), *A.shape), sequences)
    return y.permute(1, 2, 0) + D[:, None] * u, None


def doubling(u, step, A, B, C, D):
    """The parallel form: log2 L passes over the whole sequence (Hillis and Steele 1986)."""
    a, h = torch.exp(step[:, :, None] * A[:, :, None]), (step * u)[:, :, None] * B
    reach = 1
    while reach < u.shape[-1]:
        h = torch.cat([h[..., :reach], a[..., reach:] * h[..., :-reach] + h[..., reach:]], dim=-1)
        a = torch.cat([a[..., :reach], a[..., reach:] * a[..., :-reach]], dim=-1)
        reach *= 2
    return (h * C).sum(2) + D[:, None] * u, None


def closed_form(u, step, A, B, C, D):
    """Chunks of ``CHUNK`` steps in closed form: decays between two steps from differences of cumulative sums."""
    n = math.ceil(u.shape[-1] / CHUNK)

    def cut(x):
        return functional.pad(x, (0, n * CHUNK - x.shape[-1])).unflatten(-1, (n, CHUNK))

    A = A[:, :, None, None]
    total = cut(step).cumsum(-1)[:, :, None]
    since = (total[..., :, None] - total[..., None, :]).tril()
    decay = torch.exp(since * A[..., None]).tril()
    h = (decay @ (cut(step * u)[:, :, None] * cut(B))[..., None])[..., 0]
    through = torch.exp(total * A)
    first, state = [], torch.zeros_like(h[..., 0, 0])
    for a, e in zip(through[..., -1].unbind(-1), h[..., -1].unbind(-1), strict=True):
        first.append(state)
        state = a * state + e
    h = h + through * torch.stack(first, dim=-1)[..., None]
    y = (h * cut(C)).sum(2).flatten(2)[..., : u.shape[-1]]
    return y + D[:, None] * u, None


FORMS = {"chunked": scan_chunked, "time_loop": time_loop, "doubling": doubling, "closed_form": closed_form}


class Alone(nn.Module):
    """One form of the scan as a network."""

    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, *inputs):
        """Return y."""
        return self.form(*inputs)[0]


def open_session(path) -> onnxruntime.InferenceSession:
    """Open an exported network on as many threads as PyTorch uses."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_session(session, tensors) -> torch.Tensor:
    """Run an exported network on tensors, in order."""
    feed = {one.name: tensor.numpy() for one, tensor in zip(session.get_inputs(), tensors, strict=True)}
    return torch.from_numpy(session.run(None, feed)[0])


def inputs(batch, length) -> list[torch.Tensor]:
    """Inputs after softplus, as every form takes them."""
    torch.manual_seed(0)
    maps = [torch.randn(batch, 1, N, length) for _ in range(2)]
    A = -torch.arange(1.0, N + 1).repeat(CHANNELS, 1)
    sequences = [torch.randn(batch, CHANNELS, length), 0.1 * torch.rand(batch, CHANNELS, length)]
    return [*sequences, A, *maps, torch.ones(CHANNELS)]


def compare_forms(batch: int, length: int, folder: Path) -> list[dict]:
    """Export every form at a length and time them in turn, in onnxruntime; return a row for each."""
    tensors, rows, sides = inputs(batch, length), [], {}
    exact = scan_reference(*(tensor.double() for tensor in tensors))[0]
    for name, form in FORMS.items():
        path, started = folder / f"{name}.onnx", time.perf_counter()
        program = torch.export.export(Alone(form), tuple(tensors))
        nodes = write_onnx(program, path)
        session = open_session(path)
        found = run_session(session, tensors)
        rows.append(
            {"scan": name, "batch": batch, "length": length, "nodes": nodes,
             "export_seconds": time.perf_counter() - started,
             "relative_error": ((found - exact).abs().max() / exact.abs().max()).item()}
        )  # fmt: skip
        sides[name] = lambda session=session: run_session(session, tensors)
    sides["compiled"] = lambda: OPERATORS["numba"](*tensors, False)
    seconds = paired_medians(sides, REPEATS)
    rows.append({"scan": "compiled", "batch": batch, "length": length})  # in PyTorch
    for row in rows:
        row["ms"] = 1e3 * seconds[row["scan"]]
        row["times_the_compiled_scan"] = seconds[row["scan"]] / seconds["compiled"]
    return rows


def exponent(rows: list[dict], name: str) -> float:
    """Return the slope of log time over log length, at batch 1."""
    own = [row for row in rows if (row["scan"], row["batch"]) == (name, 1)]
    points = [(math.log(row["length"]), math.log(row["ms"])) for row in own]
    x, y = torch.tensor(points).T
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def compare_networks(folder: Path) -> list[dict]:
    """Time MambaVision-T exported and in PyTorch, in turn, at batch 1 and 8."""
    torch.manual_seed(0)
    network = create_mambavision("T").eval()
    session, rows = open_session(export_backbone(network, folder / "T.onnx")), []
    for batch in (1, 8):
        images = torch.randn(batch, 3, 224, 224)
        with torch.inference_mode():
            ours, theirs = network(images), run_session(session, [images])
            calls = {"pytorch": lambda images=images: network(images),
                     "onnxruntime": lambda images=images: run_session(session, [images])}  # fmt: skip
            seconds = paired_medians(calls, REPEATS)
        rows.append(
            {"network": "T, 224 px", "batch": batch, **{f"{name}_ms": 1e3 * value for name, value in seconds.items()},
             "onnxruntime_speed_over_pytorch": seconds["pytorch"] / seconds["onnxruntime"],
             "relative_difference": ((ours - theirs).abs().max() / ours.abs().max()).item()}
        )  # fmt: skip
    return rows


def main():
    """Measure everything and record it, with the number of other processes that wanted a core in the minute before."""
    other_processes = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as home:
        shapes = [*((1, length) for length in LENGTHS), *((BATCH, length) for length in BATCHED)]
        scans = [row for shape in shapes for row in compare_forms(*shape, Path(home))]
        networks = compare_networks(Path(home))
    summary = {"other_processes": other_processes} | {
        f"exponent_of_time_in_length_{name}": exponent(scans, name) for name in (*FORMS, "compiled")
    }
    for row in networks:
        summary[f"T_onnxruntime_speed_over_pytorch_batch_{row['batch']}"] = row["onnxruntime_speed_over_pytorch"]
    record("export", [*scans, *networks], summary)


if __name__ == "__main__":
    main()
