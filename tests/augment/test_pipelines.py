import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxcl import augment, devices
from jaxcl.augment import ops

KEY = jax.random.key(11)
B = 16


@pytest.fixture(scope="module")
def batch():
    image = np.random.default_rng(0).integers(0, 256, (B, 24, 24, 3), np.uint8)
    return {"image": image, "index": np.arange(100, 100 + B, dtype=np.int32)}


@pytest.fixture(scope="module")
def recipe():
    return augment.simclr(20)


@pytest.fixture(scope="module")
def views(recipe):
    """Whole, so that every batch size compiles quickly."""
    compiled = jax.jit(augment.two_views(recipe, chunk=1000))
    return lambda key, batch: jax.device_get(compiled(key, batch))


@pytest.fixture(scope="module")
def made(views, batch):
    return views(KEY, batch)


@pytest.fixture(scope="module")
def plain(batch):
    """A recipe that compiles faster, for what does not hang on the recipe; and its views."""
    recipe = augment.compose(augment.random_resized_crop(8), augment.clip())
    return recipe, jax.device_get(jax.jit(augment.two_views(recipe))(KEY, batch))


def close(got, want):
    for x, y in zip(got, want, strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), atol=2e-6)


def rows(batch, chosen):
    return {name: x[chosen] for name, x in batch.items()}


def test_views_are_floats_in_zero_to_one_of_the_size_asked_for(made):
    assert len(made) == 2
    for x in made:
        assert x.shape == (B, 20, 20, 3)
        assert x.dtype == jnp.float32
        assert x.min() >= 0
        assert x.max() <= 1


def test_two_views_of_an_image_differ_and_so_do_views_of_two_images(batch, views, made):
    assert np.all(np.abs(made[0] - made[1]).max((1, 2, 3)) > 0.01)
    same = {**batch, "image": np.broadcast_to(batch["image"][:1], batch["image"].shape)}
    x1, _ = views(KEY, same)
    assert np.all(np.abs(x1[1:] - x1[:1]).max((1, 2, 3)) > 0.01)


def test_another_key_makes_other_views(batch, views, made):
    x1, _ = views(jax.random.fold_in(KEY, 1), batch)
    assert np.all(np.abs(x1 - made[0]).max((1, 2, 3)) > 0.01)


def test_permuting_the_batch_permutes_the_views(batch, views, made):
    order = np.random.default_rng(1).permutation(B)
    close(views(KEY, rows(batch, order)), [x[order] for x in made])


def test_a_batch_in_two_parts_gives_the_same_views(batch, plain):
    recipe, made = plain
    views = jax.jit(augment.two_views(recipe))
    parts = [views(KEY, rows(batch, half)) for half in (slice(0, B // 2), slice(B // 2, B))]
    close([np.concatenate(view) for view in zip(*parts, strict=True)], made)


def test_an_image_seen_twice_in_a_batch_has_the_same_views(batch, views, made):
    chosen = np.array([3] * B)
    close(views(KEY, rows(batch, chosen)), [x[chosen] for x in made])


def test_chunks_change_nothing_also_where_they_do_not_divide_the_batch(batch, plain):
    recipe, made = plain
    close(jax.jit(augment.two_views(recipe, chunk=5))(KEY, batch), made)


def on_a_mesh(recipe, chunk):
    mesh = devices.make_mesh(8)
    whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(devices.AXIS))
    return jax.jit(augment.two_views(recipe, chunk=chunk), in_shardings=(whole, split), out_shardings=split)


def test_eight_devices_make_the_same_views_under_jit_and_say_nothing_to_each_other(batch, recipe, made):
    program = on_a_mesh(recipe, 1000).lower(KEY, batch).compile()
    shardings = program.input_shardings[0]
    close(program(jax.device_put(KEY, shardings[0]), jax.device_put(batch, shardings[1])), made)
    for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert word not in program.as_text()


def test_chunks_change_nothing_on_eight_devices(batch, plain):
    recipe, made = plain
    close(on_a_mesh(recipe, 4)(KEY, batch), made)


def test_eight_devices_make_the_same_views_under_shard_map(batch, recipe, made):
    mesh, split = devices.make_mesh(8), PartitionSpec(devices.AXIS)
    views = augment.two_views(recipe, chunk=1)
    mapped = jax.shard_map(views, mesh=mesh, in_specs=(PartitionSpec(), split), out_specs=split)
    close(jax.jit(mapped)(KEY, batch), made)


@pytest.fixture(scope="module")
def draw(recipe, batch):
    compiled = jax.jit(lambda view: augment.draw(KEY, recipe, batch, view=view))
    return lambda view: jax.device_get(compiled(view))


@pytest.fixture(scope="module")
def render(recipe):
    compiled = jax.jit(lambda params, images: augment.render(recipe, params, images))
    return lambda params, images: np.asarray(compiled(params, images))


def test_draw_and_render_are_the_two_halves_of_a_view(draw, render, batch, made):
    for view in (0, 1):
        params = draw(view)
        assert params[0].height.shape == (B,)
        close([render(params, batch["image"])], [made[view]])


def test_one_ops_draws_can_be_held_while_the_others_are_redrawn(draw, render, batch):
    q, k = draw(0), draw(1)
    colors_held = (k[0], k[1], q[2], q[3], (), q[5])
    assert np.abs(render(colors_held, batch["image"]) - render(q, batch["image"])).max() > 0.01
    # An image of one color shows nothing of the crop: only the color, which was held.
    flat = np.broadcast_to(batch["image"][:, :1, :1], batch["image"].shape)
    np.testing.assert_allclose(render(colors_held, flat), render(q, flat), atol=1e-5)


def test_leaving_out_the_last_op_leaves_the_draws_before_it(draw, batch):
    with_blur = draw(0)
    without = jax.jit(lambda: augment.draw(KEY, augment.simclr(20, blur=False), batch))()
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), with_blur[:-1], without)


def test_more_views_begin_with_the_same_two(batch, plain):
    recipe, made = plain
    three = jax.device_get(jax.jit(augment.n_views(recipe, 3))(KEY, batch))
    close(three[:2], made)
    assert np.all(np.abs(three[2] - three[0]).max((1, 2, 3)) > 0.01)


def test_views_may_be_of_bfloat16(batch, plain):
    recipe, (y1, y2) = plain
    x1, x2 = jax.device_get(jax.jit(augment.two_views(recipe, dtype=jnp.bfloat16))(KEY, batch))
    assert x1.dtype == x2.dtype == jnp.bfloat16
    close((x1.astype(np.float32), x2.astype(np.float32)), (y1.astype(jnp.bfloat16), y2.astype(jnp.bfloat16)))


def test_with_64_bits_switched_on_the_views_are_the_same(batch, recipe, made):
    with jax.enable_x64(True):
        got = jax.jit(augment.two_views(recipe, chunk=1000))(KEY, batch)
    assert got[0].dtype == jnp.float32
    close(got, made)


def test_gray_images_make_gray_views(batch):
    gray = {**batch, "image": batch["image"][..., :1]}
    x1, _ = jax.device_get(jax.jit(augment.two_views(augment.simclr(20)))(KEY, gray))
    assert x1.shape == (B, 20, 20, 1)
    assert 0 <= x1.min() <= x1.max() <= 1


def test_float_images_are_taken_as_they_are(batch, plain):
    recipe, made = plain
    floats = {**batch, "image": batch["image"].astype(np.float32) / 255}
    close(jax.jit(augment.two_views(recipe))(KEY, floats), made)


def test_crop_and_flip_leaves_colors_alone(batch):
    flat = {**batch, "image": np.broadcast_to(np.array([10, 128, 250], np.uint8), (B, 24, 24, 3))}
    (x,) = jax.jit(augment.n_views(augment.crop_and_flip(8), 1))(KEY, flat)
    np.testing.assert_allclose(x, np.broadcast_to(np.array([10, 128, 250]) / 255, x.shape), atol=1e-6)


def test_switches_of_the_recipe_take_ops_in_and_out():
    assert augment.simclr(8).name == "crop > flip > jitter > grayscale > clip > blur"
    assert augment.simclr(8, blur=False, flip=False).name == "crop > jitter > grayscale > clip"
    assert augment.crop_and_flip(8).name == "crop > flip > clip"


def test_min_area_bounds_the_crops(batch):
    crop = jax.device_get(
        jax.jit(lambda: augment.draw(KEY, augment.crop_and_flip(20, min_area=0.7), batch))()
    )[0]
    assert (crop.height * crop.width).min() >= 0.7 * 24 * 24


def test_views_made_by_the_host_are_unpacked():
    made = np.random.default_rng(3).integers(0, 256, (4, 3, 5, 5, 3), np.uint8)
    out = augment.from_host(3)(KEY, {"views": jnp.asarray(made)})
    assert len(out) == 3
    for view in range(3):
        np.testing.assert_allclose(out[view], made[:, view] / 255, atol=1e-6)
    floats = augment.from_host(3, dtype=jnp.bfloat16)(KEY, {"views": jnp.asarray(made / 255)})
    assert floats[0].dtype == jnp.bfloat16


def test_a_description_tells_what_was_done_and_only_that():
    params = (
        ops.Crop(*(np.array([n]) for n in (1, 2, 3, 4))),
        (ops.Flip(np.array([False])), ops.Blur(np.array([True]), np.array([0.5]))),
        ops.Jitter(
            np.array([True]), np.array([[3, 0, 2, 1]]), *(np.array([x]) for x in (0.5, 1.5, 1.0, -0.1))
        ),
        ops.Turn(np.array([2])),
        (),
        ops.Shift(np.array([1]), np.array([-2])),
    )
    assert augment.describe(params) == [
        [
            "crop 3 x 4 at (1, 2)",
            "blur sigma 0.50",
            "jitter hue -0.10, brightness 0.50, saturation 1.00, contrast 1.50",
            "turn 180 degrees",
            "shift down 1, right -2",
        ]
    ]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda v: v(KEY, {"image": jnp.zeros((2, 8, 8, 3), jnp.uint8)}), '"index"'),
        (
            lambda v: v(KEY, {"image": jnp.zeros((8, 8, 3), jnp.uint8), "index": jnp.arange(8)}),
            r"\[b, h, w, c\]",
        ),
        (
            lambda v: v(KEY, {"image": jnp.zeros((2, 8, 8, 3), jnp.uint8), "index": jnp.arange(3)}),
            r"index \[b\]",
        ),
        (lambda v: v(KEY, {"image": jnp.zeros((2, 8, 8, 3), jnp.int32), "index": jnp.arange(2)}), "uint8"),
        (
            lambda v: v(KEY, {"image": jnp.zeros((2, 8, 8, 2), jnp.uint8), "index": jnp.arange(2)}),
            "one channel or three",
        ),
        (lambda v: augment.from_host(2)(KEY, {"image": jnp.zeros(1)}), "n_views"),
        (lambda v: augment.from_host(2)(KEY, {"views": jnp.zeros((4, 3, 8, 8, 3))}), "of shape"),
    ],
)
def test_what_is_wrong_is_said(call, says):
    with pytest.raises(ValueError, match=says):
        call(augment.two_views(augment.grayscale()))


def test_a_step_that_draws_by_a_key_of_its_own_leaves_the_other_draws_as_they_are():
    own = augment.Op("own", lambda key, shape: ops.Flip(ops.uniform(key) < 0.5), lambda params, image: image)
    plain = augment.compose(augment.translate(3), augment.grayscale(probability=0.5))
    mixed = augment.compose(
        augment.translate(3), own, augment.compose(own, augment.grayscale(probability=0.5))
    )
    assert plain.numbers == 4
    assert mixed.decide is None

    @jax.jit
    def both(keys):
        return [jax.vmap(lambda key, op=op: op.sample(key, (8, 8, 3)))(keys) for op in (plain, mixed)]

    (shift, _), (same, first, (second, gray)) = both(jax.random.split(KEY, 2000))
    jax.tree.map(np.testing.assert_array_equal, shift, same)
    coins = np.stack([first.on, second.on, gray.on, shift.down > 0]).astype(float)
    assert np.abs(np.corrcoef(coins) - np.eye(4)).max() < 0.1


def test_a_composition_of_compositions_draws_its_numbers_in_a_row():
    flat = augment.compose(augment.flip(), augment.grayscale(), augment.translate(3))
    nested = augment.compose(augment.flip(), augment.compose(augment.grayscale(), augment.translate(3)))
    a, b, c = flat.sample(KEY, (8, 8, 3))
    jax.tree.map(np.testing.assert_array_equal, nested.sample(KEY, (8, 8, 3)), (a, (b, c)))
