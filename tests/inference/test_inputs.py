"""Images from a user: what joins them into a breast, what keeps them apart, and which are not standard views."""

import os
import random
import shutil

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, generate_uid

from mammo_lib.data import header_tags
from mammo_lib.errors import InputError
from mammo_lib.inference import checked_images
from mammo_lib.inference.checked_images import read_checked
from mammo_lib.inference.identify import identify, identify_surely
from mammo_lib.inference.inputs import find_breasts, name_breast
from mammo_lib.runs.executor import in_child

PIXELS = np.tile(np.linspace(4000, 0, 240), (400, 1)).astype("<u2")


def film(path, **tags):
    """Write a film of one patient and study; a tag that is None is left out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.2", generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    usual = {
        "PatientID": "W1", "StudyInstanceUID": "1.2.3", "Modality": "MG", "Rows": 400, "Columns": 240,
        "SamplesPerPixel": 1, "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0,
        "PhotometricInterpretation": "MONOCHROME2", "ImageLaterality": "L", "ViewPosition": "CC",
    }  # fmt: skip
    for name, value in (usual | tags).items():
        if value is not None:
            setattr(dataset, name, value)
    dataset.PixelData = PIXELS.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def item(**tags):
    dataset = Dataset()
    for name, value in tags.items():
        setattr(dataset, name, value)
    return Sequence([dataset])


def found(folder):
    """Return name -> number of images of every breast, and what was refused."""
    refused = []
    breasts = find_breasts([folder], refused)
    assert all("\n" not in line for line in refused)
    return {breast.name: len(breast.images) for breast in breasts}, refused


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"PatientID": None}, {"PatientID": None, "StudyInstanceUID": "1.2.4"}),
        ({"PatientID": ""}, {"PatientID": "", "StudyInstanceUID": "1.2.4"}),
        ({"PatientID": "removed"}, {"PatientID": "removed", "StudyInstanceUID": "1.2.4"}),
        ({"PatientID": "Anonymous"}, {"PatientID": "ANONYMIZED", "StudyInstanceUID": "1.2.4"}),
        ({"PatientID": "000000"}, {"PatientID": "000000", "StudyInstanceUID": "1.2.4"}),
        ({"PatientID": None, "AccessionNumber": "7", "StudyInstanceUID": None}, {"PatientID": None}),
        ({"PatientID": "A"}, {"PatientID": "B"}),
    ],
)
def test_images_that_nothing_joins_are_breasts_of_their_own(tmp_path, first, second):
    film(tmp_path / "s1" / "a.dcm", **first)
    film(tmp_path / "s2" / "b.dcm", ViewPosition="MLO", **second)
    names, refused = found(tmp_path)
    assert (sorted(names.values()), refused) == ([1, 1], [])


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ({"StudyDate": "20190101"}, {"StudyDate": "20210101"}, "several examinations (StudyDate 20190101, 20210101)"),
        ({}, {"StudyInstanceUID": "1.2.4"}, "several examinations (StudyInstanceUID 1.2.3, 1.2.4)"),
        ({"AccessionNumber": "7"}, {"AccessionNumber": "8"}, "several examinations (AccessionNumber 7, 8)"),
        ({"PatientName": "A"}, {"PatientName": "B"}, "several patients (PatientName A, B)"),
        ({"PatientBirthDate": "19500101"}, {"PatientBirthDate": "19610101"}, "several patients (PatientBirthDate 1950"),
        (
            {"PatientID": None, "StudyInstanceUID": None},
            {"PatientID": "removed", "StudyInstanceUID": None},
            "cannot be joined into one breast",
        ),
    ],
)
def test_images_of_two_patients_or_examinations_are_refused_in_one_line(tmp_path, first, second, reason):
    film(tmp_path / "a.dcm", **first)
    film(tmp_path / "b.dcm", ViewPosition="MLO", **second)
    names, [line] = found(tmp_path)
    assert not names
    assert str(tmp_path / "a.dcm") in line
    assert str(tmp_path / "b.dcm") in line
    assert reason in line


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {}),
        ({"PatientID": "anon"}, {"PatientID": "anon"}),  # joined by the study
        ({"PatientName": "DOE^JANE"}, {"PatientName": "Doe^Jane "}),
        ({"PatientName": "removed"}, {"PatientName": "Doe^Jane"}),
        ({"StudyInstanceUID": None}, {"StudyInstanceUID": None}),
        (  # CBIS-DDSM: every view a patient and a study
            {"PatientID": "Mass-Test_P_00016_LEFT_CC"},
            {"PatientID": "Mass-Test_P_00016_LEFT_MLO", "StudyInstanceUID": "1.2.4", "StudyDate": "20170101"},
        ),
    ],
)
def test_images_of_one_examination_are_one_breast(tmp_path, first, second):
    film(tmp_path / "a.dcm", **first)
    film(tmp_path / "b.dcm", ViewPosition="MLO", **second)
    names, refused = found(tmp_path)
    assert (list(names.values()), refused) == ([2], [])


def test_a_name_does_not_join_what_tags_part(tmp_path):
    film(tmp_path / "anna_L_CC.dcm", PatientID="Mass-Test_P_00001_LEFT_CC")
    film(tmp_path / "anna_L_MLO.dcm", PatientID="Mass-Test_P_00002_LEFT_MLO", ViewPosition="MLO")
    names, [line] = found(tmp_path)
    assert not names
    assert "several patients (PatientID Mass-Test_P_00001, Mass-Test_P_00002)" in line
    given = {("whole", "CC"): tmp_path / "anna_L_CC.dcm", ("whole", "MLO"): tmp_path / "anna_L_MLO.dcm"}
    with pytest.raises(InputError, match="several patients"):
        name_breast(given)


def test_breasts_whose_predictions_would_be_one_file_are_told(tmp_path):
    for name, patient in (("a\n", "12/345"), ("b", "12:345"), ("c", "p1"), ("d", "P1"), ("e", "other")):
        film(tmp_path / f"{name}.dcm", PatientID=patient)
    names, refused = found(tmp_path)
    assert names == {"other_LEFT": 1}
    assert ["12_345_left.json" in line for line in refused] == [True, False]
    assert all("2 breasts whose predictions would have the same file name" in line for line in refused)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        (
            {"ViewCodeSequence": item(CodeValue="R-10242", ViewModifierCodeSequence=item(CodeValue="R-102D6"))},
            "R-102D6",
        ),
        (
            {"ViewCodeSequence": item(CodeValue="R-10242", ViewModifierCodeSequence=item(CodeMeaning="Spot"))},
            "the modifier Spot",
        ),
        ({"PartialView": "YES"}, "PartialView YES"),
        ({"QualityControlImage": "YES"}, "QualityControlImage YES"),
        ({"CalibrationImage": "YES"}, "CalibrationImage YES"),
        ({"EstimatedRadiographicMagnificationFactor": "1.8"}, "magnified 1.8 times"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "ImageType LOCALIZER"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "TOMO_PROJ", "RIGHT"]}, "ImageType TOMO_PROJ"),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS"]}, "ImageType TOMOSYNTHESIS"),
        ({"ImageType": ["DERIVED", "PRIMARY", "RECOMBINED"]}, "ImageType RECOMBINED"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "STEREO_PLUS15"]}, "ImageType STEREO_PLUS15"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.13.1.3"}, "the class Breast Tomosynthesis Image Storage"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "the class CT Image Storage"),
        ({"PartialViewCodeSequence": item(CodeValue="1")}, "a partial view"),
        ({"ViewModifierCodeSequence": item(CodeMeaning="Spot")}, "the modifier Spot"),
        ({"ProtocolName": "MAG L CC"}, "'MAG L CC'"),
        ({"PaddleDescription": "SPOTCOMP"}, "'SPOTCOMP'"),
        ({"SeriesDescription": "L CC MAG"}, "'L CC MAG'"),
        ({"SeriesDescription": "Weekly phantom"}, "'Weekly phantom'"),
        ({"PaddleDescription": "SPOT 10CM"}, "'SPOT 10CM'"),
        ({"SeriesDescription": "SpotMag"}, "'SpotMag'"),
        ({"SeriesDescription": "CC coned"}, "'CC coned'"),
    ],
)
def test_special_views_are_refused(tmp_path, tags, reason):
    path = film(tmp_path / "a.dcm", **tags)
    names, [line] = found(tmp_path)
    assert not names
    assert line.startswith(f"{path}: ")
    assert reason in line
    for refuse in (lambda: read_checked(path, "whole"), lambda: name_breast({("whole", "CC"): path})):
        with pytest.raises(InputError, match="not a standard CC or MLO view"):
            refuse()


@pytest.mark.parametrize(
    "tags",
    [
        {"PartialView": "NO", "QualityControlImage": "NO", "EstimatedRadiographicMagnificationFactor": "1.08"},
        {"EstimatedRadiographicMagnificationFactor": None, "ImageType": ["DERIVED", "PRIMARY", ""]},
        {"ViewCodeSequence": item(CodeValue="R-10242", ViewModifierCodeSequence=Sequence([]))},
        {"ViewCodeSequence": item(CodeValue="R-10242", ViewModifierCodeSequence=item(CodeMeaning=""))},
        {"SeriesDescription": "L CC image, magenta spotlight"},
        {"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "", "LOW_ENERGY"]},
    ],
)
def test_standard_views_are_taken(tmp_path, tags):
    film(tmp_path / "a.dcm", **tags)
    assert found(tmp_path) == ({"W1_LEFT": 1}, [])


def test_laterality_and_view_may_stand_in_functional_groups(tmp_path):
    bare = {"ImageLaterality": None, "ViewPosition": None}
    anatomy = item(FrameAnatomySequence=item(FrameLaterality="R"))
    view = item(ViewCodeSequence=item(CodeValue="399368009"))
    one = film(tmp_path / "1.dcm", SharedFunctionalGroupsSequence=anatomy, ViewPosition="CC", ImageLaterality=None)
    two = film(
        tmp_path / "2.dcm", PerFrameFunctionalGroupsSequence=anatomy, SharedFunctionalGroupsSequence=view, **bare
    )
    assert [(image.side, image.view) for image in map(identify, (one, two))] == [("RIGHT", "CC"), ("RIGHT", "MLO")]


@pytest.mark.parametrize(
    ("name", "tags", "reason"),
    [
        ("a", {"ViewCodeSequence": item(CodeValue="R-10226")}, "more than one view, CC/MLO"),
        ("a", {"SharedFunctionalGroupsSequence": item(FrameLaterality="R")}, "more than one laterality, LEFT/RIGHT"),
        ("a", {"PatientID": "P_1_RIGHT_CC"}, "RIGHT by its PatientID, LEFT by its tags"),
        ("P_1_LEFT_CC", {"ViewPosition": "ML"}, "CC by its name, ML by its tags"),
        ("P_1_LEFT_CC", {"ViewPosition": None, "ViewCodeSequence": item(CodeValue="R-10224")}, "R-10224 by its tags"),
        ("a", {"ViewPosition": "XCCL"}, "a view XCCL"),
        ("P_00001_LEFT_CC", {"PatientID": "P_00002"}, "P_00001 by its name, P_00002 by its PatientID"),
        ("P_00001_LEFT_CC", {"PatientID": "Mass-Test_P_00002_LEFT_CC"}, "P_00002 by its PatientID"),
    ],
)
def test_contradictions_are_refused(tmp_path, name, tags, reason):
    film(tmp_path / f"{name}.dcm", **tags)
    names, [line] = found(tmp_path)
    assert not names
    assert reason in line


def test_films_of_inbreast_and_cmmd_are_known(tmp_path):
    nobody = {"PatientID": "removed", "PatientName": "removed", "ImageLaterality": None, "ViewPosition": None}
    for number, view in (("22678622", "CC"), ("22678646", "ML")):
        path = tmp_path / "inbreast" / f"{number}_61b13c59bcba149d_MG_L_{view}_ANON.dcm"
        film(path, StudyInstanceUID=f"1.2.{number}", **nobody)
    assert found(tmp_path / "inbreast") == ({"61b13c59bcba149d_LEFT": 2}, [])
    for number, code in (("1-1", "R-10242"), ("1-2", "R-10226")):
        path = tmp_path / "cmmd" / "D1-0001" / f"{number}.dcm"
        film(path, PatientID="D1-0001", ViewPosition=None, ViewCodeSequence=item(CodeValue=code))
    assert found(tmp_path / "cmmd") == ({"D1-0001_LEFT": 2}, [])


def test_what_macos_leaves_and_what_is_given_twice_is_passed_over(tmp_path):
    path = film(tmp_path / "in" / "a.dcm")
    for name in ("._a.dcm", "._W1_L_CC.png"):
        (path.parent / name).write_bytes(b"\0\5\x16\7" + bytes(4092))
    refused = []
    [breast] = find_breasts([path.parent, path, path], refused)
    assert (breast.name, len(breast.images), refused) == ("W1_LEFT", 1, [])
    with pytest.raises(InputError, match="one file for two images"):
        name_breast({("whole", "CC"): path, ("crop", "CC"): path})
    path.unlink()
    with pytest.raises(InputError, match="no image here"):
        find_breasts([path.parent], [])


def test_earlier_predictions_are_no_mammograms(tmp_path):
    film(tmp_path / "a.dcm")
    (tmp_path / "predictions").mkdir()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "predictions" / "W1_LEFT.png")
    (tmp_path / "predictions" / "W1_LEFT.json").write_text('{"research_use_only": "..."}')  # its record
    refused = []
    assert len(find_breasts([tmp_path], refused, tmp_path / "predictions")) == 1 and refused == []


def test_a_film_in_the_folder_of_predictions_is_a_film(tmp_path):
    """``mammo predict . --out .`` and an ``--out`` that holds films of its own leave none of them out."""
    (tmp_path / "more").mkdir()
    film(tmp_path / "a.dcm")
    film(tmp_path / "more" / "b.dcm", PatientID="W2")
    Image.new("L", (400, 500), 90).save(tmp_path / "more" / "A1_LEFT_CC.png")
    (tmp_path / "more" / "A1_LEFT_CC.json").write_text("{}")  # of somebody's labelling tool
    refused = []
    for out in (tmp_path, tmp_path / "more"):
        assert len(find_breasts([tmp_path], refused, out)) == 3 and refused == []


def test_a_numbered_picture_is_no_crop(tmp_path):
    """Only CBIS-DDSM numbers the lesions of a view; elsewhere a 2 may be a second film."""
    Image.new("L", (400, 500)).save(tmp_path / "A1_LEFT_CC_2.png")
    with pytest.raises(InputError, match="neither tags nor file name give breast and view"):
        identify_surely(tmp_path / "A1_LEFT_CC_2.png")
    Image.new("L", (400, 500)).save(tmp_path / "Mass-Training_P_00001_LEFT_CC_2.png")
    image = identify(tmp_path / "Mass-Training_P_00001_LEFT_CC_2.png")
    assert (image.patient, image.stream) == ("Mass-Training_P_00001", "crop")


@pytest.mark.parametrize("name", ["a_LEFT_CC_crop.png", "Calc-Test_P_00001_LEFT_CC_1.png"])
def test_what_a_name_says_of_the_stream_is_not_overridden(tmp_path, name):
    Image.new("L", (400, 500)).save(tmp_path / name)
    with pytest.raises(InputError, match="given as a whole image, but a crop image by its name or tags; exchange them"):
        identify(tmp_path / name, "whole")
    assert identify(tmp_path / name, "crop").stream == "crop"


def test_a_second_film_of_a_view_is_told(tmp_path):
    for name in ("a", "b", "c"):
        film(tmp_path / f"{name}.dcm")
    names, [line] = found(tmp_path)
    assert not names
    assert "a second whole CC of W1_LEFT" in line


def test_a_pipe_is_no_film(tmp_path):
    os.mkfifo(tmp_path / "1_LEFT_CC.dcm")
    names, [line] = found(tmp_path)
    assert not names
    assert "1_LEFT_CC.dcm: " in line


def test_a_link_that_leads_back_to_itself_is_no_film(tmp_path):
    (tmp_path / "1_LEFT_CC.dcm").symlink_to("1_LEFT_CC.dcm")
    names, [line] = found(tmp_path)
    assert not names
    assert "symbolic links" in line
    (tmp_path / "a.png").symlink_to("a.png")
    breast = name_breast({("whole", "CC"): tmp_path / "a.png"})
    with pytest.raises(InputError, match="no such image"):
        read_checked(breast.images["whole", "CC"], "whole")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_message_about_a_long_tag_is_short_and_keeps_its_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
    path = film(tmp_path / "a.dcm", ViewPosition=None, ImageLaterality=None, SeriesDescription="spot" + " x" * 5000)
    with pytest.raises(InputError, match=r"^.{1500}$") as caught:
        identify(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).endswith("give the standard view")


def test_an_id_is_shown_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
    path = film(tmp_path / "a.dcm", PatientID="a\nb\x07")
    assert identify(path).patient == "a\\nb\\x07"


def test_pictures_are_joined_by_their_names(tmp_path):
    picture = tmp_path / "0_L_CC.png"
    Image.fromarray((PIXELS >> 4).astype(np.uint8)).save(picture)
    shutil.copy(picture, tmp_path / "0_L_MLO.png")
    assert found(tmp_path) == ({"0_LEFT": 2}, [])
    shutil.move(picture, tmp_path / "anonymous_L_CC.png")
    shutil.move(tmp_path / "0_L_MLO.png", tmp_path / "anonymous_L_MLO.png")
    names, [line] = found(tmp_path)
    assert not names
    assert "cannot be joined into one breast" in line


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_header_is_read_or_refused_in_one_line(tmp_path):
    sequences = {"SharedFunctionalGroupsSequence": item(FrameAnatomySequence=item(FrameLaterality="L"))}
    modified = item(CodeValue="R-10242", ViewModifierCodeSequence=Sequence([]))
    path = film(tmp_path / "a.dcm", ViewCodeSequence=modified, PatientName="A^B", **sequences)
    whole, draw = path.read_bytes()[: -PIXELS.nbytes], random.Random(0)
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(draw.randrange(1, 6)):
            damaged[draw.randrange(132, len(whole))] = draw.randrange(256)
        path.write_bytes(damaged[: draw.choice((len(whole), draw.randrange(len(whole))))])
        refused = []
        try:
            find_breasts([path], refused)
        except InputError as error:
            refused.append(str(error))
        assert all(line.startswith(f"{path}: ") and len(line.splitlines()) == 1 for line in refused)


def test_a_deflated_header_that_is_cut_is_refused(tmp_path):
    path = film(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match="the header cannot be read"):
        identify(path)


def test_a_picture_bomb_is_refused(tmp_path, monkeypatch):
    picture = tmp_path / "1_L_CC.png"
    Image.fromarray((PIXELS >> 4).astype(np.uint8)).convert("RGB").save(picture)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match="cannot be decoded"):
        read_checked(picture, "whole")


def test_a_name_with_a_line_break_stays_in_one_line(tmp_path):
    path = film(tmp_path / "a\nb" / "w\n1_L_CC.dcm", PatientID=None)
    assert found(path.parent) == ({"w\\n1_LEFT": 1}, [])
    with pytest.raises(InputError) as caught:
        name_breast({("whole", "MLO"): path})
    assert "a\\nb/w\\n1_L_CC.dcm: given as MLO" in str(caught.value)


def test_a_decoder_that_crashes_is_one_line(collection, monkeypatch):
    film = next(path for path in sorted(collection.root.rglob("*.dcm")) if "LEFT_CC/" in path.as_posix())
    assert read_checked(film, "whole").ndim == 2  # in a process of its own
    monkeypatch.setattr(checked_images, "in_child", lambda function, path: in_child(os._exit, 11))
    with pytest.raises(InputError, match="its decoder crashed; convert the file"):
        read_checked(film, "whole")


@pytest.mark.parametrize("tag", ["AcquisitionDate", "SeriesDate", "ContentDate"])
def test_other_dates_stand_for_one_that_was_removed(tmp_path, tag):
    bare = {"StudyInstanceUID": None, "StudyDate": None, "AccessionNumber": None}
    for number, (view, date) in enumerate((("CC", "20190101"), ("MLO", "20210101"))):
        film(tmp_path / f"{number}.dcm", ViewPosition=view, **bare, **{tag: date})
    names, [line] = found(tmp_path)
    assert not names and "of several examinations (StudyDate 20190101, 20210101)" in line


def test_one_id_of_two_issuers_is_of_two_patients(tmp_path):
    for number, (view, issuer) in enumerate((("CC", "North"), ("MLO", "South"))):
        film(tmp_path / f"{number}.dcm", ViewPosition=view, IssuerOfPatientID=issuer)
    names, [line] = found(tmp_path)
    assert not names and "of several patients (IssuerOfPatientID North, South)" in line


@pytest.mark.parametrize("name", ["TEST", "Patient", "999999"])
def test_an_id_that_names_nobody_joins_nothing(tmp_path, name):
    assert header_tags.is_nobody(name)


def test_raw_values_are_known_by_the_class_of_the_object(tmp_path):
    path = film(tmp_path / "a.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.1.2.1", PresentationIntentType=None)
    with pytest.raises(InputError, match="FOR PROCESSING, raw detector values"):
        read_checked(path, "whole")
