import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.plot import style, views_sheet

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
VIEWS = (IMAGES / 255, rng.uniform(size=(3, 6, 6, 3)))


def captions_of(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def test_there_is_one_axes_for_each_image_and_each_of_its_views():
    figure = views_sheet(IMAGES, VIEWS)
    assert len(figure.axes) == 3 * (1 + 2)
    assert all(len(ax.images) == 1 for ax in figure.axes)
    assert [ax.get_title() for ax in figure.axes] == ["image", "view 1", "view 2"] + [""] * 6


def test_the_pixels_shown_are_those_given():
    figure = views_sheet(IMAGES, VIEWS)
    np.testing.assert_array_equal(figure.axes[3].images[0].get_array(), IMAGES[1])
    np.testing.assert_allclose(figure.axes[5].images[0].get_array(), VIEWS[1][1], rtol=1e-6)


def test_every_caption_is_printed_under_its_view():
    captions = [[f"crop {i}", f"hue {i}"] for i in range(3)]
    assert captions_of(views_sheet(IMAGES, VIEWS, captions=captions)) == sum(captions, [])


def test_captions_keep_within_their_cell_and_their_row():
    long = "brightness 1.21 contrast 0.84 saturation 1.30 hue -0.05\nwith $dollars_ and more letters than fit in a line"
    figure = views_sheet(IMAGES, VIEWS, captions=[[long, "flip"]] * 3)
    figure.canvas.draw()
    boxes = [
        ax.texts[0].get_window_extent()
        for ax in figure.axes
        if ax.texts and "bright" in ax.texts[0].get_text()
    ]
    cells = [ax.get_window_extent() for ax in figure.axes]
    assert len(boxes) == 3
    assert max(box.width for box in boxes) <= 1.08 * cells[0].width
    for box, below in zip(boxes, cells[3::3], strict=False):
        assert box.y0 > below.y1
    assert boxes[-1].y0 > 0


def test_gray_images_floats_outside_0_1_and_bfloat16_are_drawn(tmp_path):
    views = (jnp.asarray(VIEWS[0][..., :1], jnp.bfloat16), VIEWS[0] * 3 - 1)
    figure = views_sheet(jnp.asarray(IMAGES[..., :1]), views)
    figure.savefig(tmp_path / "a.png")
    shown = figure.axes[2].images[0].get_array()
    assert shown.min() >= 0
    assert shown.max() <= 1


def test_a_caption_is_broken_between_words_and_keeps_its_own_lines():
    assert style.wrap("one\n\ntwo", 1.0) == ["one", "", "two"]
    assert all(len(line) <= 20 for line in style.wrap("several words " * 5, 1.0))


@pytest.mark.parametrize(
    ("images", "views", "captions", "says"),
    [
        (IMAGES[0], VIEWS, None, "images must be"),
        (IMAGES[..., :2], VIEWS, None, "c = 1 or 3"),
        (IMAGES[:2], VIEWS, None, r"views\[0\] must have one row for each of the 2 images; got 3"),
        (IMAGES, VIEWS, [["a", "b"]] * 2, "captions must have one row"),
        (IMAGES, VIEWS, [["a"]] * 3, r"captions\[0\] must have one text for each of 2 views"),
    ],
)
def test_what_does_not_fit_together_is_refused(images, views, captions, says):
    with pytest.raises(ValueError, match=says):
        views_sheet(images, views, captions=captions)
