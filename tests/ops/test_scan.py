"""The selective scan: the reference against the equation, every backend against the reference, and refused inputs."""

import functools
import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mammo_lib.ops import backends, scan, scan_cpu, selective_scan
from mammo_lib.ops.scan import reason_against

# Largest error over largest value, against the reference in float64.
BOUNDS = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}
GRADIENT_BOUNDS = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}
SEQUENCES = ("u", "delta", "z", "B", "C")

# On a GPU Triton compiles, and takes no tensors of the CPU: test_scan_gpu.py is for that.
NO_TRITON = "no interpreter beside a GPU" if torch.cuda.is_available() else reason_against("triton")
needs_triton = pytest.mark.skipif(NO_TRITON is not None, reason=f"triton: {NO_TRITON}")
FAST = ["numba", pytest.param("triton", marks=needs_triton)]
OTHERS = ["chunked", *FAST]
ALL = ["reference", *OTHERS]
SHAPES = {"one step": (1, 5, 1, 3), "chunks": (1, 20, 35, 8), "odd": (3, 7, 18, 5)}


def inputs(batch=2, dim=4, length=5, state=3, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = functools.partial(torch.randn, generator=g, dtype=torch.float64)
    one = {
        "u": draw(batch, dim, length), "delta": draw(batch, dim, length), "A": -draw(dim, state).exp(),
        "B": draw(batch, state, length), "C": draw(batch, state, length), "D": draw(dim), "z": draw(batch, dim, length),
        "delta_bias": draw(dim),
    }  # fmt: skip
    return {name: value.to(dtype) for name, value in one.items()} | {"delta_softplus": True}


def tensors_of(one):
    return {name: value for name, value in one.items() if isinstance(value, torch.Tensor)}


def with_gradients(one):
    return {name: v.detach().requires_grad_() if isinstance(v, torch.Tensor) else v for name, v in one.items()}


def gradients(one, **options):
    """Return the gradients of a loss on the output and on the last state."""
    one = with_gradients(one)
    out, last = selective_scan(**one, **options, return_last_state=True)
    loss = (out.double() * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum() + last.double().sum()
    leaves = tensors_of(one)
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def error(ours, theirs):
    scale = theirs.double().abs().max()
    return ((ours.double() - theirs.double()).abs().max() / scale.clamp(min=1e-30)).item() if theirs.numel() else 0.0


def by_the_equation(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    """One scalar at a time."""
    out = torch.zeros_like(u)
    for b in range(u.shape[0]):
        for d in range(u.shape[1]):
            h = torch.zeros(A.shape[1], dtype=u.dtype)
            for t in range(u.shape[2]):
                step = functional.softplus(delta[b, d, t] + delta_bias[d])
                h = torch.exp(step * A[d]) * h + step * B[b, :, t] * u[b, d, t]
                out[b, d, t] = (C[b, :, t] @ h + D[d] * u[b, d, t]) * functional.silu(z[b, d, t])
    return out


@pytest.mark.parametrize("backend", ALL)
def test_every_backend_is_the_equation(backend):
    one = inputs()
    assert error(selective_scan(**one, backend=backend), by_the_equation(**one)) < 1e-12


def test_the_references_gradients_are_right():
    one = with_gradients(inputs(1, 2, 3, 2))
    leaves = tensors_of(one)

    def scan(*values):
        return selective_scan(**dict(zip(leaves, values, strict=True)), delta_softplus=True, backend="reference")

    assert torch.autograd.gradcheck(scan, list(leaves.values()))


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_forward_and_state_equal_the_reference(backend, dtype, shape):
    one = inputs(*shape)
    low = {k: v.to(dtype) if k in SEQUENCES else v.to(dtype if dtype == torch.float64 else torch.float32)
           if isinstance(v, torch.Tensor) else v for k, v in one.items()}  # fmt: skip
    exact = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in low.items()}
    out, last = selective_scan(**low, backend=backend, return_last_state=True)
    expected, last_expected = selective_scan(**exact, backend="reference", return_last_state=True)
    assert out.dtype == dtype
    assert last.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert error(out, expected) < BOUNDS[dtype]
    assert error(last, last_expected) < BOUNDS[torch.float32 if dtype != torch.float64 else dtype]


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_gradients_equal_the_reference(backend, dtype, shape):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    one = inputs(*shape)
    low = {k: v.to(dtype if k in SEQUENCES else wide) if isinstance(v, torch.Tensor) else v for k, v in one.items()}
    exact = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in low.items()}
    ours, theirs = gradients(low, backend=backend), gradients(exact, backend="reference")
    for name, value in theirs.items():
        assert ours[name].dtype == low[name].dtype
        assert error(ours[name], value) < GRADIENT_BOUNDS[dtype], name


@pytest.mark.parametrize("backend", ALL)
def test_all_forms_of_B_and_C(backend):
    one = inputs(dim=6)
    plain = selective_scan(**one, backend="reference")
    for name in ("B", "C"):
        for groups in (1, 2, 3):
            grouped = one | {name: one[name][:, None].expand(-1, groups, -1, -1)}
            assert error(selective_scan(**grouped, backend=backend), plain) < 1e-12
    g = torch.Generator().manual_seed(1)
    different = one | {"B": torch.randn(2, 2, 3, 5, generator=g, dtype=torch.float64)}
    assert error(selective_scan(**different, backend=backend), selective_scan(**different, backend="reference")) < 1e-12
    constant = one | {name: torch.randn(6, 3, generator=g, dtype=torch.float64) for name in ("B", "C")}
    ours, theirs = gradients(constant, backend=backend), gradients(constant, backend="reference")
    assert all(error(ours[name], theirs[name]) < 1e-11 for name in theirs)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("absent", ["D", "z", "delta_bias"])
def test_optional_inputs_can_be_left_out(backend, absent):
    one = inputs() | {absent: None}
    expected = selective_scan(**one, backend="reference")
    assert error(selective_scan(**one, backend=backend), expected) < 1e-12
    unsoftened = one | {"delta_softplus": False, "delta": one["delta"].abs()}
    expected = selective_scan(**unsoftened, backend="reference")
    assert error(selective_scan(**unsoftened, backend=backend), expected) < 1e-12


@pytest.mark.parametrize("backend", ALL)
def test_any_strides_and_inputs_untouched(backend):
    one = inputs(length=33)
    expected, slopes = selective_scan(**one, backend=backend), gradients(one, backend=backend)
    strided = {k: v.transpose(-1, -2).contiguous().transpose(-1, -2) if k in SEQUENCES else v for k, v in one.items()}
    strided["u"] = torch.stack([strided["u"], strided["u"]], dim=-1)[..., 0]  # no unit stride at all
    before = {k: v.clone() for k, v in tensors_of(strided).items()}
    assert error(selective_scan(**strided, backend=backend), expected) < 1e-12
    again = gradients(strided, backend=backend)
    assert all(error(again[name], slopes[name]) < 1e-11 for name in slopes)
    assert all(torch.equal(strided[k], v) for k, v in before.items())


@pytest.mark.parametrize("length", [7, 8, 49])
@pytest.mark.parametrize("dim", [7, 8, 11, 16, 20])
def test_the_order_in_memory_does_not_change_a_bit(dim, length):
    """Tiles are loaded in blocks, as rows or one by one, whichever the strides and the sizes allow."""
    orders = {
        "time": lambda t: t,
        "channels": lambda t: t.transpose(-1, -2).contiguous().transpose(-1, -2),
        "neither": lambda t: torch.stack([t, t], dim=-1)[..., 0],
    }
    one = inputs(dim=dim, length=length, dtype=torch.float32)
    A, D, step = one["A"], one["D"], one["delta"].exp()
    found = []
    for order in orders.values():
        u, moved_step, g, B, C = (order(value) for value in (one["u"], step, one["z"], one["B"], one["C"]))
        inner = (u, moved_step, A, B[:, None], C[:, None], D)
        y, last, starts = scan_cpu.scan_forward(*inner, keep=True)
        found.append([y, last, starts, *scan_cpu.scan_backward(g, last, *inner, starts)])
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("delta", [0.0, 1e4, -1e4])
def test_extreme_steps_stay_finite(backend, delta):
    one = inputs(batch=1, dtype=torch.float32, length=33)  # a chunk and a step
    one["delta"] = torch.full_like(one["delta"], delta)
    assert selective_scan(**one, backend=backend).isfinite().all()
    assert all(value.isfinite().all() for value in gradients(one, backend=backend).values())


@pytest.mark.parametrize("backend", ALL)
def test_a_long_memory_is_kept(backend):
    """A = -1e-6 over 500 steps; beside it A = -50, where dividing by cumulative decays would overflow."""
    one = inputs(1, 2, 500, 1, dtype=torch.float32) | {"z": None}
    one["A"] = torch.tensor([[-1e-6], [-50.0]])
    exact = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in one.items()}
    assert error(selective_scan(**one, backend=backend), selective_scan(**exact, backend="reference")) < 1e-4


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize(("batch", "length"), [(2, 1), (0, 5), (2, 0)])
def test_short_and_empty(backend, batch, length):
    one = inputs(batch=batch, length=length)
    out, last = selective_scan(**one, backend=backend, return_last_state=True)
    assert out.shape == (batch, 4, length)
    assert last.shape == (batch, 4, 3)
    if length:
        assert all(value.isfinite().all() for value in gradients(one, backend=backend).values())
    else:
        assert (last == 0).all()  # no step was taken


@pytest.mark.parametrize("empty", [{"dim": 0}, {"state": 0}])
@pytest.mark.parametrize("backend", ALL)
def test_no_channel_or_no_state_is_refused(backend, empty):
    with pytest.raises(ValueError, match="at least one channel and one state, got dim="):
        selective_scan(**inputs(**empty), backend=backend)


def test_a_batch_is_one_by_one_whatever_the_number_of_threads():
    one = inputs(5, 48, 64, 8, dtype=torch.float32)
    together, threads = selective_scan(**one, backend="numba"), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(selective_scan(**one, backend="numba"), together)
        wide = gradients(inputs(1, 80, 640, 8, dtype=torch.float32), backend="numba")
        torch.set_num_threads(1)
        narrow = gradients(inputs(1, 80, 640, 8, dtype=torch.float32), backend="numba")
    finally:
        torch.set_num_threads(threads)
    assert all(error(wide[name], narrow[name]) < 1e-5 for name in wide)
    for b in range(5):
        alone = {k: v[b : b + 1] if k in SEQUENCES else v for k, v in one.items()}
        torch.testing.assert_close(selective_scan(**alone, backend="numba"), together[b : b + 1])


def small_scan(u, delta, A, B, C):
    return selective_scan(u, delta, A, B, C, delta_softplus=True).square().sum()


def small_arguments():
    one = inputs(dtype=torch.float32, length=40)
    return [one[name].requires_grad_() for name in ("u", "delta", "A", "B", "C")]


def test_torch_compile_goes_through_it():
    scan._probe.cache_clear()  # as in a process that compiles before its first scan
    arguments = small_arguments()
    compiled = torch.compile(small_scan, backend="aot_eager", fullgraph=True)
    found = torch.autograd.grad(compiled(*arguments), arguments)
    expected = torch.autograd.grad(small_scan(*arguments), arguments)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_torch_export_goes_through_it():
    class Scan(torch.nn.Module):
        def forward(self, u, delta, A, B, C):
            return selective_scan(u, delta, A, B, C)

    arguments = tuple(value.detach() for value in small_arguments())
    program = torch.export.export(Scan(), arguments)
    assert any("mammo.scan_cpu" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(*arguments), Scan()(*arguments))


def test_activation_checkpointing_goes_through_it():
    arguments = small_arguments()
    expected = torch.autograd.grad(small_scan(*arguments), arguments)
    again = torch.autograd.grad(checkpoint(small_scan, *arguments, use_reentrant=False), arguments)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(again, expected, strict=True))


def test_the_operator_keeps_torchs_rules():
    u, delta, A, B, C = (value.double() for value in small_arguments())
    selective_scan(u, delta, A, B, C)  # registers the operator
    arguments = (u, delta, A, B[:, None], C[:, None], torch.zeros(4, dtype=torch.float64), True)
    torch.library.opcheck(torch.ops.mammo.scan_cpu.default, tuple(
        v.detach().requires_grad_() if isinstance(v, torch.Tensor) else v for v in arguments
    ), test_utils=("test_schema", "test_faketensor", "test_autograd_registration"))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("delta", (2, 4, 6), r"delta must have u's shape \(2, 4, 5\), got \(2, 4, 6\)"),
        ("A", (3, 3), r"A must be \(dim=4, N\), got \(3, 3\)"),
        ("B", (2, 3, 3, 5), r"B must be .* groups dividing dim, got \(2, 3, 3, 5\)"),
        ("C", (2, 0, 3, 5), r"C must be .* groups dividing dim, got \(2, 0, 3, 5\)"),
        ("u", (4, 5), r"u must be \(batch, dim, L\), got \(4, 5\)"),
        ("z", (1, 4, 5), r"z must have u's shape \(2, 4, 5\), got \(1, 4, 5\)"),
        ("D", (1,), r"D must be \(dim=4,\), got \(1,\)"),
        ("D", (3,), r"D must be \(dim=4,\), got \(3,\)"),
        ("delta_bias", (1,), r"delta_bias must be \(dim=4,\), got \(1,\)"),
    ],
)
def test_bad_shapes_are_named(name, shape, message):
    with pytest.raises(ValueError, match=message):
        selective_scan(**(inputs() | {name: torch.zeros(shape, dtype=torch.float64)}))


@pytest.mark.parametrize("backend", ["auto", *ALL])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.bool], ids=str)
def test_types_that_would_be_cast_are_refused(backend, dtype):
    one = inputs(dtype=torch.float32)
    for name, value in tensors_of(one).items():
        message = rf"^{name} must be real floating-point \(float64, float32, bfloat16, float16\), got {dtype}$"
        with pytest.raises(ValueError, match=message):
            selective_scan(**one | {name: value.to(dtype)}, backend=backend)


@pytest.mark.parametrize("backend", ["auto", *ALL])
def test_tensors_on_different_devices_are_refused(backend):
    one = inputs()
    for name in ("delta", "A", "B", "C", "D", "z", "delta_bias"):
        with pytest.raises(ValueError, match=rf"^{name} must be on u's device cpu, got meta$"):
            selective_scan(**one | {name: one[name].to("meta")}, backend=backend)


def test_a_device_that_a_backend_does_not_run_on_is_refused(monkeypatch):
    monkeypatch.setattr(scan, "_probe", lambda name: None)
    with pytest.raises(RuntimeError, match=r"backend 'mamba_ssm' runs on cuda, and u is on cpu"):
        selective_scan(**inputs(), backend="mamba_ssm")


@pytest.mark.parametrize("backend", FAST)
def test_a_second_derivative_is_refused_in_one_line(backend):
    one = with_gradients(inputs())
    (slope,) = torch.autograd.grad(selective_scan(**one, backend=backend).sum(), one["u"], create_graph=True)
    with pytest.raises(NotImplementedError, match=r"^the compiled selective scan .* second derivative.*'reference'$"):
        torch.autograd.grad(slope.sum(), one["u"])


TRANSFORMS = {
    "vmap": lambda f, u: torch.func.vmap(f)(torch.stack([u, 2 * u])),
    "grad": lambda f, u: torch.func.grad(f)(u),
    "grad of grad": lambda f, u: torch.func.grad(lambda v: torch.func.grad(f)(v).sum())(u),
    "jvp": lambda f, u: torch.func.jvp(f, (u,), (torch.ones_like(u),))[1],
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own, in jvp
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_transforms_of_torch_func_are_right_or_refused(transform, dtype):
    one = inputs(dtype=dtype)

    def loss(u, backend):
        return selective_scan(**one | {"u": u}, backend=backend).square().sum()

    with pytest.raises(NotImplementedError, match=r"^backend 'numba' offers neither torch.func's transforms nor "):
        transform(lambda u: loss(u, "numba"), one["u"])
    expected = transform(lambda u: loss(u, "reference"), one["u"])
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(transform(lambda u: loss(u, "chunked"), one["u"]), expected)
    assert torch.equal(transform(lambda u: loss(u, "auto"), one["u"]), expected)


def test_torch_jit_trace_is_refused_with_the_way_out():
    one = inputs()
    with pytest.warns(DeprecationWarning), pytest.raises(RuntimeError, match=r"torch\.jit\.trace; use torch\.export"):
        torch.jit.trace(lambda u: selective_scan(**one | {"u": u}), one["u"])


def test_auto_takes_the_reference_where_the_compiled_scan_cannot_run(monkeypatch):
    def probe(name):
        return "ImportError: none here" if name == "numba" else None

    monkeypatch.setattr(scan, "_probe", probe)
    with pytest.warns(RuntimeWarning, match=r"plain PyTorch.* \(numba: ImportError: none here\)"):
        found = selective_scan(**inputs())
    assert torch.equal(found, selective_scan(**inputs(), backend="reference"))
    with pytest.raises(RuntimeError, match="backend 'numba' is not available: ImportError: none here"):
        selective_scan(**inputs(), backend="numba")


def run_python(code, **environment):
    """Run code in a fresh interpreter and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_the_operators_does_not_load_the_compiler():
    assert run_python("import mammo_lib.ops, sys; print('torch._dynamo' in sys.modules)") == ["False"]


FORK = """
import os, signal, torch
from mammo_lib.ops import selective_scan
torch.set_num_threads(2)
g = torch.Generator().manual_seed(0)
u, delta, B = (torch.randn(*shape, generator=g).abs() for shape in ((8, 64, 196), (8, 64, 196), (8, 8, 196)))
def scan():
    return selective_scan(u, delta, -torch.ones(64, 8), B, B, z=u, delta_softplus=True, backend="numba")
expected = scan()
if child := os.fork():
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), torch.equal(scan(), expected), torch.get_num_threads())
else:
    signal.alarm(60)
    os._exit(0 if torch.equal(scan(), expected) else 3)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_scans_after_its_parent_has_used_threads():
    """Whatever ran in the parent: the scan's own threads, and OpenMP's, which torch uses beside it."""
    assert run_python(FORK) == ["0", "True", "2"]


NO_CACHE = """
import numba.core.caching as caching, torch
if not {has_folder}:
    caching.CacheImpl._locator_classes.clear()  # what a read-only installation without a home leaves
from mammo_lib.ops import backends, selective_scan
u = torch.ones(1, 4, 8)
selective_scan(u, u, -torch.ones(4, 2), torch.ones(1, 2, 8), torch.ones(1, 2, 8))
print(backends()["numba"])
"""


def test_a_kernel_is_compiled_without_a_cache_where_it_cannot_be_kept(monkeypatch):
    asked = []

    def njit(signature, cache=False, **options):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda kernel: kernel

    monkeypatch.setattr(scan_cpu, "njit", njit)
    assert scan_cpu.compile_kernel.__wrapped__("forward", torch.float32) is scan_cpu._forward
    assert asked == [True, False]


@pytest.mark.slow
def test_the_compiled_scan_runs_where_nothing_can_be_cached():
    assert run_python(NO_CACHE.format(has_folder=False)) == ["available"]


@pytest.mark.slow
def test_the_compiled_scan_runs_with_a_cache_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    folder = str(tmp_path / "file" / "below")
    assert run_python(NO_CACHE.format(has_folder=True), NUMBA_CACHE_DIR=folder) == ["available"]


@pytest.mark.slow
def test_the_compiled_scan_survives_a_damaged_cache(tmp_path):
    assert run_python(NO_CACHE.format(has_folder=True), NUMBA_CACHE_DIR=str(tmp_path)) == ["available"]
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    for path in kept:
        path.write_bytes(path.read_bytes()[:40])
    assert run_python(NO_CACHE.format(has_folder=True), NUMBA_CACHE_DIR=str(tmp_path)) == ["available"]


def test_unknown_and_unavailable_backends_say_so():
    with pytest.raises(ValueError, match=r"backend must be one of auto, reference, .*got 'cuda'"):
        selective_scan(**inputs(), backend="cuda")
    if reason_against("mamba_ssm"):
        with pytest.raises(RuntimeError, match="backend 'mamba_ssm' is not available: "):
            selective_scan(**inputs(), backend="mamba_ssm")


def test_backends_tell_what_is_there():
    found = backends()
    assert list(found) == ["reference", "chunked", "numba", "triton", "mamba_ssm"]
    assert found["reference"] == found["chunked"] == found["numba"] == "available"
    assert all(found.values())
