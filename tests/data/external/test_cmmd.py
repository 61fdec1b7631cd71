"""A second collection: CMMD's table and DICOM folder become the rows and images that everything else reads."""

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from mammo_lib.data.cohort import build_cohort
from mammo_lib.data.external import adapter
from mammo_lib.data.external.cmmd import adapt_cmmd, open_cmmd
from mammo_lib.errors import InputError

# patient, side, abnormality, classification; the images of a breast: which tag says the view
TABLE = [
    ("D1-0001", "R", "mass", "Malignant"),
    ("D1-0002", "L", "both", "Benign"),
    ("D1-0003", "L", "calcification", "Malignant"),
    ("D1-0004", "R", "mass", "Benign"),  # no image
    ("D1-0005", "R", "mass", "Malignant"),  # CC only
]
VIEWS_OF = {"D1-0001R": "CC MLO", "D1-0001L": "CC MLO", "D1-0002L": "CC MLO", "D1-0003L": "CC MLO", "D1-0005R": "CC"}
CODES = {"CC": "399162004", "MLO": "R-10226"}


def write_image(path, patient, side, view, *, by_code=True):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.Modality, dataset.PatientID, dataset.ImageLaterality = "MG", patient, side
    if by_code:
        dataset.ViewCodeSequence = [Dataset()]
        dataset.ViewCodeSequence[0].CodeValue = CODES[view]
    else:
        dataset.ViewPosition = view
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 64, 48, 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    row, column = np.mgrid[:64, :48]
    breast = ((row - 32) / 24) ** 2 + ((column if side == "L" else 47 - column) / 30) ** 2 < 1
    dataset.PixelData = np.where(breast, 120 + row, 0).astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def write_table(root, rows=TABLE, sep=","):
    frame = pd.DataFrame(rows, columns=["ID1", "LeftRight", "abnormality", "classification"])
    frame = frame.assign(Age=50, number=2, subtype="")[
        ["ID1", "LeftRight", "Age", "number", "abnormality", "classification", "subtype"]
    ]
    frame.to_csv(root / "CMMD_clinicaldata_revision.csv", index=False, sep=sep)


@pytest.fixture
def cmmd(tmp_path):
    """Five patients in the archive's folders."""
    for breast, views in VIEWS_OF.items():
        for number, view in enumerate(views.split(), start=1):
            folder = tmp_path / "CMMD" / breast[:-1] / "07-18-2010-NA-NA-79377" / f"1.000000-NA-{breast[-1]}"
            write_image(folder / f"1-{number}.dcm", breast[:-1], breast[-1], view, by_code=breast != "D1-0002L")
    write_table(tmp_path)
    return tmp_path


def test_a_mass_cohort_has_the_breasts_with_two_views_and_a_label(cmmd):
    collection = open_cmmd(cmmd)
    cohort = build_cohort(collection.table, "paper", "test").set_index("sample_id")
    # 0001 LEFT has no row, 0003 is a calcification, 0004 has no image, 0005 one view
    assert cohort["label"].to_dict() == {"D1-0001_RIGHT": 1, "D1-0002_LEFT": 0}
    assert cohort["density"].isna().all()
    assert len(build_cohort(collection.table, "any-view", "test")) == 3
    assert len(build_cohort(collection.table, "mass+calc", "test")) == 3


def test_what_does_not_match_is_told(cmmd):
    told = open_cmmd(cmmd).source.unmatched
    assert set(map(tuple, told.to_numpy())) == {
        ("D1-0001", "LEFT", "no row in the clinical table"),
        ("D1-0004", "RIGHT", "no image"),
    }


def test_a_second_image_of_a_view_is_told(cmmd):
    write_image(cmmd / "zz.dcm", "D1-0001", "L", "CC")
    write_image(cmmd / "zzz.dcm", "D1-0001", "L", "CC")
    told = open_cmmd(cmmd).source.unmatched
    assert (told["reason"] == "a second image of its view").sum() >= 1


@pytest.mark.parametrize(
    "tags", [{"EstimatedRadiographicMagnificationFactor": "1.8"}, {"PaddleDescription": "SPOT 10CM"}], ids=str
)
def test_a_spot_view_does_not_take_the_place_of_the_standard_view(cmmd, tags):
    """Its file comes first by name."""
    before = open_cmmd(cmmd).table
    path = cmmd / "CMMD" / "0.dcm"
    write_image(path, "D1-0001", "R", "CC")
    spot = pydicom.dcmread(path)
    for name, value in tags.items():
        setattr(spot, name, value)
    spot.save_as(path)
    opened = open_cmmd(cmmd)
    pd.testing.assert_frame_equal(opened.table, before)
    assert ("D1-0001", "RIGHT", "not a standard CC or MLO view") in set(map(tuple, opened.source.unmatched.to_numpy()))


def test_the_tables_name_may_be_in_small_letters(cmmd):
    table = next(cmmd.glob("CMMD_clinicaldata*.csv"))
    before = open_cmmd(cmmd).table
    table.rename(cmmd / "cmmd_clinicaldata_revision.CSV")
    pd.testing.assert_frame_equal(open_cmmd(cmmd).table.drop(columns="table"), before.drop(columns="table"))


def test_a_semicolon_is_a_separator_too(cmmd):
    before = open_cmmd(cmmd).table
    write_table(cmmd, sep=";")
    pd.testing.assert_frame_equal(open_cmmd(cmmd).table, before)


def test_whole_views_are_prepared_and_crops_are_absent(cmmd, tiny_profile):
    prepared = open_cmmd(cmmd).prepare("test", *tiny_profile.run.inputs, workers=1)
    assert sorted(zip(prepared.index["view"], prepared.index["stream"], strict=True)) == [
        ("CC", "whole"), ("CC", "whole"), ("MLO", "whole"), ("MLO", "whole"),
    ]  # fmt: skip
    assert prepared.problems.empty


def test_a_network_reads_the_missing_stream_as_a_mask(cmmd, tiny_profile):
    import torch

    from mammo_lib.data.loader import in_cohort_order as batches
    from mammo_lib.models import build_model

    prepared = open_cmmd(cmmd).prepare("test", *tiny_profile.run.inputs, workers=1)
    [batch] = batches(prepared, tiny_profile.run.train)
    assert batch["present"]["whole"].all() and not batch["present"]["crop"].any()
    model = build_model(tiny_profile.run).eval()
    with torch.inference_mode():
        expected = model(batch).logits
        batch["images"]["crop"] = torch.rand_like(batch["images"]["crop"])
        assert torch.equal(model(batch).logits, expected)


def test_a_trained_run_is_scored_on_it_at_its_own_threshold(cmmd, tiny_profile, tmp_path):
    import torch

    from mammo_lib.models.network import Network
    from mammo_lib.runs.evaluate import score_elsewhere
    from mammo_lib.runs.records import Run, write_json

    run = Run(tmp_path / "run")
    run.folder.mkdir()
    write_json(run.folder / "config.json", tiny_profile.run.model_dump(mode="json"))
    torch.save({"state_dict": Network(tiny_profile.run).state_dict()}, run.checkpoint)
    kept = {"split": ["validation"], "label": [1], "probability": [0.5], "threshold": [0.4], "temperature": [1.5]}
    run.finish(pd.DataFrame(kept), {"validation": {}})
    scores = score_elsewhere(run, open_cmmd(cmmd))
    assert scores["sample_id"].tolist() == ["D1-0001_RIGHT", "D1-0002_LEFT"]
    assert scores["probability"].between(0, 1).all()
    assert (scores[["threshold", "temperature"]] == [0.4, 1.5]).all(axis=None)
    assert set(scores["split"]) == {"external"}


def test_a_network_of_crops_alone_has_nothing_to_look_at(cmmd, tiny_profile):
    crops = tiny_profile.run.model_copy(
        update={"model": tiny_profile.run.model.model_copy(update={"streams": ("crop",)})}
    )
    with pytest.raises(
        InputError, match="no view of the cohort is left for the streams crop; this collection has none"
    ):
        open_cmmd(cmmd).prepare("test", *crops.inputs, workers=1)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("D1-0001", "X", "mass", "Benign"), "row 2: LeftRight must be one of L, R, got 'X'"),
        (("D1-0001", "L", "cyst", "Benign"), "row 2: abnormality must be one of mass, calcification, both, got 'cyst'"),
        (("D1-0001", "L", "mass", "Normal"), "row 2: classification must be one of Benign, Malignant, got 'Normal'"),
    ],
)
def test_unknown_words_are_refused(cmmd, row, message):
    write_table(cmmd, [row])
    with pytest.raises(InputError, match=message):
        open_cmmd(cmmd)


def test_the_published_spreadsheet_must_be_saved_as_csv(cmmd):
    table = cmmd / "CMMD_clinicaldata_revision.csv"
    table.rename(table.with_suffix(".xlsx"))
    with pytest.raises(InputError, match="save as CSV"):
        open_cmmd(cmmd)


def test_a_truncated_file_is_named(cmmd):
    path = next(cmmd.rglob("1-1.dcm"))
    path.write_bytes(b"<html>")
    with pytest.raises(InputError, match=f"{path.name}: the header cannot be read"):
        open_cmmd(cmmd)


def test_a_side_that_is_neither_is_named(cmmd):
    write_image(cmmd / "CMMD" / "odd.dcm", "D1-0009", "B", "CC")
    with pytest.raises(InputError, match=r"odd\.dcm: ImageLaterality must be L or R, got 'B'"):
        open_cmmd(cmmd)


def test_it_comes_under_the_protocol_of_other_collections(cmmd, tiny_profile):
    from mammo_lib.data.external import open_other

    other = open_other(cmmd)
    breasts = other.breasts.set_index("sample_id")
    assert breasts["label"].to_dict() == {"D1-0001_RIGHT": 1, "D1-0002_LEFT": 0, "D1-0003_LEFT": 1, "D1-0005_RIGHT": 1}
    assert not breasts["has_box"].any() and (other.about.key, other.about.licence) == ("cmmd", "CC BY 4.0")
    assert set(map(tuple, other.left_out.to_numpy())) == {
        ("D1-0001_LEFT", "no row in the clinical table"), ("D1-0004_RIGHT", "no image"),
    }  # fmt: skip
    prepared = other.prepare(other.breasts, *tiny_profile.run.inputs)
    assert set(prepared.index["stream"]) == {"whole"} and len(prepared.index) == 7  # three breasts of two views, one CC


def test_a_size_that_could_not_be_read_is_read_again(cmmd, monkeypatch):
    def refuse(path):
        raise InputError(f"{path}: the network drive did not answer")

    other = adapt_cmmd(cmmd)
    with monkeypatch.context() as patch:
        patch.setattr(adapter, "image_shape", refuse)
        assert set(other._shapes(other.breasts).values()) == {"the network drive did not answer"}
    assert set(map(tuple, other._shapes(other.breasts).values())) == {(64, 48)}
