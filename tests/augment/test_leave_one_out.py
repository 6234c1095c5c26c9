"""A key for each augmentation that it shares with the query."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import augment
from jaxcl.augment import blur, color, geometry, op
from jaxcl.augment.leave_one_out import same_effect

KEY = jax.random.key(5)
B = 12


def marks(name, place):
    """An op that writes what it drew into one channel, and so tells who shares with whom."""

    def sample(key, shape):
        return blur.Blur(on=jnp.array(True), sigma=op.uniform(key))

    return augment.Op(name, sample, lambda params, image: image.at[..., place].set(params.sigma))


@pytest.fixture(scope="module")
def batch():
    image = np.random.default_rng(0).integers(0, 256, (B, 8, 8, 3), np.uint8)
    return {"image": image, "index": np.arange(50, 50 + B, dtype=np.int32)}


@pytest.fixture(scope="module")
def marked(batch):
    made = augment.leave_one_out({"a": marks("a", 0), "b": marks("b", 1)}, before=marks("c", 2))
    return np.stack(jax.jit(made.views)(KEY, batch))[:, :, 0, 0]  # [view, image, channel]


def test_key_i_shares_augmentation_i_with_the_query_and_nothing_else_with_anyone(marked):
    for image in range(B):
        a, b, before = marked[:, image].T
        assert a[2] == a[0]
        assert b[3] == b[0]
        assert len(set(a)) == len(set(b)) == 3
        assert len(set(before)) == 4


def test_views_hang_on_the_key_and_the_images_number_alone(batch):
    made = augment.leave_one_out({"turn": augment.rotate90()}, before=augment.flip())
    views = jax.jit(made.views)
    whole = views(KEY, batch)
    order = np.random.default_rng(1).permutation(B)[:5]
    part = views(KEY, {name: x[order] for name, x in batch.items()})
    for one, other in zip(part, whole, strict=True):
        np.testing.assert_array_equal(one, other[order])
    assert any(not np.array_equal(x, y) for x, y in zip(whole, views(jax.random.key(6), batch), strict=True))


def test_collisions_are_where_a_key_drew_the_querys_rotation_by_chance_one_in_three():
    index = np.arange(3000, dtype=np.int32)
    corner = np.zeros((3000, 2, 2, 1), np.uint8)
    corner[:, 0, 0] = 255
    batch = {"image": corner, "index": index}
    made = augment.leave_one_out(
        {"shift": augment.translate(0), "turn": augment.rotate90()}, after=augment.clip()
    )
    views, collisions = jax.jit(lambda batch: (made.views(KEY, batch), made.collisions(KEY, batch)))(batch)
    views, collisions = np.stack(views).reshape(4, 3000, 4), np.asarray(collisions)
    assert collisions.shape == (3, 3, 3000)
    assert not collisions[0].any()
    assert collisions[2, 2].all()
    same = (views[1:] == views[:1]).all(axis=2)
    np.testing.assert_array_equal(collisions[2], same)
    assert collisions[2, :2].mean() == pytest.approx(1 / 3, abs=0.02)


def test_two_draws_do_the_same_if_both_coins_fell_against_it():
    def jitter(on, hue):
        value = np.float32(1)
        return color.Jitter(
            np.bool_(on), np.arange(4), value, value, value, np.float32(hue)
        ), geometry.Rotation(np.int32(1))

    same = jax.jit(same_effect)
    assert same(jitter(False, 0.1), jitter(False, 0.2))
    assert not same(jitter(True, 0.1), jitter(True, 0.2))
    assert same(jitter(True, 0.1), jitter(True, 0.1))
    assert not same(jitter(True, 0.1), jitter(False, 0.1))


def test_no_augmentation_is_refused():
    with pytest.raises(ValueError, match="at least one named augmentation"):
        augment.leave_one_out({})
