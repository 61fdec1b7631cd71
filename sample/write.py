"""Write the sample again from a copy of the 800-px films: `python sample/write.py DATA`.

The eight breasts follow a rule that uses no score: among the breasts of validation fold 0 with one lesion, the first
benign and the first malignant breast of each breast density, in order of patients.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from pathlib import Path

import pandas as pd

from mammo_lib.config import get_profile
from mammo_lib.data import open_collection
from mammo_lib.data.cbis_ddsm import find_tables
from mammo_lib.data.cohort import split_cohort
from mammo_lib.data.films import measure_surroundings
from mammo_lib.files import file_hash, write_csv

SAMPLE = Path(__file__).parent
VIEWS = ("CC", "MLO")


def write_sample(root: Path) -> None:
    """Copy the tables, and films, boxes and sizes of the eight breasts; measure the test films; hash every file."""
    profile = get_profile("mirror")
    collection = open_collection(profile, root)
    data = profile.run.data
    held_out = split_cohort(data, collection.cohort(data, "train"))["validation"]
    single = held_out[held_out["n_lesions"] == 1]
    breasts = single.groupby(["density", "label"])["breast_id"].first().str.removeprefix("P_")
    films = [f"{breast}_{view}" for breast in sorted(breasts) for view in VIEWS]

    for name in ("tables", "mass-800"):
        shutil.rmtree(SAMPLE / name, ignore_errors=True)
    (SAMPLE / "tables").mkdir()
    for path in find_tables(root):
        packed = gzip.compress(path.read_bytes(), mtime=0)
        (SAMPLE / "tables" / f"{path.name}.gz").write_bytes(packed)
    source, target = root / "mass-800", SAMPLE / "mass-800"
    (target / "train").mkdir(parents=True)
    for film in films:
        shutil.copyfile(source / "train" / f"{film}.jpg", target / "train" / f"{film}.jpg")
    boxes = pd.read_csv(source / "lesion_boxes.csv", dtype=str, keep_default_na=False)
    named = boxes["patient_id"].str.removeprefix("P_") + "_" + boxes["laterality"] + "_" + boxes["view"]
    boxes[named.isin(films) & (boxes["split"] == "train")].to_csv(target / "lesion_boxes.csv", index=False)
    sizes = pd.read_csv(source / "original_size_estimate.csv", dtype=str, keep_default_na=False)
    sizes[sizes["image"].isin(films)].to_csv(target / "original_size_estimate.csv", index=False)

    test = collection.cohort(data, "test")
    write_csv(SAMPLE / "films.csv", measure_surroundings(collection.source.locate(test)).round(6))
    copied = sorted(path for folder in ("tables", "mass-800") for path in (SAMPLE / folder).rglob("*.*"))
    files = [SAMPLE / "films.csv", *copied]
    hashes = {path.relative_to(SAMPLE).as_posix(): file_hash(path) for path in files}
    (SAMPLE / "manifest.json").write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_sample(Path(sys.argv[1]))
