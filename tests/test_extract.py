"""Any encoder with any extraction: maps, or a sentence that says why not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import extract, nets

NORM = nets.batch_norm()
# name -> encoder, and the widths of its maps of a 32-pixel image
ENCODERS = {
    "amdim": (nets.amdim(norm=NORM, features=4, out=8, depth=1), (30, 30, 14, 7, 5, 3, 1)),
    "small_convnet": (nets.small_convnet(norm=NORM, features=(4, 4, 4)), (8, 4, 4)),
    "conv_n": (nets.conv_n(norm=NORM, features=(4, 4, 4), dense=8), (15, 7, 3, 1)),
    "resnet": (nets.resnet(18, stem="cifar", norm=NORM, features=4), (32, 16, 8, 4)),
    "wide_resnet": (nets.wide_resnet(10, norm=NORM), (32, 16, 8)),
}


@pytest.fixture(scope="module", params=ENCODERS)
def maps(request):
    net, widths = ENCODERS[request.param]
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    made, _ = jax.eval_shape(lambda *given: net.apply(*given, train=False), params, state, x)
    assert tuple(extract_width(m) for m in made) == widths
    return made, widths


def extract_width(m):
    return 1 if len(m.shape) == 2 else m.shape[2]


def widths_of(pick, maps):
    return [m.shape[2] for m in jax.eval_shape(pick, maps)]


def test_every_extraction_works_with_every_encoder(maps):
    made, widths = maps
    distinct = sorted({1, *widths})
    assert widths_of(extract.last, made) == [widths[-1]]
    assert widths_of(extract.average, made) == [1]
    assert widths_of(extract.larger, made) == [min(w for w in widths if w > widths[-1])]
    assert widths_of(extract.scales(3), made) == distinct[:3]
    channels = [m.shape[3] for m in jax.eval_shape(extract.random_channels(extract.scales(3), 5), made)]
    assert channels == [5, 5, 5]
    with pytest.raises(ValueError, match="needs maps of 9 widths"):
        jax.eval_shape(extract.scales(9), made)
    with pytest.raises(ValueError, match="asked for 11"):
        jax.eval_shape(extract.of_widths(11), made)


def test_tiles_are_means_and_end_in_pool_and_flatten():
    maps = (np.random.default_rng(0).normal(size=(2, 6, 4, 3)).astype(np.float32),)
    square = (maps[0][:, :4],)

    @jax.jit
    def found(maps, square):
        ends = extract.pool(maps), extract.flatten(square)
        return extract.pool_to(1)(maps), extract.pool_to(2)(maps), extract.pool_to(4)(square), *ends

    one, two, four, pooled, flat = found(maps, square)
    np.testing.assert_allclose(one, pooled, rtol=1e-5, atol=1e-6)
    want = maps[0].reshape(2, 2, 3, 2, 2, 3).mean(axis=(2, 4)).reshape(2, -1)
    np.testing.assert_allclose(two, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(four, flat, rtol=1e-6)
    with pytest.raises(ValueError, match="on each side, must be at least 1; got 0"):
        extract.pool_to(0)


def test_an_encoder_of_one_map_has_no_larger_one_and_no_three_scales():
    one = (jnp.zeros((2, 4, 4, 3)),)
    with pytest.raises(ValueError, match="wider than the last, 4; this encoder has 1 maps"):
        extract.larger(one)
    with pytest.raises(ValueError, match="3 widths \\(the average has 1\\); this encoder gives 1, 4"):
        extract.scales(3)(one)


@pytest.mark.parametrize(
    "pick",
    [
        extract.pool,
        extract.flatten,
        extract.last,
        extract.average,
        extract.larger,
        extract.scales(2),
        extract.of_widths(4),
    ],
)
def test_what_is_no_tuple_of_maps_is_said_to_be_none(pick):
    with pytest.raises(ValueError, match=r"tuple, shallow to deep; got an array \[2, 4, 4, 3\]"):
        pick(jnp.zeros((2, 4, 4, 3)))


def test_random_channels_are_always_the_same_and_keep_angles_on_average():
    x = np.random.default_rng(0).normal(size=(6, 1, 1, 400)).astype(np.float32)
    mixed = extract.random_channels(extract.last, 20000, seed=3)
    (once,), (again,) = mixed((x,)), mixed((x,))
    np.testing.assert_array_equal(once, again)
    exact, kept = (np.asarray(m).reshape(6, -1) @ np.asarray(m).reshape(6, -1).T for m in (x, once))
    np.testing.assert_allclose(kept / 400, exact / 400, atol=0.05)
    with pytest.raises(ValueError, match="at least one channel"):
        extract.random_channels(extract.last, 0)
