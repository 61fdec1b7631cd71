"""The layouts of a phantom on disk: those of CBIS-DDSM, written from the same images."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

VERSION = 1  # raise it when a change here moves bytes
FILM, CROP, MASK = "full mammogram images", "cropped images", "ROI mask images"
LAYOUTS = ("classic", "nbia", "flat", "idc", "kaggle", "mirror-800")
MIRROR_SIDE = 800
MASK_MARGIN = 1  # pixels by which the mirror's boxes are too large on each side


@dataclass(frozen=True)
class PhantomImage:
    """One image of a series: a film, a crop or a mask (bool), with the names that the tables give it."""

    case: str
    description: str
    instance: int
    pixels: np.ndarray

    @property
    def study(self) -> str:
        """StudyInstanceUID."""
        return generate_uid(entropy_srcs=[str(VERSION), self.case, "study"])

    @property
    def series(self) -> str:
        """SeriesInstanceUID."""
        return generate_uid(entropy_srcs=[str(VERSION), self.case, self.description])

    @property
    def uid(self) -> str:
        """SOPInstanceUID."""
        return generate_uid(entropy_srcs=[self.case, self.description, str(self.instance)])

    @property
    def table_path(self) -> str:
        """The path that the tables state, whatever the layout."""
        return f"{self.case}/{self.study}/{self.series}/{self.instance:06d}.dcm"


def open_tree(root: Path, layout: str):
    """Return a writer with ``add(image)`` and ``finish()``."""
    return {"kaggle": KaggleTree, "mirror-800": MirrorTree}.get(layout, DicomTree)(root, layout)


class DicomTree:
    """DICOM files in one of the download layouts."""

    def __init__(self, root: Path, layout: str):
        self.root, self.layout, self.tables = root, layout, root
        self.n_files, self.renames = 0, layout != "classic"

    def add(self, image: PhantomImage) -> None:
        """Write one file."""
        self.n_files += 1
        path = self.root / self._path(image)
        path.parent.mkdir(parents=True, exist_ok=True)
        _dicom(image).save_as(path, enforce_file_format=True)

    def finish(self) -> None:
        """Write nothing: this layout has no tables."""

    def _path(self, image: PhantomImage) -> str:
        if self.layout == "nbia":
            study = f"08-29-2017-DDSM-NA-{image.study[-5:]}"
            return f"{image.case}/{study}/1.000000-{image.description}-{image.series[-5:]}/1-{image.instance + 1}.dcm"
        if self.layout == "flat":
            return f"{image.series}/{image.instance + 1:08d}.dcm"
        if self.layout == "idc":
            return f"{image.case}/{image.study}/MG_{image.series}/{image.uid}.dcm"
        return image.table_path


class KaggleTree:
    """8-bit JPEG files in one folder per series, and a table with the content of the DICOM headers."""

    renames = True

    def __init__(self, root: Path, layout: str):
        self.root, self.tables, self.rows = root, root / "csv", []

    @property
    def n_files(self) -> int:
        """Files written so far."""
        return len(self.rows)

    def add(self, image: PhantomImage) -> None:
        """Write one file."""
        path = Path("jpeg") / image.series / f"{image.instance + 1}-{len(self.rows) % 1000:03d}.jpg"
        _save_jpeg(self.root / path, image.pixels)
        height, width = image.pixels.shape
        self.rows.append({"image_path": f"CBIS-DDSM/{path.as_posix()}", "SeriesInstanceUID": image.series,
                          "SeriesDescription": image.description, "Rows": height, "Columns": width,
                          "PatientID": image.case, "Laterality": "L" if "LEFT" in image.case else "R"})  # fmt: skip

    def finish(self) -> None:
        """Write ``csv/dicom_info.csv``."""
        self.tables.mkdir(exist_ok=True)
        pd.DataFrame(self.rows).to_csv(self.tables / "dicom_info.csv", index=False)


class MirrorTree:
    """Films stretched to a square, with the boxes of the lesion masks and the films' sizes; masses only."""

    n_files, renames = 0, False  # it keeps no DICOM file, so none can be misnamed

    def __init__(self, root: Path, layout: str):
        self.root, self.tables, self.films, self.boxes = root / "mass-800", root / "tables", {}, []

    def add(self, image: PhantomImage) -> None:
        """Write a film, or note a mask's box."""
        kind, split, patient, side, view, *lesion = image.case.replace("_P_", "_").replace("-", "_").split("_")
        if kind != "Mass":
            return
        split = "train" if split == "Training" else "test"
        name = f"{patient}_{side}_{view}"
        if image.description == FILM:
            stretched = Image.fromarray(_bytes(image.pixels)).resize((MIRROR_SIDE, MIRROR_SIDE))
            _save_jpeg(self.root / split / f"{name}.jpg", np.asarray(stretched))
            self.films[name] = split, *image.pixels.shape
        elif image.pixels.dtype == bool:
            rows, columns = (np.flatnonzero(image.pixels.any(axis=axis)) for axis in (1, 0))
            _, height, width = self.films[name]
            x0, x1 = (MIRROR_SIDE * v / width for v in (columns[0] - MASK_MARGIN, columns[-1] + 1 + MASK_MARGIN))
            y0, y1 = (MIRROR_SIDE * v / height for v in (rows[0] - MASK_MARGIN, rows[-1] + 1 + MASK_MARGIN))
            self.boxes.append([split, f"P_{patient}", side, view, int(lesion[0]), x0, y0, x1, y1])

    def finish(self) -> None:
        """Write the two tables beside the films."""
        names = ["split", "patient_id", "laterality", "view", "abnormality_id", "x0", "y0", "x1", "y1"]
        boxes = pd.DataFrame(self.boxes, columns=names)
        several = boxes.groupby(names[1:4])["abnormality_id"].transform("size") > 1
        boxes["abnormality_id"] = boxes["abnormality_id"].astype("Int64").mask(several)  # not known in the original
        boxes.to_csv(self.root / "lesion_boxes.csv", index=False)
        sizes = [[split, name, height, width] for name, (split, height, width) in self.films.items()]
        columns = ["split", "image", "rows", "cols_est"]
        pd.DataFrame(sizes, columns=columns).to_csv(self.root / "original_size_estimate.csv", index=False)


def write_rows(path: Path, header: list[str], lines: list[list]) -> None:
    """Write a description table, including newlines inside cells."""
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype == np.uint8 else np.round(pixels * 255.0).astype(np.uint8)


def _save_jpeg(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_bytes(pixels)).save(path, quality=95)


def _dicom(image: PhantomImage) -> Dataset:
    """Return a secondary capture, 16 bit (8 bit for a mask)."""
    is_mask = image.pixels.dtype == bool
    stored = image.pixels.astype(np.uint8) * 255 if is_mask else np.round(image.pixels * 65535).astype("<u2")
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = image.uid
    dataset.file_meta.ImplementationClassUID = generate_uid(entropy_srcs=["mammo_lib phantom"])
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = image.study, image.series
    # As in the original, the patient of a DICOM file is its case: grouping by it would leak.
    dataset.PatientID = dataset.PatientName = image.case
    dataset.SeriesDescription, dataset.Modality = image.description, "MG"
    dataset.Laterality = "L" if "LEFT" in image.case else "R"
    dataset.PatientOrientation = "CC" if "_CC" in image.case else "MLO"
    dataset.InstanceNumber, dataset.SamplesPerPixel = image.instance + 1, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    bits = stored.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits, bits - 1, 0
    dataset.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    dataset["PixelData"].VR = "OW" if bits == 16 else "OB"
    return dataset
