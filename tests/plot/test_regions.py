import numpy as np
import pytest
from matplotlib.colors import to_rgb

from jaxcl.plot import regions_sheet, style

IMAGES = np.full((2, 8, 8, 3), 255, np.uint8)
CLUSTERS = {"map 1": np.arange(8).reshape(2, 2, 2), "map 2": np.zeros((2, 4, 4), int)}


def test_there_is_an_image_and_a_picture_of_each_map_in_every_row():
    figure = regions_sheet(IMAGES, CLUSTERS)
    assert len(figure.axes) == 2 * 3
    assert [ax.get_title() for ax in figure.axes[:3]] == ["image", "map 1", "map 2"]


def test_a_position_has_the_color_of_its_cluster_over_its_part_of_the_image():
    picture = regions_sheet(IMAGES, CLUSTERS, cover=1.0).axes[4].images[0].get_array()
    for i, cluster in enumerate(CLUSTERS["map 1"][1].ravel()):
        part = picture[4 * (i // 2) : 4 * (i // 2) + 4, 4 * (i % 2) : 4 * (i % 2) + 4]
        np.testing.assert_allclose(part, np.broadcast_to(to_rgb(style.COLORS[cluster]), (4, 4, 3)), atol=1e-6)


def test_without_cover_the_image_is_left_in_gray():
    picture = regions_sheet(IMAGES // 2, CLUSTERS, cover=0.0).axes[1].images[0].get_array()
    np.testing.assert_allclose(picture, 127 / 255, atol=1e-6)


def test_maps_of_another_number_of_images_are_refused():
    with pytest.raises(ValueError, match=r"must be \[2, height, width\], one map an image"):
        regions_sheet(IMAGES, {"map": np.zeros((3, 2, 2), int)})
