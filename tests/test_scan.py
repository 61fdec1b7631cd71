"""The selective scan: the reference against the equation, every compiled backend against the reference, and manners."""

import functools

import pytest
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mammo_lib.ops import backends, selective_scan
from mammo_lib.ops.scan import reason_against

# Largest error over largest value, against the reference in float64.
BOUNDS = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}
GRADIENT_BOUNDS = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}
SEQUENCES = ("u", "delta", "z", "B", "C")

needs_triton = pytest.mark.skipif(reason_against("triton") is not None, reason=f"triton: {reason_against('triton')}")
FAST = ["numba", pytest.param("triton", marks=needs_triton)]
ALL = ["reference", *FAST]
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


@pytest.mark.parametrize("backend", FAST)
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


@pytest.mark.parametrize("backend", FAST)
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
    one = inputs(length=40)
    expected, slopes = selective_scan(**one, backend=backend), gradients(one, backend=backend)
    strided = {k: v.transpose(-1, -2).contiguous().transpose(-1, -2) if k in SEQUENCES else v for k, v in one.items()}
    strided["u"] = torch.stack([strided["u"], strided["u"]], dim=-1)[..., 0]  # no unit stride at all
    before = {k: v.clone() for k, v in tensors_of(strided).items()}
    assert error(selective_scan(**strided, backend=backend), expected) < 1e-12
    again = gradients(strided, backend=backend)
    assert all(error(again[name], slopes[name]) < 1e-11 for name in slopes)
    assert all(torch.equal(strided[k], v) for k, v in before.items())


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("delta", [0.0, 1e4, -1e4])
def test_extreme_steps_stay_finite(backend, delta):
    one = inputs(dtype=torch.float32, length=40)
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
@pytest.mark.parametrize(("batch", "length"), [(2, 1), (0, 5)])
def test_short_and_empty(backend, batch, length):
    one = inputs(batch=batch, length=length)
    assert selective_scan(**one, backend=backend).shape == (batch, 4, length)
    assert all(value.isfinite().all() for value in gradients(one, backend=backend).values())


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
    arguments = small_arguments()
    compiled = torch.compile(small_scan, backend="aot_eager", fullgraph=True)
    expected = torch.autograd.grad(small_scan(*arguments), arguments)
    for ours, theirs in zip(torch.autograd.grad(compiled(*arguments), arguments), expected, strict=True):
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


def test_unknown_and_unavailable_backends_say_so():
    with pytest.raises(ValueError, match=r"backend must be one of auto, reference, .*got 'cuda'"):
        selective_scan(**inputs(), backend="cuda")
    if reason_against("mamba_ssm"):
        with pytest.raises(RuntimeError, match="backend 'mamba_ssm' is not available: "):
            selective_scan(**inputs(), backend="mamba_ssm")


def test_backends_tell_what_is_there():
    found = backends()
    assert list(found) == ["reference", "numba", "triton", "mamba_ssm"]
    assert found["reference"] == found["numba"] == "available"
    assert all(found.values())
