"""A synthetic copy of mini-MIAS: one MLO film per breast and the table that says where the lesions are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..external.mias import SIDE
from .pixels import draw_film, draw_mass_properties

TABLE = "Info.txt"


def write_mias_phantom(root: Path, *, n_breasts: int, seed: int) -> None:
    """Write the films of ``n_breasts`` breasts, malignant and benign in turn, each with one mass; then the table."""
    root.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(1, n_breasts + 1):
        generator = np.random.default_rng([seed, number])
        is_malignant = number % 4 in (1, 2)  # so that both sides of the body have both labels
        film, [mask] = draw_film("MLO", int(generator.integers(1, 5)), [draw_mass_properties(is_malignant, generator)],
                                 generator)  # fmt: skip
        scale = SIDE / len(film)
        pixels = Image.fromarray(np.round(film * 255).astype(np.uint8))
        square = Image.new("L", (SIDE, SIDE))
        square.paste(pixels.resize((round(film.shape[1] * scale), SIDE)))
        square.save(root / f"mdb{number:03d}.pgm", format="PPM")
        rows, columns = np.nonzero(mask)
        x, y, radius = (round(scale * one) for one in (columns.mean(), rows.mean(), np.ptp(rows) / 2))
        lines.append(f"mdb{number:03d} G {'SPIC M' if is_malignant else 'CIRC B'} {x} {SIDE - y} {max(1, radius)}")
    (root / TABLE).write_text("\n".join(lines) + "\n", encoding="latin-1")
