"""Constant coefficients: recurrence, kernel and FFT convolution are one operator."""

import pytest
import torch

from mammo_lib.ops import selective_scan, ssm_convolve, ssm_kernel, ssm_recurrence


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
