"""Maps over mammograms, always shown next to the plain image."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from .style import BLUE, GREY, LABEL_COLOURS, ORANGE, PALETTE, canvas, headline, literal, p_in_words

MAP_COLOURS = "cividis"  # perceptually uniform, and safe for people with colour-vision deficiency
COVER = 0.55  # opacity of a map: tissue stays visible under it
BARS_MM = (1, 2, 5, 10, 20, 50)  # lengths of a scale bar
NOTICE_COLOUR = "#8B0000"


def draw_image(axes, image: np.ndarray, box=None) -> None:
    """Draw an image in grey, with the lesion's box (x0, y0, x1, y1) if it is known."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=max(1e-6, float(np.quantile(image, 0.999))))
    axes.set_axis_off()
    if box is not None:
        x0, y0, x1, y1 = box
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=ORANGE, linewidth=1.4))


def draw_scale(axes, width: int, pixel_mm: float) -> None:
    """Draw the longest bar of ``BARS_MM`` within two fifths of an image's width (pixels), or else the shortest."""
    fits = [length for length in BARS_MM if length <= 0.4 * width * pixel_mm] or BARS_MM[:1]
    bar = AnchoredSizeBar(
        axes.transData, fits[-1] / pixel_mm, f"{fits[-1]} mm", loc="lower right", color="white", pad=0.3, borderpad=0.2,
        label_top=True, size_vertical=0.012 * width, fill_bar=True, fontproperties=FontProperties(size=8),
    )  # fmt: skip
    bar.patch.set(facecolor="black", edgecolor="none", alpha=0.6)
    axes.add_artist(bar)


def draw_mammogram(axes, image: np.ndarray, box=None) -> None:
    """Draw a mammogram, cropped to the breast, with its aspect ratio."""
    draw_image(axes, image, box)
    rows, columns = (np.flatnonzero((image > 0).any(axis=axis)) for axis in (1, 0))
    if rows.size:
        axes.set(xlim=(-0.5, columns[-1] + 0.5), ylim=(rows[-1] + 0.5, -0.5))


def draw_map(axes, image: np.ndarray, values: np.ndarray, box=None, limits: tuple[float, float] | None = None):
    """Draw a map (height, width) over its mammogram, within the breast; return the image for a colour bar."""
    draw_mammogram(axes, image, box)
    # The background of a mammogram is black, and a map means nothing there.
    inside = np.ma.masked_where((image <= 0) | ~np.isfinite(values), values)
    low, high = limits or (float(inside.min()), float(inside.max()))
    return axes.imshow(inside, cmap=MAP_COLOURS, alpha=COVER, vmin=low, vmax=max(high, low + 1e-9))


def map_cases(
    images: Sequence[np.ndarray], maps: Sequence[Mapping[str, np.ndarray]], names: Sequence[str], title: str,
    boxes: Sequence | None = None, gates: Sequence[Mapping[str, Mapping[str, float]]] | None = None,
) -> Figure:  # fmt: skip
    """Draw one breast per row: its mammogram, then its maps. Each kind of map has its own column and scale.

    ``gates``, one value per block for each input, are drawn beside the mammogram.
    """
    widths = [1, *([2] if gates is not None else []), *[1] * len(maps[0])]
    height = (1.75 if gates is None else 2.6) * len(images) + 0.5
    figure, axes = canvas(7, height, len(images), len(widths), squeeze=False, width_ratios=widths)
    for i, row in enumerate(axes):
        box = None if boxes is None else boxes[i]
        draw_mammogram(row[0], images[i], box)
        row[0].set_title(literal(names[i]), fontsize=8, loc="center")
        for ax, (name, values) in zip(row[len(row) - len(maps[i]) :], maps[i].items(), strict=True):
            _mapped_panel(ax, images[i], values, box, name)
        if gates is not None:
            _gate_lines(row[1], gates[i])
    headline(figure, title)
    return figure


def _mapped_panel(axes, image: np.ndarray, values: np.ndarray, box=None, name: str = "") -> None:
    draw_map(axes, image, values, box)
    seen = values[(image > 0) & np.isfinite(values)]
    axes.set_title(f"{name}\n{_span(seen)}".strip(), y=1, fontsize=8, loc="center")


def _plain_panel(axes, image: np.ndarray | None, box, name: str, absent: str) -> None:
    axes.set_axis_off()
    # With ``y`` given, matplotlib does not search for a position, which would take a quarter of the drawing time.
    axes.set_title(name, y=1, fontsize=9, loc="center")
    if image is None:
        axes.text(0.5, 0.5, absent, ha="center", va="center", color=GREY, transform=axes.transAxes)
    else:
        draw_mammogram(axes, image, box)


def _span(values: np.ndarray) -> str:
    """Return the range with as many decimals as give its larger end three significant digits."""
    if not values.size or not values.any():
        return "zero everywhere"
    low, high = float(values.min()), float(values.max())
    decimals = max(0, 2 - int(np.floor(np.log10(max(abs(low), abs(high))))))
    return f"{low:.{decimals}f} to {high:.{decimals}f}"


def lesion_shares(shares: Mapping[str, object]) -> Figure:
    """Draw each map's mean in the lesion's box, compared with the same box at random places in the breast.

    ``shares`` maps names to the results of :func:`mammo_lib.analysis.lesion_shares.lesion_share`. Orange: p below 0.05.
    """
    figure, axes = canvas(width=7, height=0.32 * len(shares) + 1.3)
    for y, one in enumerate(shares.values()):
        axes.plot([one.low, one.high], [y, y], color=GREY, linewidth=7, alpha=0.35, solid_capstyle="butt")
        axes.plot(one.chance, y, marker="|", color=GREY, markersize=13, linestyle="none")
        colour = ORANGE if one.p < 0.05 else BLUE
        axes.plot(one.value, y, marker="o", color=colour, linestyle="none")
        axes.annotate(f"{p_in_words(one.p)}, n = {one.n}", (1.01, y), xycoords=("axes fraction", "data"), va="center",
                      fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(shares)), map(literal, shares))
    axes.invert_yaxis()
    axes.margins(y=0.35 / len(shares) + 0.1)
    axes.set_xlabel(
        "ratio of the means in the lesion's box and in the breast; grey: boxes at random places, mean and central 95 %"
    )
    axes.xaxis.label.set_size(8)
    axes.tick_params(labelsize=8)
    beyond = sum(one.p < 0.05 for one in shares.values())
    verb = "differs" if beyond < 2 else "differ"
    numbers = sorted({one.n for one in shares.values()})
    size = f"n = {numbers[0]}" if len(numbers) == 1 else f"n = {numbers[0]} to {numbers[-1]}"
    axes.set_title(f"{beyond or 'None'} of {len(shares)} maps {verb} from chance in the lesion, {size}")
    return figure


def prediction_sheet(
    images: Mapping[tuple[str, str], np.ndarray | None], maps: Mapping[tuple[str, str], np.ndarray], map_name: str,
    gates: Mapping[str, Mapping[str, float]], probability: float, threshold: float, lines: Sequence[str],
    notes: Sequence[str], notice: str,
) -> Figure:  # fmt: skip
    """Draw one breast's prediction on one page, which grows with its text.

    ``images`` and ``maps`` are (height, width) by (stream, view), None if an image is missing. ``gates`` has one value
    per block for each input. ``lines``, the first as a title, and ``notes``, which a reader must not miss, are printed
    at the top, ``notice`` at the bottom.
    """
    title, text, warnings = _wrapped(lines[:1], 68), _wrapped(lines[1:], 104), _wrapped(notes, 90)
    n, header = len(images), 0.3 + 0.2 * len(title) + 0.17 * (len(text) + len(warnings))
    middle = 4.0 if n > 2 else 5.0
    height = header + middle + 2.9
    # Positions in inches from the top: a layout engine would take as long as the rest of the drawing.
    figure = Figure(figsize=(7, height))
    at = 0.1
    for part, step, style in (
        (title, 0.2, {"fontsize": 11, "fontweight": "bold"}), (text, 0.17, {"fontsize": 8}),
        (warnings, 0.17, {"fontsize": 8, "fontweight": "bold", "color": NOTICE_COLOUR}),
    ):  # fmt: skip
        for line in part:
            figure.text(0.01, 1 - at / height, literal(line), va="top", **style)
            at += step
        at += 0.05
    grid = figure.add_gridspec(
        2, n, left=0.01, right=0.99, top=1 - (header + 0.2) / height, bottom=1 - (header + middle - 0.2) / height,
        hspace=0.12, wspace=0.08,
    )  # fmt: skip
    for (key, image), plain, covered in zip(images.items(), *grid.subplots(squeeze=False), strict=True):
        for axes in (plain, covered):
            axes.set_anchor("N")
        covered.set_axis_off()
        _plain_panel(plain, image, None, " ".join(key), "not given")
        if image is not None and key in maps:
            _mapped_panel(covered, image, maps[key])
    caption = f"upper row: input of the network; lower row: {map_name}"
    figure.text(0.5, 1 - (header + middle) / height, literal(caption), fontsize=8, ha="center", va="center")
    left, right = figure.add_gridspec(
        1, 2, left=0.02, right=0.99, top=2.45 / height, bottom=0.98 / height, width_ratios=[1, 1.25], wspace=0.22
    ).subplots()
    _probability_scale(left, probability, threshold)
    _gate_lines(right, gates)
    figure.text(0.5, 0.1 / height, notice, ha="center", fontsize=8.5, fontweight="bold", color=NOTICE_COLOUR)
    return figure


def _wrapped(paragraphs: Sequence[str], width: int) -> list[str]:
    return [line for one in paragraphs for line in textwrap.wrap(one, width)]


def _probability_scale(axes, probability: float, threshold: float) -> None:
    axes.barh([0], [1], color="#E6E6E6", height=0.5)
    axes.barh([0], [probability], color=LABEL_COLOURS[int(probability >= threshold)], height=0.5)
    axes.axvline(threshold, color="black", linestyle="--", linewidth=1.2)
    is_low = threshold < 0.5
    axes.annotate(
        f"threshold {threshold:.2f}", (threshold, 0.36), xytext=(4 if is_low else -4, 0), textcoords="offset points",
        ha="left" if is_low else "right", fontsize=8,
    )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(-0.9, 0.9), yticks=[])
    axes.tick_params(labelsize=8)
    axes.set_xlabel("probability of malignancy", fontsize=8)
    axes.set_title(f"Network's output: {probability:.2f}", fontsize=9)
    axes.grid(visible=False, axis="y")


def _gate_lines(axes, gates: Mapping[str, Mapping[str, float]], shown: str = "", block: str = "") -> None:
    """Draw a line of gates per input through the depth; ``shown`` in black, ``block`` marked."""
    if not gates:
        axes.set_axis_off()
        axes.text(0, 0.5, "This network has no SeqMoE gates.", fontsize=9, va="center", transform=axes.transAxes)
        return
    blocks = list(dict.fromkeys(block for values in gates.values() for block in values))
    for (name, values), colour, marker in zip(gates.items(), PALETTE, "osD^v<", strict=False):
        is_shown = name == shown
        axes.plot([blocks.index(b) for b in values], list(values.values()), marker=marker, markersize=5, label=name,
                  color="black" if is_shown else colour, linewidth=2.2 if is_shown else 1.3)  # fmt: skip
    if block in blocks:
        axes.axvspan(blocks.index(block) - 0.2, blocks.index(block) + 0.2, color=GREY, alpha=0.25, linewidth=0)
    axes.set_xticks(range(len(blocks)), blocks)
    axes.tick_params(labelsize=8)
    axes.set(ylim=(-0.03, 1.03))
    axes.set_xlabel("stage.block", fontsize=8)
    axes.set_ylabel("gate", fontsize=8)
    axes.set_title("SeqMoE gates, from image to decision", fontsize=9)
    # Below the axes, at a distance in points: inside the axes the legend would cover gates that are shut.
    axes.legend(fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=4, frameon=False)


def gate_view(
    image: np.ndarray | None, values: np.ndarray | None, map_name: str, box,
    gates: Mapping[str, Mapping[str, float]], shown: str, block: str, title: str,
) -> Figure:  # fmt: skip
    """Draw one view of one breast, a map over it, and the gates of every input over depth.

    ``shown`` is the displayed input, ``block`` the block of the map. An image or map that is None is absent.
    """
    figure, (plain, covered, depth) = canvas(width=7, height=3.4, columns=3, width_ratios=[1, 1, 1.3])
    covered.set_axis_off()
    _plain_panel(plain, image, box, shown, "not available for this breast")
    if values is not None:
        _mapped_panel(covered, image, values, box, map_name)
    else:
        covered.set_title(f"{map_name}\nno map: one value per image", fontsize=8, loc="center")
    _gate_lines(depth, gates, shown, block)
    headline(figure, title)
    return figure
