"""The selective scan: the reference against a loop written from the equation, and its manners."""

import pytest
import torch
from torch.nn import functional

from mammo_lib.ops import selective_scan


def inputs(batch=2, dim=4, length=5, state=3, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=dtype)  # noqa: E731
    return {
        "u": draw(batch, dim, length), "delta": draw(batch, dim, length), "A": -draw(dim, state).exp(),
        "B": draw(batch, state, length), "C": draw(batch, state, length), "D": draw(dim), "z": draw(batch, dim, length),
        "delta_bias": draw(dim), "delta_softplus": True,
    }  # fmt: skip


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


def test_reference_is_the_equation():
    one = inputs()
    torch.testing.assert_close(selective_scan(**one), by_the_equation(**one), rtol=1e-12, atol=1e-12)


def test_shapes_of_B_and_C_mean_the_same():
    one = inputs()
    plain = selective_scan(**one)
    for name in ("B", "C"):
        grouped = one | {name: one[name][:, None].expand(-1, 2, -1, -1)}
        torch.testing.assert_close(selective_scan(**grouped), plain)
    constant = one | {name: torch.ones(4, 3, dtype=torch.float64) for name in ("B", "C")}
    full = one | {name: torch.ones(2, 3, 5, dtype=torch.float64) for name in ("B", "C")}
    torch.testing.assert_close(selective_scan(**constant), selective_scan(**full))


def test_any_strides_and_inputs_untouched():
    one = inputs()
    expected = selective_scan(**one)
    strided = {
        k: v.transpose(-1, -2).contiguous().transpose(-1, -2) if k in ["u", "delta", "z", "B", "C"] else v
        for k, v in one.items()
    }
    before = {k: v.clone() for k, v in strided.items() if isinstance(v, torch.Tensor)}
    torch.testing.assert_close(selective_scan(**strided), expected, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(strided[k], v) for k, v in before.items())


def test_the_last_state_continues_the_sequence():
    one = inputs(length=6) | {"z": None, "D": None}
    _, last = selective_scan(**one, return_last_state=True)
    step = functional.softplus(one["delta"] + one["delta_bias"][:, None])
    h = torch.zeros(2, 4, 3, dtype=torch.float64)
    for t in range(6):
        h = torch.exp(step[:, :, t, None] * one["A"]) * h + (step * one["u"])[:, :, t, None] * one["B"][:, None, :, t]
    torch.testing.assert_close(last, h)


def test_gradients_are_right():
    one = {k: v.requires_grad_() if isinstance(v, torch.Tensor) else v for k, v in inputs(1, 2, 3, 2).items()}
    names = [k for k, v in one.items() if isinstance(v, torch.Tensor)]
    assert torch.autograd.gradcheck(
        lambda *tensors: selective_scan(**dict(zip(names, tensors, strict=True)), delta_softplus=True),
        [one[k] for k in names],
    )


@pytest.mark.parametrize("delta", [0.0, 1e4, -1e4])
def test_extreme_steps_stay_finite(delta):
    one = inputs(dtype=torch.float32)
    one["delta"] = torch.full_like(one["delta"], delta)
    assert selective_scan(**one).isfinite().all()


@pytest.mark.parametrize(("batch", "length"), [(2, 1), (0, 5)])
def test_short_and_empty(batch, length):
    assert selective_scan(**inputs(batch=batch, length=length)).shape == (batch, 4, length)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_in_and_out_with_a_float32_state(dtype):
    one = inputs(dtype=torch.float32, length=64)
    low = {k: v.to(dtype) if k in ["u", "delta", "z", "B", "C"] else v for k, v in one.items()}
    out, state = selective_scan(**low, return_last_state=True)
    assert (out.dtype, state.dtype) == (dtype, torch.float32)
    rounded = {k: v.float() if isinstance(v, torch.Tensor) else v for k, v in low.items()}
    assert torch.equal(out, selective_scan(**rounded).to(dtype))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("delta", (2, 4, 6), r"delta must have u's shape \(2, 4, 5\), got \(2, 4, 6\)"),
        ("A", (3, 3), r"A must be \(dim=4, N\), got \(3, 3\)"),
        ("B", (2, 3, 3, 5), r"B must be .* groups dividing dim, got \(2, 3, 3, 5\)"),
    ],
)
def test_bad_shapes_are_named(name, shape, message):
    with pytest.raises(ValueError, match=message):
        selective_scan(**(inputs() | {name: torch.zeros(shape, dtype=torch.float64)}))


def test_unknown_backend():
    with pytest.raises(ValueError, match=r"backend must be one of auto, reference, .*got 'cuda'"):
        selective_scan(**inputs(), backend="cuda")
