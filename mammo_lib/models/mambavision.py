"""MambaVision (Hatamizadeh and Kautz 2024), written clean-room from its description and measured behaviour.

Four stages at strides 4, 8, 16, 32: two of residual convolutions, two of windowed token blocks in which Mamba
mixers come first and attention last. The names of modules follow the official checkpoints, so
that their weights load strictly.

| code | meaning |
|---|---|
| d | width of a stage: dim, 2 dim, 4 dim, 8 dim |
| h = d / 2 | channels of the state-space branch |
| r = ceil(d / 16) | rank of the step size |
| N = 8 | state size |
| w | side of a window, tokens; the scan and attention never leave a window |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ..ops import selective_scan
from .gated_conv import D_STATE, DT_RANGE, GatedConvMixer

D_CONV = 3


class Variant(NamedTuple):
    """The hyper-parameters in which the released networks differ."""

    dim: int
    in_dim: int
    depths: tuple[int, int, int, int]
    num_heads: tuple[int, int, int, int]
    drop_path: float
    layer_scale: float | None = None
    windows: tuple[int, int, int, int] = (8, 8, 14, 7)


LITE = ("lite", "lite1", "lite2")  # stages 3 and 4 alone, on the first stages of models/lite.py

# One line of numbers per variant. Parameters of the 1000-class networks: T 31.8 M, S 50.1 M, B 97.7 M, L 228 M.
VARIANTS = {
    "nano": Variant(16, 16, (1, 1, 3, 2), (1, 2, 4, 8), 0.0),
    **dict.fromkeys(LITE, Variant(24, 16, (0, 0, 3, 2), (1, 2, 4, 8), 0.0)),
    "T": Variant(80, 32, (1, 3, 8, 4), (2, 4, 8, 16), 0.2),
    "T2": Variant(80, 32, (1, 3, 11, 4), (2, 4, 8, 16), 0.2),
    "S": Variant(96, 64, (3, 3, 7, 5), (2, 4, 8, 16), 0.2),
    "B": Variant(128, 64, (3, 3, 10, 5), (2, 4, 8, 16), 0.3, 1e-5),
    "L": Variant(196, 64, (3, 3, 10, 5), (4, 8, 16, 32), 0.3, 1e-5),
    "L2": Variant(196, 64, (3, 3, 12, 5), (4, 8, 16, 32), 0.3, 1e-5),
    "L3": Variant(256, 64, (3, 3, 20, 10), (4, 8, 16, 32), 0.5, 1e-5, windows=(8, 8, 16, 8)),
}


def create_mambavision(
    variant: str, *, in_chans: int = 3, num_classes: int = 1000, window_sizes: Sequence[int] | None = None,
    drop_path: float | None = None, init: Literal["mamba", "official"] = "mamba",
    mixer: Literal["selective", "gated_conv"] = "selective",
    token_blocks: Literal["hybrid", "ssm", "attention", "none"] = "hybrid", mlp_ratio: float = 4.0,
    drop_rate: float = 0.0, global_pool: Literal["avg", ""] = "avg",
) -> MambaVision:  # fmt: skip
    """Build a released variant, or ``nano``, our own for demonstrations on a CPU.

    ``lite`` has no stages 1 and 2 of its own: :func:`mammo_lib.models.lite.on_imagenet_stages` puts it on those of an
    EfficientNet-Lite.
    ``window_sizes`` (4 numbers, of which the last two are used) and ``drop_path`` default to the variant's.
    ``drop_rate``: dropout before the head; ``global_pool=""`` leaves the features a map, for ``num_classes=0``.

    >>> create_mambavision("nano", num_classes=2)(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 2])
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    numbers = VARIANTS[variant]
    return MambaVision(
        dim=numbers.dim, in_dim=numbers.in_dim, depths=numbers.depths, num_heads=numbers.num_heads,
        window_sizes=window_sizes or numbers.windows, drop_path=numbers.drop_path if drop_path is None else drop_path,
        layer_scale=numbers.layer_scale, in_chans=in_chans, num_classes=num_classes, init=init,
        mixer=mixer, token_blocks=token_blocks, mlp_ratio=mlp_ratio, drop_rate=drop_rate, global_pool=global_pool,
    )  # fmt: skip


class MambaVision(nn.Module):
    """The whole network, image to logits.

    ``init="mamba"`` gives the scan the step sizes that Mamba intends; ``"official"`` reproduces the released code,
    whose last initialisation pass overwrites them (every initial step is then softplus(0) = 0.69). Classifier and
    features are reached as in timm's networks.
    """

    def __init__(
        self, *, dim: int, in_dim: int, depths: Sequence[int], num_heads: Sequence[int], window_sizes: Sequence[int],
        mlp_ratio: float = 4.0, drop_path: float = 0.0, layer_scale: float | None = None, in_chans: int = 3,
        num_classes: int = 1000, init: Literal["mamba", "official"] = "mamba",
        mixer: Literal["selective", "gated_conv"] = "selective",
        token_blocks: Literal["hybrid", "ssm", "attention", "none"] = "hybrid",
        drop_rate: float = 0.0, global_pool: Literal["avg", ""] = "avg",
    ):  # fmt: skip
        super().__init__()
        if init not in ("mamba", "official"):
            raise ValueError(f"init must be 'mamba' or 'official', got {init!r}")
        if len(window_sizes) != len(depths) or min(window_sizes) < 1:
            raise ValueError(f"window_sizes must be {len(depths)} numbers of at least 1, got {tuple(window_sizes)}")
        self.patch_embed = Stem(in_chans, in_dim, dim)
        rates = [drop_path * j / max(1, sum(depths) - 1) for j in range(sum(depths))]
        self.levels = nn.ModuleList()
        for i, depth in enumerate(depths):
            width, own = dim * 2**i, rates[sum(depths[:i]) : sum(depths[: i + 1])]
            if i < 2:
                blocks = [ConvBlock(width, rate) for rate in own]
            else:
                mixers = build_mixers(width, depth, num_heads[i], mixer, token_blocks)
                blocks = [TokenBlock(width, m, mlp_ratio, r, layer_scale) for m, r in zip(mixers, own, strict=False)]
            self.levels.append(
                Level(width, blocks, window_sizes[i] if i >= 2 else None, has_downsample=i < len(depths) - 1)
            )
        self.num_features = self.head_hidden_size = dim * 2 ** (len(depths) - 1)
        self.norm = nn.BatchNorm2d(self.num_features)
        self.num_classes, self.drop_rate, self.global_pool = num_classes, drop_rate, global_pool
        self.head = build_classifier(self.num_features, num_classes)
        self.apply(_init_linear)
        if init == "mamba":
            self.apply(_init_step_size)

    @classmethod
    def from_pretrained(cls, source: str | Path, **options) -> MambaVision:
        """Return the network of a checkpoint in evaluation mode; see :func:`mammo_lib.models.weights.load_pretrained`.

        ``source`` is a file or the name of a repository of the Hugging Face hub.
        """
        from .weights import load_pretrained

        return load_pretrained(source, **options)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Return logits; with ``num_classes=0``, the pooled features (batch, num_features)."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features ..."]:
        """Return the normalised map of the last stage."""
        return self.norm(self.forward_stages(x)[-1])

    def forward_head(self, x: Float[Tensor, "batch features height width"], pre_logits: bool = False) -> Tensor:
        """Average a map of :meth:`forward_features` over space and classify it; ``pre_logits`` stops before that."""
        x = x.mean(dim=(2, 3)) if self.global_pool else x
        x = functional.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.head(x)

    def pool(self, x: Float[Tensor, "batch features height width"]) -> Float[Tensor, "batch features"]:
        """Normalise the last stage's map and average it over space."""
        return self.norm(x).mean(dim=(2, 3))

    def get_classifier(self) -> nn.Module:
        """Return the head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Give the network a new head: linear, or none for 0 classes; ``global_pool``: ``avg``, or "" for the map."""
        if global_pool not in (None, "avg", ""):
            raise ValueError(f"global_pool must be 'avg' or '', got {global_pool!r}")
        self.num_classes = num_classes
        self.global_pool = self.global_pool if global_pool is None else global_pool
        self.head = build_classifier(self.num_features, num_classes).to(next(self.parameters()))
        _init_linear(self.head)

    @property
    def feature_info(self) -> list[dict]:
        """Width, stride and module of every stage's map, in the form of timm."""
        return [
            {"num_chs": level.width, "reduction": 4 * 2**i, "module": f"levels.{i}"}
            for i, level in enumerate(self.levels)
        ]

    def forward_intermediates(
        self, x: Float[Tensor, "batch channels height width"], indices: int | Sequence[int] | None = None,
        norm: bool = False, stop_early: bool = False, output_fmt: str = "NCHW", intermediates_only: bool = False,
    ):  # fmt: skip
        """Return the last map and those of the stages ``indices``, or these alone, as timm's networks do.

        ``indices`` counts from 0; an int means the last so many stages, None all. ``norm`` normalises the last stage.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be 'NCHW', got {output_fmt!r}")
        taken, last = self._taken(indices)
        maps = self.forward_stages(x, last + 1 if stop_early else None)
        is_last = maps[-1].shape[1] == self.num_features  # False if later stages are pruned or left out
        final = self.norm(maps[-1]) if is_last else maps[-1]
        kept = [final if norm and is_last and i == len(self.levels) - 1 else maps[i] for i in taken]
        return kept if intermediates_only else (final, kept)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the stages after the last of ``indices``, in place; return the indices counted from 0."""
        taken, last = self._taken(indices)
        self.levels = self.levels[: last + 1]
        self.levels[-1].downsample = nn.Identity()
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.num_classes, self.global_pool, self.head = 0, "", nn.Identity()
        return taken

    def _taken(self, indices: int | Sequence[int] | None) -> tuple[list[int], int]:
        """Return the stages that ``indices`` means, counted from 0, and the last of them."""
        from timm.models._features import feature_take_indices

        return feature_take_indices(len(self.levels), indices)

    def forward_stages(
        self, x: Float[Tensor, "batch channels height width"], n_stages: int | None = None
    ) -> list[Tensor]:
        """Return the four stage maps, each before its downsample: strides 4, 8, 16, 32, widths d, 2d, 4d, 8d.

        ``n_stages``: stop after so many.
        """
        x, maps = self.patch_embed(x), []
        for level in self.levels[:n_stages]:
            maps.append(level.mix(x))
            x = level.downsample(maps[-1])
        return maps


def build_classifier(width: int, num_classes: int) -> nn.Module:
    """Return the head: linear, or none for 0 classes."""
    return nn.Linear(width, num_classes) if num_classes else nn.Identity()


class Stem(nn.Module):
    """Two strided convolutions: an image to a map at stride 4."""

    def __init__(self, in_chans: int, in_dim: int, dim: int):
        super().__init__()
        self.conv_down = nn.Sequential(
            nn.Conv2d(in_chans, in_dim, 3, 2, 1, bias=False), nn.BatchNorm2d(in_dim, eps=1e-4), nn.ReLU(),
            nn.Conv2d(in_dim, dim, 3, 2, 1, bias=False), nn.BatchNorm2d(dim, eps=1e-4), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Halve the resolution twice."""
        return self.conv_down(x)


class Level(nn.Module):
    """One stage: its blocks, on the map or inside windows of it, then the downsample to the next stage."""

    def __init__(self, width: int, blocks: list[nn.Module], window: int | None, *, has_downsample: bool):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.width, self.window = width, window
        self.downsample = Downsample(width) if has_downsample else nn.Identity()

    def mix(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Run the blocks."""
        if self.window is None:
            for block in self.blocks:
                x = block(x)
            return x
        tokens = to_windows(x, self.window)
        for block in self.blocks:
            tokens = block(tokens)
        return from_windows(tokens, self.window, x.shape)


class Downsample(nn.Module):
    """A strided convolution that doubles the width."""

    def __init__(self, width: int):
        super().__init__()
        self.reduction = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Halve the resolution."""
        return self.reduction(x)


def stochastic_depth(rate: float) -> nn.Module:
    """Return the layer that drops a residual branch at random in training; at rate 0 none, and timm is not imported."""
    if not rate:
        return nn.Identity()
    from timm.layers import DropPath

    return DropPath(rate)


class ConvBlock(nn.Module):
    """x + DropPath(BN(conv(GELU(BN(conv(x))))))."""

    def __init__(self, width: int, drop_path: float):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width)
        self.act = nn.GELU(approximate="tanh")
        self.drop_path = stochastic_depth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Refine a map."""
        return x + self.drop_path(self.norm2(self.conv2(self.act(self.norm1(self.conv1(x))))))


def mixer_kinds(depth: int, mixer: str, token_blocks: str) -> list[str]:
    """Return the kind of mixer in each block of a stage: ``mixer`` first, attention in the last floor(depth / 2).

    ``ssm`` and ``attention`` use one kind throughout, ``none`` leaves the stage without blocks; they are controls of
    the hybrid and not part of MambaVision.
    """
    counts = {"hybrid": depth - depth // 2, "ssm": depth, "attention": 0, "none": 0}
    if token_blocks not in counts:
        raise ValueError(f"token_blocks must be one of {', '.join(counts)}, got {token_blocks!r}")
    depth = 0 if token_blocks == "none" else depth
    return [mixer if j < counts[token_blocks] else "attention" for j in range(depth)]


def build_mixers(width: int, depth: int, heads: int, mixer: str, token_blocks: str) -> list[nn.Module]:
    """Return the mixers of a stage, one per block (:func:`mixer_kinds`)."""
    mixers = {"selective": MambaMixer, "gated_conv": GatedConvMixer}
    if mixer not in mixers:
        raise ValueError(f"mixer must be one of {', '.join(mixers)}, got {mixer!r}")
    kinds = mixer_kinds(depth, mixer, token_blocks)
    return [Attention(width, heads) if kind == "attention" else mixers[kind](width) for kind in kinds]


class TokenBlock(nn.Module):
    """x + g1 mixer(LN(x)), then x + g2 MLP(LN(x)); g1, g2 are 1 or learnt per channel."""

    def __init__(self, width: int, mixer: nn.Module, mlp_ratio: float, drop_path: float, layer_scale: float | None):
        super().__init__()
        self.width, self.is_ssm = width, not isinstance(mixer, Attention)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixer, self.mlp = mixer, Mlp(width, round(width * mlp_ratio))
        self.drop_path = stochastic_depth(drop_path)
        self.gamma_1 = nn.Parameter(torch.full((width,), layer_scale)) if layer_scale else 1
        self.gamma_2 = nn.Parameter(torch.full((width,), layer_scale)) if layer_scale else 1

    def forward(self, x: Float[Tensor, "windows tokens dim"]) -> Float[Tensor, "windows tokens dim"]:
        """Mix tokens, then channels."""
        x = x + self.drop_path(self.gamma_1 * self.mixer(self.norm1(x)))
        return x + self.drop_path(self.gamma_2 * self.mlp(self.norm2(x)))


class Mlp(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix channels."""
        return self.fc2(self.act(self.fc1(x)))


class Attention(nn.Module):
    """Multi-head self-attention within a window."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"heads must divide the width {width}, got {heads}")
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "windows tokens dim"]) -> Float[Tensor, "windows tokens dim"]:
        """Apply self-attention to the tokens of a window."""
        windows, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(windows, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(windows, tokens, width))


class MambaMixer(nn.Module):
    """The selective scan on half of the channels, a convolution on the rest; [y, z] are concatenated."""

    def __init__(self, width: int):
        super().__init__()
        h, r = width // 2, math.ceil(width / 16)
        self.dt_rank, self.backend = r, "auto"  # of the scan
        self.in_proj = nn.Linear(width, width, bias=False)
        self.x_proj = nn.Linear(h, r + 2 * D_STATE, bias=False)
        self.dt_proj = nn.Linear(r, h)
        self.out_proj = nn.Linear(width, width, bias=False)
        self.conv1d_x = nn.Conv1d(h, h, D_CONV, padding=D_CONV // 2, groups=h, bias=False)
        self.conv1d_z = nn.Conv1d(h, h, D_CONV, padding=D_CONV // 2, groups=h, bias=False)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, D_STATE + 1, dtype=torch.float32)).repeat(h, 1))
        self.D = nn.Parameter(torch.ones(h))

    def forward(self, x: Float[Tensor, "windows tokens dim"]) -> Float[Tensor, "windows tokens dim"]:
        """Mix the tokens of a window in row-major order."""
        u, z = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)
        u, z = functional.silu(self.conv1d_x(u)), functional.silu(self.conv1d_z(z))
        delta, B, C = self.step_and_maps(u)
        # NOTE: the released network adds the bias of dt_proj twice, here and in the projection; its weights expect it.
        y = selective_scan(u, delta, -torch.exp(self.A_log.float()), B, C, self.D.float(),
                           delta_bias=self.dt_proj.bias.float(), delta_softplus=True, backend=self.backend)  # fmt: skip
        return self.out_proj(torch.cat([y, z], dim=1).transpose(1, 2))

    def step_and_maps(self, u: Float[Tensor, "windows channels tokens"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the scan's input-dependent delta (windows, h, tokens), B and C (windows, N, tokens)."""
        dt, B, C = self.x_proj(u.transpose(1, 2)).split([self.dt_rank, D_STATE, D_STATE], dim=-1)
        return self.dt_proj(dt).transpose(1, 2), B.transpose(1, 2), C.transpose(1, 2)


def to_windows(x: Float[Tensor, "batch dim height width"], w: int) -> Float[Tensor, "windows tokens dim"]:
    """Cut a map into w x w windows of row-major tokens; zeros are added at the right and the bottom."""
    batch, dim, height, width = x.shape
    rows, columns = covering(height, w), covering(width, w)
    x = functional.pad(x, (0, columns * w - width, 0, rows * w - height))
    x = x.reshape(batch, dim, rows, w, columns, w)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(batch * rows * columns, w * w, dim)


def from_windows(
    tokens: Float[Tensor, "windows tokens dim"], w: int, shape: torch.Size
) -> Float[Tensor, "batch dim height width"]:
    """Undo :func:`to_windows` for a map of this shape, dropping the padding."""
    batch, dim, height, width = shape
    rows, columns = covering(height, w), covering(width, w)
    x = tokens.reshape(batch, rows, columns, w, w, dim).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(batch, dim, rows * w, columns * w)[:, :, :height, :width]


def covering(length: int, w: int) -> int:
    """Return how many windows of side w cover a length, in arithmetic that ``torch.export`` follows.

    >>> covering(15, 14)
    2
    """
    return (length + w - 1) // w


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _init_step_size(module: nn.Module) -> None:
    """Give dt_proj Mamba's initialisation; as its bias b is added twice, b = softplus^-1(dt) / 2."""
    if isinstance(module, MambaMixer):
        nn.init.uniform_(module.dt_proj.weight, -(module.dt_rank**-0.5), module.dt_rank**-0.5)
        low, high = (math.log(bound) for bound in DT_RANGE)
        dt = torch.exp(torch.rand_like(module.dt_proj.bias) * (high - low) + low)
        with torch.no_grad():
            module.dt_proj.bias.copy_((dt + torch.log(-torch.expm1(-dt))) / 2)
