"""Laws of the scan, for any shape: every backend equals the reference, is linear in u and causal, and can be split."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from mammo_lib.ops import selective_scan, ssm_convolve, ssm_kernel, ssm_recurrence

BOUND = 1e-10  # of float64, over the largest value
SEQUENCES = ("u", "delta", "B", "C", "z")
backends = pytest.mark.parametrize("backend", ["reference", "chunked", "numba"])
others = pytest.mark.parametrize("backend", ["chunked", "numba"])


@st.composite
def scans(draw, least=0, most=30, **fixed):
    """Draw the arguments of a scan: any small shape, every form of B and C, optional inputs there or not."""
    batch, N, length = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(least, most))
    groups, per = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    dim = groups * per
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    forms = [(batch, N, length), (batch, groups, N, length), (batch, 1, N, length)]
    forms += [] if fixed.get("is_selective") else [(dim, N)]
    one = {"u": normal(batch, dim, length), "delta": normal(batch, dim, length), "A": -normal(dim, N).exp(),
           "B": normal(*draw(st.sampled_from(forms))), "C": normal(*draw(st.sampled_from(forms))),
           "delta_softplus": draw(st.booleans())}  # fmt: skip
    if not one["delta_softplus"]:
        one["delta"] = one["delta"].abs()
    for name, shape in {"D": (dim,), "z": (batch, dim, length), "delta_bias": (dim,)}.items():
        if draw(st.booleans()):
            one[name] = normal(*shape).abs()
    return one


def cut(one, start, end):
    """Return the same scan of the steps from start to end."""
    return one | {name: one[name][..., start:end] for name in SEQUENCES if name in one and one[name].dim() > 2}


def close(ours, theirs):
    scale = max(1.0, theirs.abs().max().item()) if theirs.numel() else 1.0
    torch.testing.assert_close(ours, theirs, rtol=0, atol=BOUND * scale)


def steps_of(one):
    step = one["delta"] + one["delta_bias"][:, None] if "delta_bias" in one else one["delta"]
    return functional.softplus(step) if one["delta_softplus"] else step


@others
@given(one=scans(most=40))
def test_every_backend_is_the_reference_at_every_length(backend, one):
    ours = selective_scan(**one, backend=backend, return_last_state=True)
    for mine, reference in zip(ours, selective_scan(**one, backend="reference", return_last_state=True), strict=True):
        close(mine, reference)


@others
@given(one=scans(least=1, most=12))
def test_every_gradient_is_the_references(backend, one):
    leaves = {name: value for name, value in one.items() if isinstance(value, torch.Tensor)}

    def gradients(name):
        own = {key: value.clone().requires_grad_() for key, value in leaves.items()}
        out, last = selective_scan(**one | own, backend=name, return_last_state=True)
        loss = (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum() + last.sum()
        return torch.autograd.grad(loss, list(own.values()))

    for mine, reference in zip(gradients(backend), gradients("reference"), strict=True):
        close(mine, reference)


@backends
@given(one=scans(), a=st.floats(-3, 3), b=st.floats(-3, 3), seed=st.integers(0, 99))
def test_the_scan_is_linear_in_u(backend, one, a, b, seed):
    v = torch.randn(one["u"].shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    both, first, second = (
        selective_scan(**one | {"u": u}, backend=backend, return_last_state=True)
        for u in (a * one["u"] + b * v, one["u"], v)
    )
    for together, x, y in zip(both, first, second, strict=True):
        close(together, a * x + b * y)


@backends
@given(one=scans(least=1), data=st.data())
def test_what_comes_later_changes_nothing_before(backend, one, data):
    at = data.draw(st.integers(0, one["u"].shape[2]))
    out = selective_scan(**one, backend=backend)
    close(selective_scan(**cut(one, 0, at), backend=backend), out[..., :at])
    later = {name: one[name].clone() for name in SEQUENCES if name in one and one[name].dim() > 2}
    for value in later.values():
        value[..., at:] = 7
    close(selective_scan(**one | later, backend=backend)[..., :at], out[..., :at])


@backends
@given(one=scans(), data=st.data())
def test_a_sequence_that_is_cut_carries_its_state(backend, one, data):
    """The second part is linear in the state it starts from: exp(A sum of steps) h is added, and read out by C."""
    length = one["u"].shape[2]
    at = data.draw(st.integers(0, length))
    out, last = selective_scan(**one, backend=backend, return_last_state=True)
    _, h = selective_scan(**cut(one, 0, at), backend=backend, return_last_state=True)
    second = cut(one, at, length)
    y, state = selective_scan(**second, backend=backend, return_last_state=True)
    decay = torch.exp(steps_of(second).cumsum(-1)[:, :, None] * one["A"][:, :, None])  # (batch, dim, N, L - at)
    carried = decay * h[..., None]
    close(state + (carried[..., -1] if length > at else h), last)
    extra = (carried * per_channel(second["C"], second["u"])).sum(dim=2)
    close(y + (extra * functional.silu(second["z"]) if "z" in one else extra), out[..., at:])


def per_channel(C, u):
    """Return C as (batch, dim, N, L)."""
    batch, dim, length = u.shape
    if C.dim() == 2:
        return C[None, :, :, None].expand(batch, dim, -1, length)
    C = C[:, None] if C.dim() == 3 else C
    return C.repeat_interleave(dim // C.shape[1], dim=1)


@backends
@given(one=scans(), random=st.randoms())
def test_breasts_of_a_batch_do_not_see_each_other(backend, one, random):
    order = random.sample(range(len(one["u"])), len(one["u"]))
    turned = {name: one[name][order] for name in SEQUENCES if name in one and one[name].dim() > 2}
    close(selective_scan(**one | turned, backend=backend), selective_scan(**one, backend=backend)[order])


@given(
    length=st.integers(1, 30),
    N=st.integers(1, 4),
    dt=st.floats(0.01, 2),
    skip=st.floats(-2, 2),
    seed=st.integers(0, 99),
)
def test_constant_coefficients_are_the_recurrence_and_the_convolution(length, N, dt, skip, seed):
    normal = torch.Generator().manual_seed(seed)
    x, A, B, C = (torch.randn(n, generator=normal, dtype=torch.float64) for n in (length, N, N, N))
    A, step = -A.exp(), torch.full((1, 1, length), dt, dtype=torch.float64)
    D = torch.tensor([skip], dtype=torch.float64)
    recurrence = ssm_recurrence(x, torch.exp(dt * A), dt * B, C, skip)
    close(selective_scan(x[None, None], step, A[None], B[None], C[None], D, backend="reference")[0, 0], recurrence)
    close(ssm_convolve(x, ssm_kernel(torch.exp(dt * A), dt * B, C, length), skip), recurrence)
