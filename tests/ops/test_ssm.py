"""Constant coefficients: from continuous time to steps; recurrence, kernel and FFT are one operator."""

import math

import pytest
import torch
from scipy.integrate import solve_ivp

from mammo_lib.ops import (
    selective_scan,
    ssm_convolve,
    ssm_euler,
    ssm_kernel,
    ssm_recurrence,
    ssm_zero_order_hold,
)


@pytest.fixture
def system():
    g = torch.Generator().manual_seed(0)
    A = torch.randn(4, 4, generator=g, dtype=torch.float64)
    A = 0.9 * A / torch.linalg.matrix_norm(A, 2)
    B, C = (torch.randn(4, generator=g, dtype=torch.float64) for _ in range(2))
    return A, B, C, torch.randn(3, 50, generator=g, dtype=torch.float64)


def test_kernel_by_hand():
    # A = 1/2, B = 3, C = 2: K = [6, 3, 3/2].
    one = torch.ones(1, dtype=torch.float64)
    assert ssm_kernel(0.5 * one, 3 * one, 2 * one, 3).tolist() == [6, 3, 1.5]


def test_three_forms_are_one(system):
    A, B, C, x = system
    K = ssm_kernel(A, B, C, 50)
    direct = torch.stack([sum(K[k] * x[:, t - k] for k in range(t + 1)) for t in range(50)], dim=-1)
    for y in (ssm_recurrence(x, A, B, C), ssm_convolve(x, K)):
        torch.testing.assert_close(y, direct, rtol=1e-9, atol=1e-9)


def test_skip_and_diagonal_form(system):
    A, B, C, x = system
    diagonal = torch.diagonal(A).clone()
    full = ssm_recurrence(x, torch.diag(diagonal), B, C, 0.3)
    torch.testing.assert_close(ssm_recurrence(x, diagonal, B, C, 0.3), full)
    torch.testing.assert_close(ssm_convolve(x, ssm_kernel(diagonal, B, C, 50), 0.3), full)


def test_nothing_wraps_around(system):
    A, B, C, x = system
    late = torch.zeros_like(x)
    late[:, -1] = 1.0
    assert ssm_convolve(late, ssm_kernel(A, B, C, 50))[:, :-1].abs().max() < 1e-12


def test_a_selective_scan_with_constant_coefficients_is_this_operator(system):
    _, B, C, x = system
    A, step = -torch.tensor([[0.5, 1.0, 2.0, 4.0]], dtype=torch.float64), 0.1
    scanned = selective_scan(x[:, None], torch.full_like(x[:, None], step), A, B[None], C[None])[:, 0]
    torch.testing.assert_close(scanned, ssm_recurrence(x, torch.exp(step * A[0]), step * B, C), rtol=1e-9, atol=1e-9)


def test_bad_lengths_are_named(system):
    A, B, C, x = system
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        ssm_kernel(A, B, C, 0)
    with pytest.raises(ValueError, match=r"at least as long as x \(50\), got 10"):
        ssm_convolve(x, ssm_kernel(A, B, C, 10))


def test_discretisations_by_hand():
    # a = -1, b = 3, dt = ln 2. Held: exp(-ln 2) = 1/2 and 3 (1 - 1/2). Euler: 1 - ln 2 and 3 ln 2.
    a, b, dt = torch.tensor([-1.0]).double(), torch.tensor([3.0]).double(), math.log(2)
    assert [m.item() for m in ssm_zero_order_hold(a, b, dt)] == pytest.approx([0.5, 1.5], rel=1e-12)
    assert [m.item() for m in ssm_euler(a, b, dt)] == pytest.approx([1 - dt, 3 * dt], rel=1e-12)


def test_a_held_input_is_followed_exactly(system):
    A, B, C, x = system
    x, dt = x[0, :6], 0.7
    stepped = ssm_recurrence(x, *ssm_zero_order_hold(A, B, dt), C)
    h, solved = torch.zeros(4).double().numpy(), []
    for held in x.tolist():  # the differential equation, one held token after another
        slope = lambda _, h, held=held: A.numpy() @ h + B.numpy() * held  # noqa: E731
        h = solve_ivp(slope, (0, dt), h, rtol=1e-11, atol=1e-12).y[:, -1]
        solved.append(C @ torch.from_numpy(h))
    torch.testing.assert_close(stepped, torch.stack(solved), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("discretise", [ssm_zero_order_hold, ssm_euler])
def test_a_diagonal_and_a_full_matrix_are_discretised_alike(discretise, system):
    a, B = -torch.tensor([0.0, 0.5, 1.0, 4.0], dtype=torch.float64), system[1]  # 0: no inverse
    (diagonal, b), (full, b_full) = discretise(a, B, 0.3), discretise(torch.diag(a), B, 0.3)
    torch.testing.assert_close(torch.diag(diagonal), full, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(b, b_full, rtol=1e-12, atol=1e-12)


def test_euler_approaches_the_hold_at_second_order_per_step(system):
    A, B, *_ = system
    gaps = []
    for dt in (1e-3, 1e-4):
        held, euler = ssm_zero_order_hold(A, B, dt), ssm_euler(A, B, dt)
        gaps.append([(p - q).norm().item() for p, q in zip(held, euler, strict=True)])
    assert [first / second for first, second in zip(*gaps, strict=True)] == pytest.approx([100, 100], rel=0.01)


@pytest.mark.parametrize("discretise", [ssm_zero_order_hold, ssm_euler])
@pytest.mark.parametrize("dt", [0.0, -1.0, math.nan])
def test_a_step_must_go_forward(discretise, dt, system):
    with pytest.raises(ValueError, match=r"dt must be above 0, got (0\.0|-1\.0|nan)"):
        discretise(*system[:2], dt)
