"""State-space kernels, their cost, and the opening of a single gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from .style import GREY, canvas


def kernel_curves(kernels: Mapping[str, np.ndarray], title: str | None = None) -> Figure:
    """Draw convolution kernels (or impulse responses) over lag; by default the title gives the reach of each."""
    figure, axes = canvas(height=3.2)
    halves = {}
    for name, kernel in kernels.items():
        values = np.asarray(kernel)
        axes.plot(np.arange(len(values)), values, label=name)
        halves[name] = int(np.argmax(np.cumsum(np.abs(values)) >= 0.5 * np.abs(values).sum()))
    axes.set(xlabel="lag, tokens", ylabel="weight, per unit of step")
    reach = ", ".join(f"{lag} at {name}" for name, lag in halves.items())
    axes.set_title(title or f"Half of the kernel's weight lies within lag {reach}")
    axes.legend()
    return figure


def cost_curves(lengths: Sequence[int], seconds: Mapping[str, Sequence[float]]) -> Figure:
    """Draw time over sequence length on logarithmic axes; the title gives the growth from first to last length."""
    figure, axes = canvas()
    for name, times in seconds.items():
        axes.loglog(lengths, 1e3 * np.asarray(times), "o-", label=name)
    axes.set(xlabel="sequence length, tokens", ylabel="milliseconds")
    axes.set_xticks(list(lengths), [str(n) for n in lengths], minor=False)
    axes.minorticks_off()
    growth = ", ".join(f"{times[-1] / times[0]:.0f}" for times in seconds.values())
    tokens = lengths[-1] // lengths[0]
    axes.set_title(f"{tokens} times the tokens cost {growth} times the time (in the order of the legend)")
    axes.legend()
    return figure


def gate_opening(biases: np.ndarray, opening: np.ndarray, marked: float) -> Figure:
    """Draw a gate's opening and its slope G (1 - G) over its bias, with one bias marked."""
    biases, opening = np.asarray(biases), np.asarray(opening)
    figure, axes = canvas(height=3.2)
    axes.plot(biases, opening, label="opening G")
    axes.plot(biases, opening * (1 - opening), label="slope G (1 - G)")
    at = int(np.argmin(np.abs(biases - marked)))
    axes.axvline(marked, color=GREY, linestyle=":", label=f"start, b = {marked:g}")
    axes.set(xlabel="bias of the gate", ylabel="opening, slope")
    slope = opening[at] * (1 - opening[at])
    axes.set_title(f"At b = {marked:g}, a gate is {opening[at]:.0%} open and has a slope of {slope:.2f}")
    axes.legend()
    return figure
