"""Color spaces, beside what tables say of known colors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import augment


def test_lab_of_known_colors():
    # sRGB -> L*, a*, b* (D65), as tables have them.
    known = {
        (255, 255, 255): (100, 0, 0),
        (0, 0, 0): (0, 0, 0),
        (255, 0, 0): (53.24, 80.09, 67.20),
        (0, 255, 0): (87.73, -86.18, 83.18),
        (0, 0, 255): (32.30, 79.19, -107.86),
        (119, 119, 119): (50.03, 0, 0),
    }
    scaled = jax.jit(augment.lab().apply)((), np.float32(np.array(list(known)) / 255)[None])[0]
    low, high = np.array([0, -86.183, -107.857]), np.array([100, 98.233, 94.478])
    got = (np.asarray(scaled) + 1) / 2 * (high - low) + low
    np.testing.assert_allclose(got, list(known.values()), atol=0.03)


def test_ycbcr_of_known_colors():
    known = {
        (0, 0, 0): (16, 128, 128),
        (255, 255, 255): (235, 128, 128),
        (255, 0, 0): (81.481, 90.203, 240),
        (0, 0, 255): (40.966, 240, 109.786),
    }
    scaled = jax.jit(augment.ycbcr().apply)((), np.float32(np.array(list(known)) / 255)[None])[0]
    # HobbitLong/CMC, train_CMC.py.
    mean, std = np.array([116.151, 121.080, 132.342]), np.array([109.500, 111.855, 111.964])
    got = np.asarray(scaled) * std + mean
    np.testing.assert_allclose(got, list(known.values()), atol=1e-3)


def test_ydbdr_of_known_colors():
    known = {
        (0, 0, 0): (0, 0, 0),
        (255, 255, 255): (1, 0, 0),
        (255, 0, 0): (0.299, -0.45, -1.333),
        (0, 255, 0): (0.587, -0.883, 1.116),
        (0, 0, 255): (0.114, 1.333, 0.217),
    }
    scaled = jax.jit(augment.ydbdr().apply)((), np.float32(np.array(list(known)) / 255)[None])[0]
    # HobbitLong/PyContrast, datasets/util.py.
    mean, std = np.array([0.457, -0.082, -0.052]), np.array([0.500, 1.331, 1.333])
    got = np.asarray(scaled) * std + mean
    np.testing.assert_allclose(got, list(known.values()), atol=1e-5)


@pytest.mark.parametrize("name", ["lab", "ycbcr", "ydbdr"])
def test_a_space_is_known_by_its_name_and_cmc_ends_in_it(name):
    assert augment.color_space(name).name == name
    assert augment.cmc(8, space=name).name.endswith(name)
    with pytest.raises(ValueError, match="one of lab, ycbcr, ydbdr; got 'hsv'"):
        augment.cmc(8, space="hsv")


@pytest.mark.parametrize("op", [augment.lab(), augment.ycbcr(), augment.ydbdr()])
def test_color_spaces_need_three_channels(op):
    with pytest.raises(ValueError, match=r"\[h, w, 3\]"):
        op.apply((), jnp.zeros((4, 4, 1)))
