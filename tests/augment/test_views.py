import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxcl import augment, devices

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
    mesh = devices.make_mesh(devices=8)
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


def test_eight_devices_make_the_same_views_under_shard_map(batch, plain):
    recipe, made = plain
    mesh, split = devices.make_mesh(devices=8), PartitionSpec(devices.AXIS)
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


def test_min_area_bounds_the_crops(batch):
    crop = jax.device_get(
        jax.jit(lambda: augment.draw(KEY, augment.crop_and_flip(20, min_area=0.7), batch))()
    )[0]
    assert (crop.height * crop.width).min() >= 0.7 * 24 * 24


def test_views_that_came_with_the_batch_are_taken_by_any_views_object(batch):
    made = np.random.default_rng(3).integers(0, 256, (B, 2, 8, 8, 3), np.uint8)
    recipe = augment.compose(augment.random_resized_crop(8), augment.clip())
    for views in (
        augment.two_views(recipe),
        augment.each_view([recipe] * 2, shared=augment.flip()),
        augment.leave_one_out({"flip": augment.flip()}, before=augment.random_resized_crop(8)).views,
    ):
        n = len(views.recipes)
        out = views(KEY, {"views": made[:, :1].repeat(n, axis=1), "index": batch["index"]})
        assert len(out) == n
        close(out, [made[:, 0] / 255] * n)
    halves = augment.two_views(recipe, dtype=jnp.bfloat16)(KEY, {"views": made})
    assert halves[0].dtype == jnp.bfloat16
    sizes = augment.each_view([recipe, augment.random_resized_crop(4)])
    close(
        sizes(KEY, {"views": (made[:, 0], made[:, 1, :4, :4])}), [made[:, 0] / 255, made[:, 1, :4, :4] / 255]
    )


def test_a_picture_that_came_with_the_batch_is_cut_into_channels():
    picture = np.random.default_rng(3).uniform(-1, 1, (4, 1, 8, 8, 3)).astype(np.float32)
    light, color = augment.channel_views(augment.cmc(8), (1, 2))(KEY, {"views": picture})
    close([light, color], [picture[:, 0, ..., :1], picture[:, 0, ..., 1:]])


def test_views_made_by_the_host_are_unpacked():
    made = np.random.default_rng(3).integers(0, 256, (4, 3, 5, 5, 3), np.uint8)
    out = augment.from_host(3)(KEY, {"views": jnp.asarray(made)})
    assert len(out) == 3
    for view in range(3):
        np.testing.assert_allclose(out[view], made[:, view] / 255, atol=1e-6)
    floats = augment.from_host(3, dtype=jnp.bfloat16)(KEY, {"views": jnp.asarray(made / 255)})
    assert floats[0].dtype == jnp.bfloat16


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
        (lambda v: augment.from_host(2)(KEY, {"image": jnp.zeros(1)}), "n_views"),
        (lambda v: augment.from_host(2)(KEY, {"views": jnp.zeros((4, 3, 8, 8, 3))}), "of shape"),
        (lambda v: v(KEY, {"views": jnp.zeros((4, 3, 8, 8, 3))}), "of shape"),
        (lambda v: v(KEY, {"views": (jnp.zeros((4, 8, 8, 3)),) * 3}), "expected 2 views.*got 3"),
    ],
)
def test_what_is_wrong_is_said(call, says):
    with pytest.raises(ValueError, match=says):
        call(augment.two_views(augment.grayscale()))


# -------------------------------------------------------------------------------------------- several recipes


def test_each_view_of_the_same_recipe_is_n_views(batch):
    recipe = augment.compose(augment.random_resized_crop(8), augment.clip())
    one = jax.jit(augment.n_views(recipe, 2))(KEY, batch)
    other = jax.jit(lambda key, batch: augment.each_view([recipe] * 2)(key, batch))(KEY, batch)
    for x, y in zip(one, other, strict=True):
        np.testing.assert_allclose(x, y, atol=2e-6)


def test_views_may_differ_in_size_and_chunks_change_nothing(batch):
    recipes = [augment.random_resized_crop(8), augment.random_resized_crop((4, 6)), augment.flip()]
    whole, parts = (
        jax.jit(lambda batch, chunk=chunk: augment.each_view(recipes, chunk=chunk)(KEY, batch))(batch)
        for chunk in (1000, 4)
    )
    assert [x.shape for x in whole] == [
        (B, 8, 8, 3),
        (B, 4, 6, 3),
        (B, 24, 24, 3),
    ]
    for x, y in zip(whole, parts, strict=True):
        np.testing.assert_allclose(x, y, atol=2e-6)


def test_what_is_shared_is_done_to_all_views_of_an_image_or_to_none(batch):
    many = {"image": np.repeat(batch["image"][:1], 64, 0), "index": np.arange(64)}
    views = augment.each_view([augment.clip(), augment.clip()], shared=augment.flip())
    x1, x2 = jax.jit(lambda batch: views(KEY, batch))(many)
    np.testing.assert_array_equal(x1, x2)
    original = many["image"][0] / np.float32(255)
    flipped = [np.allclose(x, original[:, ::-1]) for x in x1]
    assert all(np.allclose(x, original) for x, done in zip(x1, flipped, strict=True) if not done)
    assert 15 < sum(flipped) < 49


def test_a_shared_crop_is_the_same_in_all_views_and_what_follows_is_drawn_for_its_size(batch):
    crop, hole = augment.random_resized_crop(8), augment.cutout(probability=1.0)
    views = augment.each_view([augment.clip(), augment.compose(hole, augment.clip())], shared=crop)
    whole, holed = jax.jit(lambda batch: views(KEY, batch))(batch)
    assert whole.shape == holed.shape == (len(whole), 8, 8, 3)
    shown = np.all(np.isclose(whole, holed, atol=1e-6), axis=-1)
    assert np.all(shown.any(axis=(1, 2)))
    assert not np.any(shown.all(axis=(1, 2)))
    # What was drawn, told again: the pixel in a hole's middle is one of the crop's 8 x 8, and is filled.
    shape = batch["image"].shape[1:]
    sample = jax.jit(lambda index: views.sample(KEY, index, shape))
    for i, index in enumerate(batch["index"]):
        _, (_, (drawn, _)) = sample(index)
        assert max(drawn.row, drawn.column) < 8
        np.testing.assert_array_equal(holed[i, drawn.row, drawn.column], 0.5)


def test_cmcs_views_are_the_two_parts_of_one_picture(batch):
    recipe = augment.cmc(8)
    light, color = jax.jit(lambda batch: augment.channel_views(recipe, (1, 2))(KEY, batch))(batch)
    (whole,) = jax.jit(lambda batch: augment.n_views(recipe, 1)(KEY, batch))(batch)
    assert light.shape == (B, 8, 8, 1)
    np.testing.assert_allclose(np.concatenate([light, color], 3), whole, atol=1e-6)
    assert np.abs(whole).max() <= 1.0001
    with pytest.raises(ValueError, match="sum to"):
        jax.eval_shape(lambda: augment.channel_views(recipe, (1, 1))(KEY, batch))
