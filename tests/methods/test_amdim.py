"""AMDIM and YADIM: what is compared with what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import nets
from jaxcl.extract import last, of_widths, pool
from jaxcl.losses import keyless, map_nce
from jaxcl.methods import amdim, yadim
from jaxcl.methods.amdim import one_position
from jaxcl.similarity import scaled_dot, tanh_clip

ENCODER = nets.conv_n(features=(4, 4), dense=6, norm=nets.batch_norm())
HEAD = nets.amdim_head(norm=nets.batch_norm(), out=6)


def two(key, batch):
    """The image, and the image backwards."""
    x = jnp.asarray(batch["image"], jnp.float32) / 255
    return x, x[:, :, ::-1]


@pytest.fixture(scope="module")
def batch():
    image = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    return {"image": image, "index": np.arange(8, dtype=np.int32)}


@jax.jit
def encoded(params, state, x):
    return ENCODER.apply(params, state, x, train=True)[0]


def test_three_pairs_of_maps_are_compared_in_both_directions_each_halved(batch, drawn):
    calls = []

    def loss(key, source, targets, *, axis_name):
        calls.append((source, targets))
        return map_nce(source, targets, clip=20.0)

    m = amdim(views=two, encoder=ENCODER, heads=(None, HEAD, HEAD), loss=loss, extract=of_widths(1, 3, 7))
    params, state = drawn(m.init, jax.random.key(0), batch)

    @jax.jit
    def run(params, state, batch):
        value, _ = m.loss(params, state, jax.random.key(1), batch)
        return value, calls

    value, calls = run(params, state, batch)
    assert [(s.shape, t.shape) for s, t in calls] == [
        ((8, 6), (8, positions, 6)) for positions in (9, 9, 49, 49, 9, 9)
    ]
    sum_of_losses = jax.jit(lambda calls: sum(map_nce(s, t) for s, t in calls))(calls)
    np.testing.assert_allclose(value, sum_of_losses / 2, rtol=1e-5)
    # The first map's vector as it is, against the other view's maps.
    maps = [encoded(params["encoder"], state["encoder"], x) for x in two(None, batch)]
    project = jax.jit(lambda x: HEAD.apply(params["head_1"], state["head_1"], x, train=True)[0])
    for call, view in ((0, 0), (1, 1)):
        np.testing.assert_allclose(calls[call][0], maps[view][-1], rtol=1e-4, atol=1e-5)
        other = project(maps[1 - view][1])
        np.testing.assert_allclose(calls[call][1], other.reshape(8, 9, 6), rtol=1e-3, atol=1e-4)


def test_the_drawn_position_is_one_of_the_map_and_hangs_on_the_images_number_alone():
    r = np.arange(4 * 9, dtype=np.float32).reshape(4, 3, 3, 1)
    index, order = np.array([5, 6, 7, 8]), np.array([2, 0, 3, 1])

    @jax.jit
    def positions(index):
        keys = jax.random.split(jax.random.key(3), 400)
        return jax.vmap(lambda key: one_position(key, index, r))(keys)[..., 0]

    got = np.asarray(positions(index))
    np.testing.assert_array_equal(np.asarray(positions(index[order])) % 9, got[:, order] % 9)
    assert set(got[:, 0].tolist()) == set(range(9))


def test_yadim_of_single_vectors_is_info_nce_with_the_own_image_for_a_positive_and_all_others_negative(
    batch, drawn
):
    m = yadim(views=two, encoder=ENCODER, loss=keyless(map_nce, clip=3.0, penalty=0.1))
    params, state = drawn(m.init, jax.random.key(0), batch)
    r = [pool(encoded(params["encoder"], state["encoder"], x)) for x in two(None, batch)]

    @jax.jit
    def both(params, state, r):
        total = 0.0
        for a, b in ((r[0], r[1]), (r[1], r[0])):
            raw = scaled_dot(a, b)
            log_p = jax.nn.log_softmax(tanh_clip(raw, 3.0))
            total += (-jnp.mean(jnp.diag(log_p)) + 0.1 * jnp.mean(raw**2)) / 2
        return m.loss(params, state, jax.random.key(1), batch)[0], total

    np.testing.assert_allclose(*both(params, state, r), rtol=1e-5)


def test_one_head_a_map_is_asked_for(batch):
    m = amdim(
        views=two, encoder=ENCODER, heads=(None,), loss=map_nce, extract=of_widths(1, 3), compare=((0, 0),)
    )
    with pytest.raises(ValueError, match="one head"):
        jax.eval_shape(m.init, jax.random.key(0), batch)


def test_maps_that_are_not_there_are_not_compared():
    with pytest.raises(ValueError, match=r"0 to 1 with 2 heads; got compare=\(\(0, 2\),\)"):
        amdim(views=two, encoder=ENCODER, heads=(None, HEAD), loss=map_nce, compare=((0, 2),))


@pytest.mark.parametrize("make", [amdim, yadim])
def test_maps_are_asked_for_and_two_views(make, batch):
    heads = {"heads": (None, HEAD, HEAD)} if make is amdim else {}
    with pytest.raises(ValueError, match=r"picks maps, .* got an array \[8, 6\]"):
        jax.eval_shape(
            make(views=two, encoder=ENCODER, loss=map_nce, extract=pool, **heads).init,
            jax.random.key(0),
            batch,
        )
    m = make(views=lambda key, b: two(key, b)[:1], encoder=ENCODER, loss=map_nce, extract=last, **heads)
    m = (
        m
        if make is yadim
        else amdim(
            views=lambda key, b: two(key, b)[:1],
            encoder=ENCODER,
            heads=(None,),
            compare=((0, 0),),
            loss=map_nce,
            extract=last,
        )
    )
    begun = jax.eval_shape(m.init, jax.random.key(0), batch)
    with pytest.raises(ValueError, match="needs 2 views of an image; its `views` made 1"):
        jax.eval_shape(m.loss, *begun, jax.random.key(0), batch)


def test_vectors_of_two_widths_are_not_compared(batch):
    wide = nets.amdim_head(norm=nets.batch_norm(), out=7)
    m = amdim(
        views=two,
        encoder=ENCODER,
        heads=(None, wide, wide),
        loss=keyless(map_nce),
        extract=of_widths(1, 3, 7),
    )
    begun = jax.eval_shape(m.init, jax.random.key(0), batch)
    with pytest.raises(ValueError, match="Embed both with the same width"):
        jax.eval_shape(m.loss, *begun, jax.random.key(0), batch)


def test_an_encoder_gives_a_tuple_of_maps(batch):
    one_map = nets.amdim_head(norm=nets.batch_norm(), out=4)
    for make in (amdim, yadim):
        heads = {"heads": (None, HEAD, HEAD)} if make is amdim else {}
        m = make(views=two, encoder=one_map, loss=map_nce, **heads)
        with pytest.raises(ValueError, match=r"tuple, shallow to deep; got an array \[8, 16, 16, 4\]"):
            jax.eval_shape(m.init, jax.random.key(0), batch)


def test_widths_that_an_encoder_does_not_have_are_named(batch):
    m = amdim(views=two, encoder=ENCODER, heads=(None, HEAD, HEAD), loss=map_nce)
    with pytest.raises(ValueError, match="maps of width 7, 3, 1; asked for 5"):
        jax.eval_shape(m.init, jax.random.key(0), batch)
