"""`--input`, resolved in one place: every kind meets the same images and makes the same views."""

from functools import partial

import chex
import jax
import numpy as np
import optax
import pytest
from PIL import Image

from jaxcl import augment, data, evaluate, keys, nets
from jaxcl.config import Recipe, load_config, open_data, recipe_of
from jaxcl.losses import keyless, nt_xent
from jaxcl.methods import simclr
from jaxcl.shipped import named
from jaxcl.train import Callback, init_state, train
from jaxcl.train.log import read_metrics
from jaxcl.train.loop import with_labels


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """48 training and 16 test images of two classes, the one dark and the other bright."""
    root = tmp_path_factory.mktemp("streamed")
    for i in range(64):
        path = root / ("test" if i % 4 == 0 else "train") / "ab"[i // 4 % 2] / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(i).integers(0, 100, (5, 6, 3)) + 150 * (i // 4 % 2)
        size = [(40, 30), (26, 50)][i % 2]
        Image.fromarray(coarse.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC).save(path)
    return f"folder:{root}"


KINDS = ("device", "resident", "host")
RECIPE = augment.compose(augment.random_resized_crop(16), augment.flip(), augment.clip())
ORDER = {"batch_size": 8, "seed": 3}


def views_of(pipeline, views, steps=3):
    """What a method sees of each step's batch, by the same line for every kind of input."""
    made = []
    for step, batch in enumerate(pipeline.batches(**ORDER, stop_step=steps)):
        if pipeline.resident is not None:
            assert set(batch) == {"index"}
            batch = {"image": pipeline.resident[batch["index"]], **batch}
        made.append(
            (
                batch["index"],
                jax.device_get(jax.jit(views)(keys.views_key(keys.step_key(keys.run_key(3), step)), batch)),
            )
        )
    return made


@pytest.mark.parametrize(
    "views",
    [
        augment.two_views(RECIPE),
        augment.each_view([augment.amdim(24)] * 2, shared=augment.flip()),
        augment.channel_views(augment.cmc(16), (1, 2)),
    ],
    ids=["two_views", "each_view", "channel_views"],
)
def test_every_kind_of_input_makes_the_same_views_to_rounding(views):
    pytest.importorskip("tensorflow", reason="the host's input pipeline is TensorFlow's")
    images = data.from_arrays(np.random.default_rng(0).integers(0, 256, (20, 24, 24, 3), np.uint8))
    made = {kind: views_of(data.input_pipeline(kind, images, views), views) for kind in KINDS}
    for kind in KINDS:
        for (index, here), (same, there) in zip(made[kind], made["device"], strict=True):
            np.testing.assert_array_equal(index, same)
            for x, y in zip(here, there, strict=True):
                np.testing.assert_allclose(x, y, atol=0 if kind == "resident" else 1 / 255)
                assert np.abs(x - y).mean() < 1e-4


def test_the_first_batch_holds_what_views_are_made_of_whatever_the_input(spec):
    pytest.importorskip("tensorflow", reason="the host's input pipeline is TensorFlow's")
    images, encoded = data.open("digits").train, data.open(spec, size=16, encoded=True).train
    views = augment.two_views(RECIPE)
    for kind, source in [*((kind, images) for kind in KINDS), ("device", encoded), ("host", encoded)]:
        batch = data.input_pipeline(kind, source, views).first(batch_size=6, seed=0)
        assert [x.shape for x in jax.eval_shape(views, jax.random.key(0), batch)] == [(6, 16, 16, 3)] * 2
        assert batch["index"].shape == (6,)


def test_the_first_rows_are_those_of_the_whole_first_batch_bit_for_bit(spec):
    pytest.importorskip("tensorflow", reason="the host's input pipeline is TensorFlow's")
    images, encoded = data.open("digits").train, data.open(spec, size=16, encoded=True).train
    views = augment.two_views(RECIPE)
    for kind, source in [*((kind, images) for kind in KINDS), ("images", encoded), ("host", encoded)]:
        pipeline = data.input_pipeline(kind, source, views)
        whole = pipeline.first(batch_size=20, seed=5)
        two = pipeline.first(batch_size=20, seed=5, rows=2)
        assert len(whole["index"]) == 20
        chex.assert_trees_all_equal(two, jax.tree.map(lambda x: x[:2], whole))


def test_the_state_that_a_run_starts_with_is_that_of_the_whole_first_batch():
    config = named("quickstart")
    module = load_config(config)
    knobs = module.Knobs()
    opened = open_data(module, knobs)
    recipe = recipe_of(module, knobs, opened.about)
    pipeline = data.input_pipeline(knobs.input, opened.train, recipe.views)
    start = partial(init_state, keys.init_key(knobs.seed), recipe.method, recipe.optimizer)
    whole = pipeline.first(batch_size=knobs.batch_size, seed=knobs.seed)
    seen, begin = [], lambda state: seen.append(jax.device_get(state)) or state
    train(recipe._replace(steps=0), opened.train, seed=knobs.seed, init=begin, quiet=True)
    chex.assert_trees_all_equal(seen[0], jax.device_get(start(whole)))


def test_a_batch_that_does_not_fit_is_refused_though_two_rows_of_it_would():
    images = data.from_arrays(np.zeros((10, 8, 8, 3), np.uint8), np.arange(10) % 2)
    for pipeline in (data.input_pipeline("device", images), data.input_pipeline("resident", images)):
        for one in (pipeline, with_labels(pipeline, images)):
            with pytest.raises(ValueError, match=r"must lie in \[1, 10\] for 10 images; got 16"):
                one.first(batch_size=16, seed=0, rows=2)


def test_the_device_is_sent_encoded_images_larger_than_its_crops(spec):
    pytest.importorskip("tensorflow", reason="the host's input pipeline is TensorFlow's")
    images, views = data.open(spec, size=16, encoded=True).train, augment.two_views(RECIPE)
    for kind in ("device", "images"):
        assert data.input_pipeline(kind, images).first(**ORDER)["image"].shape == (8, 18, 18, 3)
    assert data.input_pipeline("device", images, stored=40).first(**ORDER)["image"].shape == (8, 40, 40, 3)
    found = data.find_images(spec, "train")
    one, other = (data.input_pipeline("host", source, views).first(**ORDER) for source in (images, found))
    np.testing.assert_array_equal(one["views"], other["views"])
    assert one["views"].dtype == np.uint8


def test_encoded_images_in_a_color_space_come_as_floats(spec):
    pytest.importorskip("tensorflow", reason="the host's input pipeline is TensorFlow's")
    images, views = (
        data.open(spec, size=16, encoded=True).train,
        augment.channel_views(augment.cmc(16), (1, 2)),
    )
    batch = data.input_pipeline("host", images, views).first(**ORDER)
    assert batch["views"].dtype == np.float32
    assert batch["views"].min() < 0


@pytest.mark.parametrize(
    ("kind", "encoded", "views", "says"),
    [
        ("gpu", False, None, "input must be one of device, resident, host, images; got 'gpu'"),
        ("images", False, None, 'in memory. Take "device" or "resident"'),
        ("resident", True, None, 'stay encoded in files. Take "device" or "host"'),
        ("host", False, None, 'needs those of augment.n_views.*got NoneType.*input "device"'),
        ("host", True, lambda key, batch: (), 'got <lambda>.*input "device"'),
        ("host", True, augment.two_views(augment.rotate90()), "must begin with a crop"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_with_one_that_does(spec, kind, encoded, views, says):
    images = data.open(spec, size=16, encoded=encoded).train
    with pytest.raises(ValueError, match=says):
        data.input_pipeline(kind, images, views)


@pytest.mark.parametrize("input", ["host", "images"])
def test_a_run_on_encoded_images_trains_and_tells_the_classes_apart(spec, input, tmp_path):
    pytest.importorskip("tensorflow", reason="the host's input pipeline is TensorFlow's")
    change = augment.compose(augment.random_resized_crop(16), augment.flip(), augment.clip())
    views = augment.two_views(change)
    images = data.open(spec, size=16, encoded=True)
    pipeline = data.input_pipeline(input, images.train, views)
    batch = next(pipeline.batches(batch_size=8, seed=0))
    assert batch["views" if input == "host" else "image"].dtype == np.uint8
    assert input == "host" or batch["image"].shape == (8, 18, 18, 3)
    norm = nets.batch_norm()
    method = simclr(
        views=views,
        encoder=nets.conv_n(features=(8,), dense=16, norm=norm),
        head=nets.mlp_head(norm=norm, hidden=(), out=8),
        loss=keyless(nt_xent, temperature=0.5),
    )
    recipe = Recipe(method, optax.sgd(0.05), optax.constant_schedule(0.05), views, 4, 16)
    knn = Callback(4, evaluate.online_knn(method.embed, images.train, images.test))
    train(recipe, images.train, input=input, log_every=2, callbacks=[knn], run_dir=tmp_path)
    records = read_metrics(tmp_path)
    assert [record["epoch"] for record in records if "epoch" in record] == [2 / 3, 4 / 3]
    assert records[-1]["knn_accuracy"] == 100


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("processes", [2, 4])
def test_in_an_epoch_the_processes_together_meet_every_image_once(kind, processes):
    images = data.from_arrays(np.random.default_rng(0).integers(0, 256, (24, 18, 18, 3), np.uint8))
    pipeline = data.input_pipeline(kind, images, augment.two_views(RECIPE))
    met = []
    for i in range(processes):
        order = {"start_step": 3, "stop_step": 6, "process_index": i, "process_count": processes}
        shares = list(pipeline.batches(**ORDER, **order))
        assert [len(share["index"]) for share in shares] == [8 // processes] * 3
        met += np.concatenate([share["index"] for share in shares]).tolist()
    assert sorted(met) == list(range(24))


@pytest.mark.parametrize("kind", ["device", "images", "host"])
def test_in_an_epoch_the_processes_together_decode_every_file_once(spec, kind):
    pipeline = data.input_pipeline(
        kind, data.open(spec, size=16, encoded=True).train, augment.two_views(RECIPE)
    )
    shares = [pipeline.batches(**ORDER, stop_step=6, process_index=i, process_count=2) for i in range(2)]
    met = [batch["index"] for share in shares for batch in share]
    assert sorted(np.concatenate(met).tolist()) == list(range(48))
