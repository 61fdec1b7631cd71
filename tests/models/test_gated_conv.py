"""The paper's literal mixer: its convolution is its recurrence, and only its gate sees the content."""

import math

import pytest
import torch

from mammo_lib.models import GatedConvMixer, create_mambavision
from mammo_lib.models.mambavision import MambaMixer
from mammo_lib.ops import ssm_recurrence


def test_the_convolution_is_the_recurrence_in_float64():
    torch.manual_seed(0)
    mixer = GatedConvMixer(6).double()
    x = torch.randn(2, 11, 6, dtype=torch.float64)
    u, (A, B, C) = mixer.in_proj(x), mixer.coefficients()
    channels = [ssm_recurrence(u[..., d], A[d], B[d], C[d], mixer.D[d]) for d in range(6)]
    expected = mixer.out_proj(mixer.token_gate(x) * torch.stack(channels, dim=-1))
    torch.testing.assert_close(mixer(x), expected, rtol=1e-9, atol=1e-9)


def test_without_its_gate_it_is_linear_and_time_invariant():
    torch.manual_seed(0)
    mixer = GatedConvMixer(4).double()
    torch.nn.init.zeros_(mixer.gate.weight)  # the gate is now a constant
    x = torch.randn(1, 9, 4, dtype=torch.float64)
    torch.testing.assert_close(mixer(2 * x), 2 * mixer(x))
    shifted = torch.cat([torch.zeros(1, 1, 4, dtype=torch.float64), x[:, :-1]], dim=1)
    torch.testing.assert_close(mixer(shifted)[:, 1:], mixer(x)[:, :-1])


def test_the_selective_mixer_is_neither():
    torch.manual_seed(0)
    mixer, x = MambaMixer(16).double(), torch.randn(1, 9, 16, dtype=torch.float64)
    assert not torch.allclose(mixer(2 * x), 2 * mixer(x))


def test_sizes_are_comparable_and_every_parameter_learns():
    counts = [
        sum(p.numel() for p in create_mambavision("T", mixer=m).parameters()) for m in ("selective", "gated_conv")
    ]
    assert abs(counts[1] / counts[0] - 1) < 0.05
    network = create_mambavision("nano", mixer="gated_conv", num_classes=2)
    network(torch.rand(2, 3, 64, 64)).square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("step", [0.1, 14.0, 100.0])
def test_a_large_step_underflows_to_zero_and_not_to_nan(step):
    torch.manual_seed(0)
    mixer = GatedConvMixer(8)
    torch.nn.init.constant_(mixer.log_dt, math.log(step))
    kernel = mixer.kernel(49)
    kernel.square().sum().backward()
    assert torch.isfinite(kernel).all()
    assert all(torch.isfinite(p.grad).all() for p in (mixer.log_dt, mixer.A_log, mixer.B, mixer.C))
