"""Data that is too large for memory is decoded when it is asked for, and trains and is evaluated like any other."""

import numpy as np
import optax
import pytest
from PIL import Image

from jaxcl import augment, data, nets
from jaxcl.experiment import Experiment
from jaxcl.losses import keyless, nt_xent
from jaxcl.methods import simclr
from jaxcl.train import train
from jaxcl.train.log import read_metrics


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


def test_what_is_decoded_when_asked_for_is_what_load_decodes_ahead(spec):
    loaded = data.load(spec, "train", size=16)
    images = data.as_images(data.find_images(spec, "train"), 16)
    assert images.images.shape == loaded.images.shape == (48, 16, 16, 3)
    assert images.images.dtype == np.uint8
    assert len(images.images) == 48
    assert images.labels.tolist() == loaded.labels.tolist()
    assert images.classes == loaded.classes
    for part in (slice(5, 9), slice(None, None, -7), np.array([3, 40, 3]), loaded.labels == 1, 7, -1):
        assert np.array_equal(images.images[part], loaded.images[part])
    assert np.array_equal(images.images[[2, 4], 1:3, ..., 0], loaded.images[[2, 4], 1:3, ..., 0])
    assert np.array_equal(np.asarray(images.images), loaded.images)
    with pytest.raises(IndexError):
        images.images[48]


def test_a_share_is_the_middle_of_the_centre_square(tmp_path):
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[2:-2, 10:-10] = 255  # 28 x 28 in the middle
    for i in range(10):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    found = data.find_images(f"folder:{tmp_path}", "train")
    assert data.as_images(found, 28, share=7 / 8).images[0].min() == 255
    assert data.as_images(found, 28).images[0].min() == 0


def test_a_damaged_image_is_named_when_it_is_asked_for(tmp_path):
    for i in range(10):
        Image.fromarray(np.full((30, 30, 3), i, np.uint8)).save(tmp_path / f"{i}.jpg")
    content = (tmp_path / "3.jpg").read_bytes()
    (tmp_path / "3.jpg").write_bytes(content[:-20])
    images = data.as_images(data.find_images(f"folder:{tmp_path}", "train"), 8).images
    assert images[4:].shape == (5, 8, 8, 3)
    with pytest.raises(ValueError, match=r"3\.jpg is damaged: .*truncated.*Mend or remove it"):
        images[:4]


@pytest.mark.parametrize(
    ("change", "says"),
    [({"input": "device"}, 'input must be "host" or "images"'), ({"size": 0}, "expected size >= 1")],
)
def test_what_cannot_be_streamed_is_refused(spec, change, says):
    with pytest.raises(ValueError, match=says):
        data.streamed(spec, augment.simclr(16), **({"size": 16, "input": "host"} | change))


@pytest.mark.parametrize("input", ["host", "images"])
def test_a_run_on_streamed_images_trains_and_tells_the_classes_apart(spec, input, tmp_path):
    pytest.importorskip("tensorflow", reason="the host lane is TensorFlow's")
    recipe = augment.compose(augment.random_resized_crop(16), augment.flip(), augment.clip())
    images = data.streamed(spec, recipe, size=16, input=input)
    batch = next(images.input(batch_size=8, seed=0))
    assert batch["views" if input == "host" else "image"].dtype == np.uint8
    assert input == "host" or batch["image"].shape == (8, 18, 18, 3)
    norm = nets.batch_norm()
    experiment = Experiment(
        method=simclr(
            views=images.views,
            encoder=nets.conv_n(features=(8,), dense=16, norm=norm),
            head=nets.projection_head(layers=2, out=8, norm=norm),
            loss=keyless(nt_xent, temperature=0.5),
        ),
        optimizer=optax.sgd(0.05),
        train=images.train,
        test=images.test,
        input=images.input,
        batch_size=16,
        steps=4,
        log_every=2,
        knn_every=4,
    )
    train(experiment, run_dir=tmp_path)
    records = read_metrics(tmp_path)
    assert [record["epoch"] for record in records if "epoch" in record] == [2 / 3, 4 / 3]
    assert records[-1]["knn_accuracy"] == 100
