"""The optimiser's parameter groups and the schedule of its learning rate."""

from __future__ import annotations

import math

from torch import nn


def parameter_groups(
    model: nn.Module, weight_decay: float, learning_rate: float, encoder_learning_rate: float
) -> list[dict]:
    """Split parameters by rate (backbones, the rest) and decay (matrices; vectors, ``A_log`` and ``D`` never decay)."""
    groups: dict[tuple[float, float], list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_exempt = parameter.ndim <= 1 or name.endswith((".A_log", ".D"))
            rate = encoder_learning_rate if ".backbone." in name else learning_rate
            groups.setdefault((rate, 0.0 if is_exempt else weight_decay), []).append(parameter)
    return [{"params": own, "lr": rate, "weight_decay": decay} for (rate, decay), own in groups.items()]


def cosine_schedule(total_steps: int, warmup_steps: int):
    """Return step -> factor of the peak learning rate: linear warm-up, then half a cosine down to zero."""
    warmup = min(total_steps - 1, warmup_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total_steps - warmup)))

    return factor
