"""Drawing of synthetic mammograms: breast, tissue, pectoral muscle, film label, one or more masses.

The chest wall is on the left. Lengths are pixels of the film, intensities lie in [0, 1]. Only the masses depend on the
label, and benign and malignant masses overlap in every property.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

HEIGHT, WIDTH = 400, 256
POWER_LAW = 1.5  # amplitude ~ 1 / f^1.5: power-law exponent 3, as measured on mammograms


@dataclass(frozen=True)
class Mass:
    """One lesion: its size, margin irregularity, spiculation, contrast and position.

    ``from_nipple`` is the distance of its centre from the nipple, the same in both views; ``angle`` (radians, one per
    view) gives the direction.
    """

    radius: float
    raggedness: float
    spiculation: float
    contrast: float
    from_nipple: float
    angle: dict[str, float]
    seed: int


def draw_mass_properties(is_malignant: bool, generator: np.random.Generator) -> Mass:
    """Draw a lesion; malignant ones tend to be larger, more ragged and spiculated, with overlap."""
    shift = 1.0 if is_malignant else 0.0
    return Mass(
        radius=float(np.clip(generator.normal(13 + 2.5 * shift, 3.5), 7, 26)),
        raggedness=float(np.clip(generator.normal(0.08 + 0.13 * shift, 0.07), 0.0, 0.5)),
        spiculation=float(np.clip(generator.normal(0.05 + 0.55 * shift, 0.30), 0.0, 1.2)),
        contrast=float(np.clip(generator.normal(0.20, 0.05), 0.10, 0.36)),
        from_nipple=float(generator.uniform(55, 120)),
        angle={view: float(generator.uniform(-0.7, 0.7)) for view in ("CC", "MLO")},
        seed=int(generator.integers(2**31)),
    )


def draw_film(
    view: str, density: int, masses: list[Mass], generator: np.random.Generator
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return a film (HEIGHT, WIDTH) in [0, 1] and one bool mask per mass."""
    thickness, nipple = _outline(view, generator)
    film = thickness * (0.27 + _tissue(density, nipple, generator))
    if view == "MLO":
        film = np.maximum(film, _pectoral(generator) * (thickness > 0))
    masks = []
    for mass in masses:
        bump, mask = _mass(mass, _place(mass, view, nipple))
        film = film + bump * (0.4 + 0.6 * thickness)
        masks.append(mask)
    film = ndimage.gaussian_filter(film, 0.7) + generator.normal(0, 0.012, film.shape)
    return np.clip(film + _film_marks(view, generator), 0, 1), masks


def _outline(view: str, generator) -> tuple[np.ndarray, tuple[float, float]]:
    """Return compressed thickness in [0, 1], zero outside the breast, and the nipple's (row, column)."""
    row = HEIGHT * (0.5 if view == "CC" else 0.58) + generator.normal(0, 8)
    depth, half = generator.uniform(0.62, 0.82) * WIDTH, generator.uniform(0.36, 0.44) * HEIGHT
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    wobble = 1 + 0.02 * np.sin(3 * np.arctan2(y - row, x + 1) + generator.uniform(0, 6))
    inside = (x / depth) ** 2.2 + np.abs((y - row) / half) ** 2.2 < wobble
    if view == "MLO":
        inside |= (y < row) & (x < depth * 0.75 * (1 - 0.55 * np.abs(y - row) / HEIGHT) - 10)
    edge = ndimage.distance_transform_edt(np.pad(inside, ((0, 0), (1, 0)), mode="edge"))[:, 1:]
    return np.where(inside, 1 - 0.75 * np.exp(-edge / 16), 0.0), (row, depth * 0.97)


def _tissue(density: int, nipple, generator) -> np.ndarray:
    """Return fibroglandular tissue: power-law noise in a fan behind the nipple; more and whiter with density."""
    noise = _power_law_noise(generator)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    fan = np.exp(-(((y - nipple[0]) / 95) ** 2) - ((x - 0.55 * nipple[1]) / 75) ** 2)
    amount = {1: 0.05, 2: 0.10, 3: 0.16, 4: 0.21}[density]
    return amount * fan * np.clip(1 + noise, 0, 2.2) + 0.035 * noise


def _power_law_noise(generator) -> np.ndarray:
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(generator.normal(size=(HEIGHT, WIDTH))) / frequency**POWER_LAW
    noise = np.fft.irfft2(spectrum, s=(HEIGHT, WIDTH))
    return noise / noise.std()


def _pectoral(generator) -> np.ndarray:
    """Return the pectoral muscle of an MLO view: a bright triangle at the upper chest wall."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    width, height = generator.uniform(0.28, 0.42) * WIDTH, generator.uniform(0.42, 0.58) * HEIGHT
    inside = 1 - (x / width + y / height)
    return 0.55 / (1 + np.exp(-inside * 25)) * (1 + 0.05 * np.sin(y / 9 + x / 14))


def _place(mass: Mass, view: str, nipple: tuple[float, float]) -> tuple[float, float]:
    """Return the (row, column) of a mass: at its distance from the nipple, towards the chest wall."""
    row = nipple[0] + mass.from_nipple * np.sin(mass.angle[view])
    column = nipple[1] - mass.from_nipple * np.cos(mass.angle[view])
    return float(np.clip(row, 30, HEIGHT - 30)), float(np.clip(column, 30, WIDTH - 30))


def _mass(mass: Mass, centre: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the added intensity and the outline of a mass on the film: a star-shaped body and thin rays."""
    reach = round(3 * mass.radius) + 8
    top, left = (max(0, round(c) - reach) for c in centre)
    window = np.s_[top : round(centre[0]) + reach, left : round(centre[1]) + reach]
    bump, outline = np.zeros((HEIGHT, WIDTH)), np.zeros((HEIGHT, WIDTH), bool)
    y, x = (axis[window] for axis in np.mgrid[:HEIGHT, :WIDTH])
    distance, angle = np.hypot(y - centre[0], x - centre[1]), np.arctan2(y - centre[0], x - centre[1])
    generator = np.random.default_rng(mass.seed)
    edge = mass.radius * (1 + mass.raggedness * _waves(angle, generator))
    body = 1 / (1 + np.exp((distance - edge) / (1.0 + 6.4 * mass.raggedness)))
    rays = _rays(distance, angle, mass, generator)
    bump[window], outline[window] = mass.contrast * np.maximum(body, 0.8 * rays), distance < np.maximum(edge, 3)
    return bump, outline


def _waves(angle: np.ndarray, generator) -> np.ndarray:
    """Return a random closed contour's deviation from a circle."""
    strength, phase = generator.normal(size=7), generator.uniform(0, 2 * np.pi, 7)
    return sum(a / k**0.7 * np.cos(k * angle + p) for k, a, p in zip(range(2, 9), strength, phase, strict=True))


def _rays(distance: np.ndarray, angle: np.ndarray, mass: Mass, generator) -> np.ndarray:
    """Return spicules: thin lines that leave the body in random directions and fade."""
    rays = np.zeros_like(distance)
    for _ in range(round(14 * mass.spiculation)):
        direction, length = generator.uniform(-np.pi, np.pi), mass.radius * generator.uniform(1.4, 2.3)
        across = np.abs(np.angle(np.exp(1j * (angle - direction)))) * distance
        along = np.clip((length - distance) / length, 0, 1)
        rays = np.maximum(rays, np.exp(-((across / 1.1) ** 2)) * along * (distance > 0.5 * mass.radius))
    return rays


def _film_marks(view: str, generator) -> np.ndarray:
    """Return what is on the film beside the breast: an identification label with text, a view marker, a bright edge."""
    marks = np.zeros((HEIGHT, WIDTH))
    top = int(generator.integers(8, 40))
    marks[top : top + 26, WIDTH - 62 : WIDTH - 10] = 0.75
    marks[top + 4 : top + 22, WIDTH - 58 : WIDTH - 14] -= 0.5 * (generator.random((18, 44)) > 0.6)
    bottom = HEIGHT - int(generator.integers(30, 60))
    marks[bottom : bottom + 8, WIDTH - 34 : WIDTH - (14 if view == "CC" else 10)] = 0.9
    marks[:, -3:] = generator.uniform(0.3, 0.8)
    return marks
