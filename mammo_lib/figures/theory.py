"""State-space models step by step: discretisation, kernels, the scan and its cost; then gates by themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from .style import BLUE, GREY, ORANGE, canvas, headline, legend_below


def step_responses(
    responses: Mapping[float, Mapping[str, np.ndarray]], exact: Callable[[np.ndarray], np.ndarray]
) -> Figure:
    """Draw the response of each discretisation to a step input, {dt: {name: states}}, over the exact solution.

    A state is drawn at the end of its step, the first at time dt. The title gives the largest error of each.
    """
    figure, axes = canvas(height=3.2, columns=len(responses), squeeze=False)
    errors = {}
    for ax, (dt, states) in zip(axes[0], responses.items(), strict=True):
        end = max(len(values) for values in states.values()) * dt
        fine = np.linspace(0, end, 200)
        ax.plot(fine, exact(fine), color=GREY, label="exact solution")
        for (name, values), mark in zip(states.items(), "osd", strict=False):
            times = dt * np.arange(1, len(values) + 1)
            ax.plot(times, values, mark, markersize=5, label=name)
            errors.setdefault(name, []).append(np.abs(np.asarray(values) - exact(times)).max())
        ax.set(xlabel="time, in decay times of the state", ylabel="state h", title=f"dt = {dt:g}")
    legend_below(figure, axes[0, 0], ncols=2)
    found = "; ".join(f"{name} {', '.join(f'{one:.2f}' for one in values)}" for name, values in errors.items())
    headline(figure, f"Largest error at dt = {', '.join(f'{dt:g}' for dt in responses)}:\n{found}")
    return figure


def memory_maps(kernels: Mapping[str, np.ndarray], side: int, row: int, column: int) -> Figure:
    """Draw how much each token of a window weighs in the output at one of them, read row by row.

    The weights are those of a kernel, relative to the token's own. The title gives the weight of the token above.
    """
    figure, axes = canvas(width=7, height=3.6, columns=len(kernels), squeeze=False)
    at, above = row * side + column, []
    for ax, (name, kernel) in zip(axes[0], kernels.items(), strict=True):
        weights = np.full(side * side, np.nan)
        weights[: at + 1] = np.abs(np.asarray(kernel)[at::-1] / kernel[0])
        above.append(weights[at - side])
        shown = ax.imshow(weights.reshape(side, side), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        ax.plot(column, row, "o", color=ORANGE, markersize=4)
        ax.set_facecolor("0.85")
        ax.grid(visible=False)
        ax.set(xlabel="column, tokens", title=name)
        ax.locator_params(integer=True, nbins=4)
    axes[0, 0].set_ylabel("row, tokens")
    figure.colorbar(shown, ax=axes, label="weight, own token = 1", location="bottom", shrink=0.4, aspect=30)
    shares = ", ".join(f"{weight:.0%}" for weight in above)
    headline(figure, f"The token above is {side} steps back and weighs {shares} of the token itself")
    return figure


def scan_chunks(states: np.ndarray, chunk: int) -> Figure:
    """Draw the states (length, N) of one channel, the ones that a compiled scan keeps, and the order of its work."""
    figure, (top, bottom) = canvas(height=4.2, rows=2, sharex=True, height_ratios=(3, 1))
    states = np.concatenate([np.zeros_like(states[:1]), states])  # before each token, and after the last
    length = len(states) - 1
    starts = np.arange(0, length, chunk)
    top.plot(states, color=BLUE, alpha=0.5, linewidth=0.8)
    top.plot(np.repeat(starts, states.shape[1]), states[starts].ravel(), "o", color=ORANGE, markersize=4)
    for start in starts:
        top.axvline(start, color=GREY, linestyle=":", linewidth=0.8)
    for line, order in enumerate((starts, starts[::-1])):
        for number, start in enumerate(order, start=1):
            width = min(chunk, length - start)
            bottom.broken_barh([(start, width)], (line - 0.4, 0.8), facecolor="0.9", edgecolor=GREY)
            bottom.text(start + width / 2, line, number, ha="center", va="center", fontsize=8)
    bottom.set_yticks([0, 1], ["forward", "backward"])
    bottom.invert_yaxis()
    bottom.grid(visible=False)
    bottom.set_xlabel("order in which the chunks are visited")
    top.set(xlabel="token", ylabel=f"the {states.shape[1]} numbers of a state")
    headline(
        figure,
        f"Of {length} states the forward pass keeps {len(starts)} (orange);\n"
        "the backward pass recomputes one chunk at a time",
    )
    return figure


def precision_curves(errors: Mapping[str, np.ndarray]) -> Figure:
    """Draw the largest relative error so far, over the tokens; a curve ends at a cross where it is no longer finite.

    The title counts the tokens before each end. Errors below the machine epsilon of float64 are drawn at it.
    """
    figure, axes = canvas(height=3.6)
    ends = []
    for name, error in errors.items():
        finite = np.isfinite(np.asarray(error))
        end = len(finite) if finite.all() else int(np.argmin(finite))
        largest = np.maximum.accumulate(np.maximum(np.asarray(error)[:end], np.finfo(float).eps))
        [line] = axes.semilogy(np.arange(end), largest, label=name)
        if end < len(finite):
            axes.semilogy(end - 1, largest[-1], "X", markersize=9, color=line.get_color())
            ends.append(f"{end} tokens ({name})")
    axes.set(xlabel="token", ylabel="largest relative error so far")
    legend_below(figure, axes, ncols=2)
    axes.set_title(f"Overflow after {', '.join(ends)}" if ends else f"No overflow in {len(finite)} tokens")
    return figure


def kernel_curves(kernels: Mapping[str, np.ndarray], title: str | None = None) -> Figure:
    """Draw convolution kernels (or impulse responses) over lag; by default the title says how far each reaches."""
    figure, axes = canvas(height=3.2)
    halves = {}
    for name, kernel in kernels.items():
        values = np.asarray(kernel)
        axes.plot(np.arange(len(values)), values, label=name)
        halves[name] = int(np.argmax(np.cumsum(np.abs(values)) >= 0.5 * np.abs(values).sum()))
    axes.set(xlabel="lag, tokens", ylabel="weight, per unit of step")
    reach = ", ".join(f"{lag} at {name}" for name, lag in halves.items())
    axes.set_title(title or f"Half of the kernel's weight lies\nwithin lag {reach}")
    axes.legend()
    return figure


def cost_curves(lengths: Sequence[int], seconds: Mapping[str, Sequence[float]]) -> Figure:
    """Draw time against sequence length, both on logarithmic axes; the title gives each growth from end to end."""
    figure, axes = canvas()
    for name, times in seconds.items():
        axes.loglog(lengths, 1e3 * np.asarray(times), "o-", label=name)
    axes.set(xlabel="sequence length, tokens", ylabel="milliseconds")
    axes.set_xticks(list(lengths), [str(n) for n in lengths], minor=False)
    axes.minorticks_off()
    growth = ", ".join(f"{times[-1] / times[0]:.0f}" for times in seconds.values())
    tokens = lengths[-1] // lengths[0]
    axes.set_title(f"{tokens} times the tokens take {growth} times as long (in the order of the legend)")
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
    axes.set_title(f"At b = {marked:g} a gate is {opening[at]:.0%} open and keeps a slope of {slope:.2f}")
    axes.legend()
    return figure


def routing_plans(shares: np.ndarray, gates: Mapping[str, float]) -> Figure:
    """Draw a router's share of the first of two experts by token, (rows, columns), beside one gate for each block."""
    figure, (left, right) = canvas(width=7, height=3.2, columns=2)
    shares = np.asarray(shares)
    shown = left.imshow(shares, cmap="PuOr", vmin=0, vmax=1, interpolation="nearest")
    left.grid(visible=False)
    left.set(xlabel="column, tokens", ylabel="row, tokens", title="parallel: which expert")
    figure.colorbar(shown, ax=left, label="share of expert 1", location="bottom", shrink=0.6)
    right.barh(list(gates), list(gates.values()), color=BLUE)
    right.invert_yaxis()
    right.set(xlim=(0, 1), xlabel="gate G", ylabel="block", title="SeqMoE: how much of each block")
    headline(
        figure, f"The router decides {shares.size} times, once per token;\nSeqMoE {len(gates)} times, once per block"
    )
    return figure


def gate_learning(openings: Mapping[str, np.ndarray], wanted: np.ndarray) -> Figure:
    """Draw mean gates over training, {kind: (steps, images)}, apart for images whose block is wanted and unwanted."""
    figure, axes = canvas(height=3.4)
    right = []
    for (kind, values), style in zip(openings.items(), ("-", ":"), strict=False):
        for is_wanted, colour in ((True, BLUE), (False, ORANGE)):
            name = f"{kind}, block {'needed' if is_wanted else 'harmful'}"
            axes.plot(values[:, wanted == is_wanted].mean(1), style, color=colour, label=name)
        right.append(f"{int(((values[-1] > 0.5) == wanted).sum())} of {len(wanted)} ({kind})")
    axes.set(xlabel="training step", ylabel="gate G, mean over images", ylim=(-0.03, 1.03))
    steps = len(next(iter(openings.values())))
    axes.set_title(f"After {steps} steps the gate is right for {', '.join(right)} images")
    legend_below(figure, axes, ncols=2)
    return figure
