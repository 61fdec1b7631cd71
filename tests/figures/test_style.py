"""What a notebook stores of a figure: SVG, or PNG for films; the file's title is the figure's headline."""

import base64
import io
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from mammo_lib.figures.style import MANY, canvas, described, headline, rendered, use_style

TITLE = "{http://www.w3.org/2000/svg}title"


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        use_style()
        yield


def line(points: int = 2):
    figure, axes = canvas()
    axes.scatter(range(points), range(points))
    headline(figure, "P$1 rises\nby 2")
    return figure


def film(side: int = 64):
    figure, axes = canvas(width=3, height=3)
    axes.imshow(np.zeros((side, 200)))
    axes.set_title("one film")
    return figure


def test_a_figure_is_an_svg_whose_title_is_the_headline():
    svg, metadata = rendered(line(), "svg")
    assert rendered(line(), "png") is None
    assert metadata == {"alt": "P$1 rises by 2"}
    assert ElementTree.fromstring(svg).find(TITLE).text == "P$1 rises by 2"
    assert (svg, metadata) == rendered(line(), "svg")


def test_a_film_is_a_png_of_twice_the_size():
    png, metadata = rendered(film(), "png")
    assert rendered(film(), "svg") is None
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        assert image.text == {"Title": "one film"}
        assert image.width == pytest.approx(2 * metadata["width"], abs=1)
        assert 250 < metadata["width"] < 310  # 3 inches of 96 pixels, less the margins
    assert (png, metadata) == rendered(film(), "png")


def test_a_matrix_is_no_film():
    assert rendered(film(side=17), "svg") is not None


def test_many_points_do_not_make_a_large_file():
    few, many = (len(rendered(line(points), "svg")[0]) for points in (MANY, MANY + 1))
    assert many < few / 2


def test_without_a_headline_the_axes_speak():
    figure, axes = canvas(columns=2)
    axes[0].set_title("left")
    axes[1].set_title("right", loc="right")
    assert described(figure) == "left; right"
