"""Files: names that come from tags and tables stay in their folder."""

import random
from pathlib import PureWindowsPath

import pytest

from mammo_lib.files import safe_name


@pytest.mark.parametrize("text", ["P_00001_LEFT", "12-345.6", "Müller", "患者7", "a@b=c+d"])
def test_a_safe_name_stays(text):
    assert safe_name(text) == text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("12/345", "12_345"),
        ("../evil", "_evil"),
        ("/etc/passwd", "_etc_passwd"),
        ("a\\b:c", "a_b_c"),
        ("..", "_"),
        ("", "_"),
        (" \t\n", "_"),
        (".hidden", "hidden"),
        ("-rf", "rf"),
        ("trailing. ", "trailing._"),
        ("trailing.", "trailing"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("COM¹", "_COM1"),
        ("console", "console"),
        ("a\x00b\x1b[31m", "a_b_31m"),
        ("a\u202egnp.exe", "a_gnp.exe"),  # turns the direction of reading
        ("\uff0e\uff0e\uff0fevil", "_evil"),  # full-width ../
        ("a\u2215b", "a_b"),  # a division slash
        ("a\udc80b", "a_b"),  # a byte that was no text
        ("<img src=x onerror=alert(1)>", "_img_src=x_onerror=alert_1_"),
    ],
)
def test_whatever_a_tag_holds_becomes_the_name_of_one_file(text, name):
    assert safe_name(text) == name


def test_the_longest_patient_id_keeps_its_side():
    assert safe_name("患" * 64 + "_LEFT").endswith("_LEFT")


def test_names_of_any_text_are_short_stay_inside_and_do_not_change_again(tmp_path):
    draw = random.Random(0)
    for _ in range(500):
        text = "".join(
            chr(draw.choice((draw.randrange(128), draw.randrange(0x110000)))) for _ in range(draw.randrange(200))
        )
        name = safe_name(text)
        assert safe_name(name) == name
        assert len(name.encode()) <= 201
        assert (tmp_path / name).parent == tmp_path
        assert PureWindowsPath(name).name == name
        assert not PureWindowsPath(name).is_reserved()
        (tmp_path / f"{name}.json").touch()
