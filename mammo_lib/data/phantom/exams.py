"""A synthetic copy of CBIS-DDSM: DICOM tree, description tables, and the original's defects planted in known numbers.

With it, everything runs without a download. Its numbers show that the software works, and say nothing about patients.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import filelock
import numpy as np
from tqdm import tqdm

from ...config import MAX_BREASTS
from ...errors import InputError, writing_to
from ...files import new_folder, read_json
from ..cbis_ddsm.defects import (
    CONFLICT,
    DEFECTS,
    DENSITY,
    NEWLINE,
    ONE_SERIES,
    OTHER_NAME,
    OTHER_SIZE,
    PATIENT_ID,
    REVERSED,
    SAME_NAME,
    SHARED_PATIENTS,
    SINGLE_VIEW,
    SPELLING,
    STAMP,
    SWAPPED,
)
from ..views import CROP_MARGIN, SPLITS, VIEWS
from .layouts import CROP, FILM, LAYOUTS, MASK, PhantomImage, open_tree, write_rows
from .pixels import Mass, draw_film, draw_mass_properties

VERSION = 2  # raise it when a change here moves pixels or tables
TRAIN_SHARE = 2 / 3
MALIGNANT_SHARE = 0.45
BOTH_SIDES_EVERY = 12  # every n-th breast belongs to the patient before it
TWO_LESIONS_EVERY = 10
SWAPPED_IDS = 1  # breasts whose lesion ids are swapped between views
SAME_NAME_EVERY = 9  # lesions whose crop and mask are both called 000000.dcm, in different series
OTHER_SIZE_EVERY = 16  # lesions whose mask is smaller than its film
HEADER = ["patient_id", "breast_density", "left or right breast", "image view", "abnormality id", "abnormality type"]
MORPHOLOGY = {"mass": ["mass shape", "mass margins"], "calcification": ["calc type", "calc distribution"]}
TAIL = ["assessment", "pathology", "subtlety", "image file path", "cropped image file path", "ROI mask file path"]


@dataclass(frozen=True)
class Breast:
    """One breast to draw: its patient, its lesions and its views."""

    patient_id: str
    laterality: str
    split: str
    lesion_type: str
    pathologies: tuple[str, ...]
    density: int
    views: tuple[str, ...] = VIEWS


@dataclass
class Planted:
    """The planted defects of a phantom, and the size of its ``paper`` cohort."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DEFECTS, 0))
    cohort: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, name: str, n: int = 1) -> None:
        """Count a planted defect."""
        self.counts[name] = self.counts.get(name, 0) + n


def write_phantom(root: str | Path, *, n_breasts: int, seed: int, layout: str = "classic") -> None:
    """Write a phantom of ``n_breasts`` two-view, one-label mass breasts (two thirds training), plus defective ones.

    ``layout`` is one of ``classic nbia flat idc kaggle mirror-800``, the layouts of the original. The same arguments
    give the same bytes. An existing phantom is left unchanged. A killed call leaves nothing in ``root``.

    Raises
    ------
    InputError
        ``root`` contains something else or cannot be written, ``n_breasts`` is out of bounds, or the layout is unknown.
    """
    root = new_folder(root)
    wanted = {"n_breasts": n_breasts, "seed": seed, "layout": layout, "version": VERSION}
    if layout not in LAYOUTS:
        raise InputError(f"unknown phantom layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    if not 12 <= n_breasts <= MAX_BREASTS:
        raise InputError(f"a phantom has 12 to {MAX_BREASTS} breasts, got {n_breasts}")
    with writing_to(root):
        if root.exists() and any(root.iterdir()):
            if _stamp_of(root) != wanted:
                raise InputError(f"{root}: contains something other than this phantom; give an empty or a new folder")
            return
        _write_whole(root, wanted)


def _write_whole(root: Path, wanted: dict) -> None:
    """Write the phantom into a hidden folder beside its place and move it there."""
    remove_abandoned(root)
    partial = root.with_name(f".{root.name}.{os.getpid()}")
    partial.mkdir(parents=True)  # first: in a folder that cannot be written, the lock would wait for ever
    lock = _lock_of(partial)
    try:
        with lock:
            planted = _write_tree(open_tree(partial, wanted["layout"]), wanted["n_breasts"], wanted["seed"])
            (partial / STAMP).write_text(
                json.dumps(wanted | {"planted": planted.counts, "cohort": planted.cohort}, indent=1) + "\n"
            )
            if root.exists():
                root.rmdir()
            os.replace(partial, root)
    except OSError:
        if _stamp_of(root) != wanted:  # another process may have finished the same phantom first
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)


def remove_abandoned(root: Path) -> None:
    """Remove the hidden folders of killed processes that were writing ``root``; a running process holds a lock."""
    found = root.parent.glob(f".{glob.escape(root.name)}.*")
    for partial in {path.with_suffix("") if path.suffix == ".lock" else path for path in found}:
        if not partial.suffix[1:].isdigit():
            continue
        lock = _lock_of(partial)
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(partial, ignore_errors=True)
        except filelock.Timeout:
            continue
        Path(lock.lock_file).unlink(missing_ok=True)


def _lock_of(partial: Path) -> filelock.BaseFileLock:
    return filelock.FileLock(f"{partial}.lock")


def _stamp_of(root: Path) -> dict | None:
    try:
        stamp = read_json(root / STAMP)
    except InputError:
        return None
    return {key: stamp.get(key) for key in ("n_breasts", "seed", "layout", "version")}


def _write_tree(tree, n_breasts: int, seed: int) -> Planted:
    generator, planted = np.random.default_rng([VERSION, seed]), Planted()
    cohort = _plan_cohort(n_breasts, generator)
    for split in SPLITS:
        malignant = ["MALIGNANT" in breast.pathologies for breast in cohort if breast.split == split]
        planted.cohort[split] = {"rows": len(malignant), "malignant": sum(malignant)}
    breasts = [*cohort, *_plan_defective(n_breasts, generator, planted)]
    rows: dict[tuple[str, str], list[list]] = {}
    for number, breast in enumerate(tqdm(breasts, desc="phantom", unit="breast", dynamic_ncols=True)):
        own = np.random.default_rng([VERSION, seed, number])
        for row in _write_breast(tree, breast, number, own, planted):
            rows.setdefault((breast.lesion_type, breast.split), []).append(row)
    for (lesion_type, split), lines in rows.items():
        _write_table(tree.tables, lesion_type, split, lines, planted)
    tree.finish()
    planted.add(PATIENT_ID, tree.n_files)
    planted.add(OTHER_NAME, tree.n_files if tree.renames else 0)
    return planted


def _plan_cohort(n_breasts: int, generator) -> list[Breast]:
    """Plan the breasts that the ``paper`` definition keeps."""
    breasts, n_train = [], round(n_breasts * TRAIN_SHARE)
    is_malignant = np.concatenate([_shuffled_labels(n, generator) for n in (n_train, n_breasts - n_train)])
    for i in range(n_breasts):
        split = "train" if i < n_train else "test"
        is_twin = i % BOTH_SIDES_EVERY == 1 and breasts[-1].split == split
        patient = breasts[-1].patient_id if is_twin else f"P_{i + 1:05d}"
        side = (
            {"LEFT": "RIGHT", "RIGHT": "LEFT"}[breasts[-1].laterality]
            if is_twin
            else str(generator.choice(["LEFT", "RIGHT"]))
        )
        benign = str(generator.choice(["BENIGN", "BENIGN", "BENIGN_WITHOUT_CALLBACK"]))
        n_lesions = 2 if i % TWO_LESIONS_EVERY == 4 else 1
        pathologies = ("MALIGNANT" if is_malignant[i] else benign,) * n_lesions
        breasts.append(Breast(patient, side, split, "mass", pathologies, int(generator.integers(1, 5))))
    return breasts


def _shuffled_labels(n: int, generator) -> np.ndarray:
    return generator.permutation(np.arange(n) < round(n * MALIGNANT_SHARE))


def _plan_defective(n_breasts: int, generator, planted: Planted) -> list[Breast]:
    """Plan what the ``paper`` definition drops: conflicting labels, single views, calcifications, split patients."""
    first = n_breasts + 1
    kinds = [
        (CONFLICT, "mass", ("MALIGNANT", "BENIGN"), VIEWS),
        (SINGLE_VIEW, "mass", ("MALIGNANT",), ("CC",)),
        (SINGLE_VIEW, "mass", ("BENIGN",), ("MLO",)),
        ("calcification breasts", "calcification", ("BENIGN",), VIEWS),
        ("calcification breasts", "calcification", ("MALIGNANT",), VIEWS),
    ]
    breasts = []
    for split in ("train", "test"):
        for name, lesion_type, pathologies, views in kinds:
            patient = f"P_{first + len(breasts):05d}"
            breasts.append(
                Breast(patient, "LEFT", split, lesion_type, pathologies, int(generator.integers(1, 5)), views)
            )
            planted.add(name)
    # A calcification training breast of a patient whose mass breast is in the test set.
    breasts.append(Breast(f"P_{n_breasts:05d}", "LEFT", "train", "calcification", ("BENIGN",), 2))
    planted.add("calcification breasts")
    planted.add(SHARED_PATIENTS)
    return breasts


def _write_breast(tree, breast: Breast, number: int, generator, planted: Planted) -> list[list]:
    """Draw the films of a breast, write their files, and return the table rows."""
    masses = [draw_mass_properties(p == "MALIGNANT", generator) for p in breast.pathologies]
    descriptions = [_describe(mass, breast.lesion_type, generator) for mass in masses]
    is_swapped = len(masses) == 2 and descriptions[0] != descriptions[1] and planted.counts[SWAPPED] < SWAPPED_IDS
    planted.add(SWAPPED, int(is_swapped))
    kind = "Mass" if breast.lesion_type == "mass" else "Calc"
    rows = []
    for view in breast.views:
        case = (
            f"{kind}-{'Training' if breast.split == 'train' else 'Test'}_{breast.patient_id}_{breast.laterality}_{view}"
        )
        film, masks = draw_film(view, breast.density, masses, generator)
        if breast.laterality == "RIGHT":
            film, masks = film[:, ::-1], [mask[:, ::-1] for mask in masks]
        image_path = _add(tree, case, FILM, 0, film)
        for i, mass in enumerate(masses):
            lesion_id = (2 - i) if is_swapped and view == "MLO" else i + 1
            crop_path, mask_path = _write_lesion(
                tree, f"{case}_{lesion_id}", film, masks[i], number, breast.lesion_type, planted
            )
            head = [breast.patient_id, breast.density, breast.laterality, view, lesion_id, breast.lesion_type]
            pathology = breast.pathologies[i]
            reading = [*descriptions[i], _assess(mass, pathology), pathology, _subtlety(mass)]
            rows.append([*head, *reading, image_path, crop_path, mask_path])
    return rows


def _write_lesion(tree, case: str, film, mask, number: int, lesion_type: str, planted: Planted) -> tuple[str, str]:
    """Write crop and mask in the forms found in the original; return their table paths."""
    crop = _cut_out(film, mask)
    if number % OTHER_SIZE_EVERY == 3:
        mask = mask[:-1, :-2]
        planted.add(OTHER_SIZE)
    if number % SAME_NAME_EVERY == 2:
        planted.add(SAME_NAME)
        return _add(tree, case, CROP, 0, crop), _add(tree, case, MASK, 0, mask)
    crop_first = lesion_type == "mass"
    planted.add(REVERSED, 0 if crop_first else 1)
    planted.add(ONE_SERIES)
    crop_path = _add(tree, case, MASK, 0 if crop_first else 1, crop)
    return crop_path, _add(tree, case, MASK, 1 if crop_first else 0, mask)


def _add(tree, case: str, description: str, instance: int, pixels: np.ndarray) -> str:
    image = PhantomImage(case, description, instance, pixels)
    tree.add(image)
    return image.table_path


def _cut_out(film: np.ndarray, mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = max(0, rows[0] - CROP_MARGIN), max(0, columns[0] - CROP_MARGIN)
    return film[top : rows[-1] + CROP_MARGIN + 1, left : columns[-1] + CROP_MARGIN + 1]


def _describe(mass: Mass, lesion_type: str, generator) -> list[str]:
    """Return shape and margins (or calcification type and distribution) as a reader of these pixels would."""
    if lesion_type == "calcification":
        return [str(generator.choice(["PLEOMORPHIC", "AMORPHOUS", "PUNCTATE"])), "CLUSTERED"]
    shape = "ROUND" if mass.raggedness < 0.08 else "LOBULATED" if mass.raggedness < 0.16 else "IRREGULAR"
    margins = "SPICULATED" if mass.spiculation > 0.35 else "ILL_DEFINED" if mass.raggedness > 0.14 else "CIRCUMSCRIBED"
    return [shape, margins]


def _assess(mass: Mass, pathology: str) -> int:
    """Return the BI-RADS assessment that suits the pixels; a lesion without callback is a 2."""
    if pathology == "BENIGN_WITHOUT_CALLBACK":
        return 2
    return 3 + (mass.spiculation > 0.25 or mass.raggedness > 0.16) + (mass.spiculation > 0.55)


def _subtlety(mass: Mass) -> int:
    """Return 1 (subtle) to 5 (obvious), from the contrast."""
    return int(np.clip(1 + (mass.contrast - 0.10) / 0.05, 1, 5))


def _write_table(folder: Path, lesion_type: str, split: str, lines: list[list], planted: Planted) -> None:
    """Write a description table with the original's flaws: a newline in a path cell, two spellings of density."""
    is_mass = lesion_type == "mass"
    header = [*HEADER, *MORPHOLOGY[lesion_type], *TAIL]
    broken = -1 if is_mass else -2
    if not is_mass:
        header[1] = "breast density"
        lines[0][1] = 0
        planted.add(DENSITY)
        planted.add(SPELLING, len(lines))
    planted.add(NEWLINE, len(lines))
    lines = [[*line[:broken], line[broken] + "\n", *line[len(line) + broken + 1 :]] for line in lines]
    write_rows(folder / f"{lesion_type[:4]}_case_description_{split}_set.csv", header, lines)
