"""SeqMoE: a mixture of experts in depth. Each gated block is mixed with the identity.

| code | meaning | shape |
|---|---|---|
| x | the previous block's gated output | (windows, tokens, dim) |
| B_i(x) | a MambaVision block, the first expert; x itself is the second | as x |
| G | gate, in [0, 1] | one value per image, window or token |

    X_{i+1} = G_i B_i(X_i) + (1 - G_i) X_i,    G_i = sigmoid(w . [mean(B_i(X_i)); mean(X_i)] + b)

This is a gated residual: G B + (1 - G) x = x + G (B - x). With G = 1 it is MambaVision; with G = 0 the block has no
effect, although it is still computed, because the gate reads its output. The means run over the image (the paper's
mean-pooled scalar), over a window, or over nothing (``token``). NOTE: the paper calls the mean-pooled
scalar "spatial routing"; a scalar per image cannot route in space, so ``scope`` offers both readings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .mambavision import Level, MambaVision, covering, from_windows, to_windows

Scope = Literal["image", "window", "token"]
Kind = Literal["learned", "fixed", "random"]
FIXED_VALUE = 0.5


@dataclass(frozen=True)
class Grid:
    """How a stage's map, (batch, dim, height, width), is divided into windows of side w."""

    shape: torch.Size
    w: int

    @property
    def rows(self) -> int:
        """Windows from top to bottom."""
        return covering(self.shape[2], self.w)

    @property
    def columns(self) -> int:
        """Windows from left to right."""
        return covering(self.shape[3], self.w)

    def per_window(self, values: Float[Tensor, " batch"]) -> Float[Tensor, "windows 1 1"]:
        """Repeat an image's value for each of its windows."""
        return values.repeat_interleave(self.rows * self.columns)[:, None, None]


class Gate(nn.Module):
    """The share of a block's output that is used. ``learned`` is the equation; ``fixed`` and ``random`` are controls.

    ``random`` draws one value per image and call in training, uniform on [0, 1], and uses the mean, 0.5, in evaluation.
    ``binary`` rounds a learned gate to 0 or 1.
    """

    def __init__(
        self, width: int, *, kind: Kind = "learned", scope: Scope = "image", bias: float = 2.0, binary: bool = False
    ):
        super().__init__()
        for name, value, allowed in (("kind", kind, get_args(Kind)), ("scope", scope, get_args(Scope))):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        self.kind, self.scope, self.is_binary = kind, scope, binary
        if kind == "learned":
            self.proj = nn.Linear(2 * width, 1)
            # w = 0: every gate starts at sigmoid(bias) whatever the image, and w still gets a gradient.
            nn.init.zeros_(self.proj.weight)
            nn.init.constant_(self.proj.bias, bias)

    def forward(self, mixed: Tensor, x: Tensor, grid: Grid) -> Float[Tensor, "windows _ 1"]:
        """Return the gate in a form that broadcasts over tokens and channels."""
        if self.kind != "learned":
            return grid.per_window(self._draw(grid.shape[0], x))
        seen = torch.cat([mixed, x], dim=-1)
        if self.scope == "token":
            return self._open(seen)
        if self.scope == "window":
            return self._open(seen.mean(dim=1, keepdim=True))
        # Tokens that only pad the last windows are not part of the image.
        image = from_windows(seen, grid.w, torch.Size((grid.shape[0], seen.shape[-1], *grid.shape[2:])))
        return grid.per_window(self._open(image.mean(dim=(2, 3)))[:, 0])

    def _open(self, seen: Float[Tensor, "*_ features"]) -> Float[Tensor, "*_ 1"]:
        """Return sigmoid(w . seen + b); a binary gate is rounded, with the sigmoid's gradient (Bengio et al. 2013)."""
        gate = torch.sigmoid(self.proj(seen))
        return gate + (gate.round() - gate).detach() if self.is_binary else gate

    def _draw(self, batch: int, x: Tensor) -> Tensor:
        if self.kind == "random" and self.training:
            return torch.rand(batch, dtype=x.dtype, device=x.device)
        return x.new_full((batch,), FIXED_VALUE)

    def values(self, gate: Float[Tensor, "windows _ 1"], grid: Grid) -> Tensor:
        """Return the gate by image: (batch,), (batch, rows, columns) of windows, or (batch, height, width)."""
        batch = grid.shape[0]
        if gate.shape[1] > 1:
            return from_windows(gate, grid.w, torch.Size((batch, 1, *grid.shape[2:])))[:, 0]
        windows = gate.reshape(batch, grid.rows, grid.columns)
        return windows if self.kind == "learned" and self.scope == "window" else windows[:, 0, 0]

    def spread(self, values: Tensor, grid: Grid) -> Float[Tensor, "windows _ 1"]:
        """Undo :meth:`values`: give every window or token its value; one per image, (batch,), is valid for any scope.

        Tokens that only pad the last windows are not part of a map; they get 1.
        """
        if values.ndim == 1:
            return grid.per_window(values)
        if self.scope == "window":
            return values.reshape(-1, 1, 1)
        is_token = to_windows(torch.ones_like(values)[:, None], grid.w) > 0
        return to_windows(values[:, None], grid.w).where(is_token, 1)


class SeqMoE(nn.Module):
    """A MambaVision whose token blocks are gated. Nothing is stored by ``forward``; the gates are returned.

    Raises a ValueError if one of ``stages``, counted from 1, has no token blocks.

    >>> from mammo_lib.models import create_mambavision
    >>> list(SeqMoE(create_mambavision("nano"), stages=(4,)).gates)
    ['stage4_block0', 'stage4_block1']
    """

    def __init__(
        self, backbone: MambaVision, *, kind: Kind = "learned", scope: Scope = "image", bias: float = 2.0,
        binary: bool = False, stages: Iterable[int] = (3, 4), mixers_only: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.backbone = backbone
        self.gates = nn.ModuleDict()
        mixing = {number: level for number, level in enumerate(backbone.levels, 1) if level.window is not None}
        for stage in stages:
            if stage not in mixing:
                raise ValueError(f"stages must be among those with token blocks, {[*mixing]}, got {stage}")
            for j, block in enumerate(mixing[stage].blocks):
                if block.is_ssm or not mixers_only:
                    self.gates[gate_name(stage, j)] = Gate(
                        block.width, kind=kind, scope=scope, bias=bias, binary=binary
                    )

    @property
    def num_features(self) -> int:
        """Width of the pooled features."""
        return self.backbone.num_features

    @property
    def steps(self) -> list[nn.Module]:
        """The network in order: the stem, then of each stage its blocks and its downsample."""
        levels = self.backbone.levels
        return [self.backbone.patch_embed, *(part for level in levels for part in (level.blocks, level.downsample))]

    def first_steps(self, x: Float[Tensor, "batch 3 height width"], n: int) -> Float[Tensor, "batch dim rows columns"]:
        """Return the output of the first ``n`` of ``steps``; no gate may be among them."""
        for number in range(n):
            x = self._step(number, x, {}, {})
        return x

    def forward(
        self, x: Float[Tensor, "batch dim height width"], overrides: Mapping[str, Tensor] | None = None, *,
        start: int = 0,
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """Return the pooled features (batch, num_features) and every gate by its block's name, ``stage3_block0``...

        ``overrides`` replaces gates by given values: by name, (batch,) or in the form that is returned. ``x`` contains
        images or, with ``start``, the output of :meth:`first_steps`. A ValueError names an override that belongs to no
        gate or has another number of images.
        """
        if unknown := set(overrides or {}) - set(self.gates):
            raise ValueError(f"overrides must name gates ({', '.join(self.gates) or 'there are none'}), got {unknown}")
        for name, values in (overrides or {}).items():
            shape = tuple(getattr(values, "shape", ()))
            if len(shape) not in (1, 3) or shape[0] != len(x):
                wanted = f"({len(x)},) or ({len(x)}, rows, columns), as gates are returned"
                raise ValueError(f"overrides[{name!r}] must have the shape {wanted}, got {shape}")
        gates = {}
        for number in range(start, 1 + 2 * len(self.backbone.levels)):
            x = self._step(number, x, gates, overrides or {})
        return self.backbone.pool(x), gates

    def _step(self, number: int, x: Tensor, gates: dict[str, Tensor], overrides: Mapping[str, Tensor]) -> Tensor:
        if number == 0:
            return self.backbone.patch_embed(x)
        stage, is_downsample = divmod(number - 1, 2)
        level = self.backbone.levels[stage]
        return level.downsample(x) if is_downsample else self._mix(level, stage + 1, x, gates, overrides)

    def _mix(
        self, level: Level, stage: int, x: Tensor, gates: dict[str, Tensor], overrides: Mapping[str, Tensor]
    ) -> Tensor:
        if level.window is None or not any(name.startswith(f"stage{stage}_") for name in self.gates):
            return level.mix(x)
        grid = Grid(x.shape, level.window)
        tokens = to_windows(x, level.window)
        for j, block in enumerate(level.blocks):
            mixed, name = block(tokens), gate_name(stage, j)
            if name in self.gates:
                own = self.gates[name]
                forced = overrides.get(name)
                gate = own(mixed, tokens, grid) if forced is None else own.spread(forced.to(mixed.dtype), grid)
                gates[name] = own.values(gate, grid)
                mixed = gate * mixed + (1 - gate) * tokens
            tokens = mixed
        return from_windows(tokens, level.window, x.shape)


def gate_name(stage: int, block: int) -> str:
    """Return the name of a block's gate, stages counted from 1 and blocks from 0."""
    return f"stage{stage}_block{block}"


def parse_gate_name(name: str) -> tuple[int, int]:
    """Return the stage and the block of a gate's name.

    >>> parse_gate_name(gate_name(3, 10))
    (3, 10)
    """
    stage, block = name.removeprefix("stage").split("_block")
    return int(stage), int(block)
