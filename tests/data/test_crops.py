"""Crops of encoded images for probes and fine-tuning: from the whole image, not from its centre square."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxcl import augment, data

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

H, W, KEY = 375, 500, jax.random.key(3)


def write(root, pictures):
    for i, picture in enumerate(pictures):
        path = root / "train" / "a" / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    (root / "test" / "a").mkdir(parents=True)
    Image.fromarray(pictures[0]).save(root / "test" / "a" / "0.png")
    return data.open(f"folder:{root}", size=64, encoded=True)


def positions():
    """Red tells the column and green the row of every pixel."""
    picture = np.zeros((H, W, 3), np.uint8)
    picture[:, :, 0] = np.round(np.linspace(0, 250, W))
    picture[:, :, 1] = np.round(np.linspace(0, 250, H))[:, None]
    return picture


def published_boxes(n=20000):
    """Left, width and height of SimCLR's crops, as sample_distorted_bounding_box defines them: the aspect ratio is
    uniform, then the height among those that fit, then the place; boxes under a tenth of the image are redrawn."""
    rng, boxes = np.random.default_rng(0), []
    while len(boxes) < n:
        ratio = rng.uniform(3 / 4, 4 / 3)
        least, most = np.sqrt(0.08 * H * W / ratio), min(np.sqrt(H * W / ratio), H, W / ratio)
        height = rng.uniform(least, most)
        if height * height * ratio >= 0.1 * H * W:
            boxes.append((rng.uniform(0, W - height * ratio), height * ratio, height))
    return np.array(boxes).T


def batches(opened, views, *, steps, batch=16, rows=None):
    images = opened.train.images
    rows = rows or (lambda step: np.zeros(batch, np.int32) + step % len(images))
    return list(data.crops_of(KEY, images, views, rows, steps=steps))


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return write(tmp_path_factory.mktemp("positions"), [positions()] * 64)


def test_crops_are_those_that_the_device_makes_of_the_whole_image(opened):
    views = augment.probe_views(64)
    made, make = (
        batches(opened, views, steps=2, rows=lambda step: np.arange(8 * step, 8 * step + 8)),
        jax.jit(views),
    )
    for step, batch in enumerate(made):
        whole = np.stack([positions()] * 8)
        (want,) = make(jax.random.fold_in(KEY, step), {"image": whole, "index": batch["index"]})
        assert batch["index"].tolist() == list(range(8 * step, 8 * step + 8))
        np.testing.assert_allclose(batch["views"][:, 0] / 255, want, atol=0.01)
        # The same object takes what came with the batch.
        (taken,) = views(KEY, batch)
        np.testing.assert_allclose(taken, want, atol=0.01)


def test_the_crops_of_a_photograph_are_as_large_as_the_papers(opened):
    made = batches(opened, augment.probe_views(64), steps=4, rows=lambda step: np.arange(64) % 64)
    pictures = np.concatenate([batch["views"][:, 0] for batch in made]).astype(float)
    # A step between two columns of 64 says how many columns of the image it spans.
    width = 64 * np.abs(np.diff(pictures[:, 32, :, 0])[:, 8:-8]).mean(axis=1) * (W - 1) / 250
    height = 64 * np.abs(np.diff(pictures[:, :, 32, 1])[:, 8:-8]).mean(axis=1) * (H - 1) / 250
    _, widths, heights = published_boxes()
    side = np.sqrt(widths * heights).mean()
    assert 250 < side < 270
    assert np.sqrt(width * height).mean() == pytest.approx(side, rel=0.05)
    assert width.mean() == pytest.approx(widths.mean(), rel=0.06)
    assert height.mean() == pytest.approx(heights.mean(), rel=0.06)


def test_the_margins_beside_the_centre_square_are_seen(tmp_path):
    picture = np.zeros((H, W, 3), np.uint8)
    picture[:, : (W - H) // 2] = picture[:, -(W - H) // 2 :] = 255
    marked = write(tmp_path, [picture] * 32)
    assert marked.train.images[:1].max() < 30  # what is asked for as it is has no margin
    (batch,) = batches(marked, augment.probe_views(64), steps=1, rows=lambda step: np.arange(32))
    left, width, _ = published_boxes()
    margin = (W - H) // 2
    white = (np.clip(margin - left, 0, None) + np.clip(left + width - W + margin, 0, None)) / width
    assert white.mean() > 0.06  # a centre square has none
    assert batch["views"].mean() / 255 == pytest.approx(white.mean(), abs=0.05)


def test_whole_images_are_for_encoded_ones_and_recipes_that_begin_with_a_crop(opened):
    images = opened.train.images
    assert data.crops_whole_images(images, augment.probe_views(64))
    assert not data.crops_whole_images(np.asarray(images[:2]), augment.probe_views(64))
    assert not data.crops_whole_images(images, augment.n_views(augment.flip(), 1))
    assert not data.crops_whole_images(images, lambda key, batch: (jnp.zeros(()),))


def test_training_images_that_are_not_augmented_are_seen_as_test_images_are(opened):
    np.testing.assert_array_equal(opened.train.images[0], opened.test.images[0])


def test_a_damaged_image_is_named(opened, tmp_path):
    broken = write(tmp_path, [positions()] * 3)
    assert len(broken.train.images) == 3  # whole when they were found
    path = tmp_path / "train" / "a" / "001.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"001\.png"), pytest.warns(UserWarning, match="damaged"):
        batches(broken, augment.probe_views(64), steps=1, rows=lambda step: np.arange(3))
