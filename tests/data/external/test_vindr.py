"""VinDr-Mammo, on a synthetic folder: its two tables, its boxes, and no label of malignancy."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mammo_lib.data.external.detect import open_other
from mammo_lib.data.external.vindr import open_vindr
from mammo_lib.errors import InputError

# image, study, side, view, category, density
IMAGES = [
    ("a1", "s1", "L", "CC", "BI-RADS 4", "DENSITY C"),
    ("a2", "s1", "L", "MLO", "BI-RADS 4", "DENSITY C"),
    ("a3", "s1", "R", "CC", "BI-RADS 1", "DENSITY C"),
    ("b1", "s2", "R", "MLO", "BI-RADS 2", "DENSITY A"),
    ("b2", "s2", "R", "MLO", "BI-RADS 2", "DENSITY A"),  # taken twice
    ("b3", "s2", "L", "CC", "BI-RADS 5", None),  # no image
]
FINDINGS = [
    ("a1", "['Mass', 'Skin Thickening']", 10.0, 20.0, 40.0, 60.0),
    ("a1", "['Suspicious Calcification']", 0.0, 0.0, 70.0, 90.0),
    ("a2", "['Focal Asymmetry']", 5.5, 5.5, 30.0, 30.0),
    ("a3", "['No Finding']", None, None, None, None),
]


def write_tables(root, images=IMAGES, findings=FINDINGS, **options):
    frame = pd.DataFrame(images, columns=["image_id", "study_id", "laterality", "view_position", "breast_birads",
                                          "breast_density"])  # fmt: skip
    frame = frame.assign(series_id="x", height=100, width=80, split="training")
    frame.to_csv(root / "breast-level_annotations.csv", index=False, **options)
    columns = ["image_id", "finding_categories", "xmin", "ymin", "xmax", "ymax"]
    pd.DataFrame(findings, columns=columns).to_csv(root / "finding_annotations.csv", index=False, **options)


@pytest.fixture
def vindr(tmp_path):
    """Five of six images, as pictures."""
    write_tables(tmp_path)
    for image, study, *_ in IMAGES[:5]:
        folder = tmp_path / "images" / study
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((100, 80), 90, np.uint8)).save(folder / f"{image}.png")
    return tmp_path


def test_no_breast_has_a_label_and_readers_have_an_opinion(vindr):
    collection = open_vindr(vindr)
    breasts = collection.breasts.set_index("sample_id")
    assert breasts["label"].isna().all() and collection.about.truth == "readers"
    assert breasts["is_suspicious"].to_dict() == {"s1_LEFT": 1, "s1_RIGHT": 0, "s2_RIGHT": 0}
    assert breasts["density"].to_dict() == {"s1_LEFT": 3, "s1_RIGHT": 3, "s2_RIGHT": 1}
    assert breasts["lesion_type"].to_dict() == {"s1_LEFT": "mass", "s1_RIGHT": "none", "s2_RIGHT": "none"}


def test_the_crop_shows_a_mass_before_a_larger_calcification(vindr):
    collection = open_vindr(vindr)
    located = collection.locate(collection.breasts).query("stream == 'crop' and sample_id == 's1_LEFT'")
    boxes = located.set_index("view")[["x0", "y0", "x1", "y1"]]
    assert boxes.loc["CC"].tolist() == [0, 0, 60, 80]  # the mass, 20 px wider a side, cut at the image's edge
    assert boxes.loc["MLO"].tolist() == [0, 0, 50, 50]


def test_a_table_without_a_finding_marks_nothing(vindr):
    write_tables(vindr, findings=[])
    breasts = open_vindr(vindr).breasts
    assert not breasts["has_box"].any() and set(breasts["lesion_type"]) == {"none"}


def test_what_does_not_match_is_told(vindr):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(vindr / "images" / "stray.png")
    assert set(map(tuple, open_vindr(vindr).left_out.to_numpy())) == {
        ("b2", "a second image of its view"), ("b3", "no image"), ("stray", "no row in the table"),
    }  # fmt: skip


def test_a_finding_of_an_image_that_is_not_in_the_table_is_told(vindr):
    write_tables(vindr, findings=[*FINDINGS, ("a9", "['Mass']", 1.0, 1.0, 9.0, 9.0)])
    assert ("a9", "a finding without a row in the table") in set(map(tuple, open_vindr(vindr).left_out.to_numpy()))


def test_capital_letters_do_not_count_in_findings(vindr):
    before = open_vindr(vindr).table
    write_tables(vindr, findings=[(image, words.lower(), *box) for image, words, *box in FINDINGS])
    pd.testing.assert_frame_equal(open_vindr(vindr).table, before)


@pytest.mark.parametrize("options", [{"sep": ";"}, {"encoding": "utf-8-sig"}, {"lineterminator": "\r\n"}])
def test_separators_and_encodings_change_nothing(vindr, options):
    before = open_vindr(vindr).table
    write_tables(vindr, **options)
    pd.testing.assert_frame_equal(open_vindr(vindr).table, before)


def test_without_findings_nothing_is_marked(vindr):
    (vindr / "finding_annotations.csv").unlink()
    assert not open_vindr(vindr).breasts["has_box"].any()


def test_a_word_outside_the_vocabulary_is_named(vindr):
    write_tables(vindr, [("a1", "s1", "L", "CC", "BI-RADS 4", "dense")])
    with pytest.raises(InputError, match=r"row 2: breast_density must be one of DENSITY A, .* got 'dense'"):
        open_vindr(vindr)


def test_a_box_that_is_none_is_named(vindr):
    write_tables(vindr, findings=[("a1", "['Mass']", 40.0, 20.0, 10.0, 60.0)])
    with pytest.raises(InputError, match="row 2: xmax must be larger than xmin"):
        open_vindr(vindr)


def test_a_box_outside_of_its_image_is_refused_with_the_image(vindr, tiny_profile):
    write_tables(vindr, findings=[("a1", "['Mass']", 400.0, 20.0, 410.0, 60.0)])
    collection = open_vindr(vindr)
    with pytest.raises(InputError, match=r"a1.png: a lesion at 405, 40 outside of 80 x 100"):
        collection.prepare(collection.breasts, *tiny_profile.run.inputs)


def test_a_folder_whose_name_is_not_utf8_is_refused(vindr, tmp_path_factory):
    folder = shutil.copytree(vindr, tmp_path_factory.mktemp("named") / os.fsdecode(b"caf\xe9"))
    with pytest.raises(InputError, match=r"\\udce9.*: the name is not in UTF-8; rename the file, or the folder"):
        open_other(folder)
