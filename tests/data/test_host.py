"""The host makes the device's views, of the same images in the same order, from arrays and from files."""

import os
import warnings

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcl import augment
from jaxcl.data import batches, find_images, from_arrays, host_images, host_views, load
from jaxcl.data.decode import read_rgb
from jaxcl.data.host import pipeline

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

RECIPE = augment.compose(
    augment.random_resized_crop(12), augment.flip(), augment.grayscale(probability=0.5), augment.clip()
)
ORDER = {"batch_size": 8, "seed": 3}


def step_key(seed, step):
    """What a method hands its views: the run's key, folded with the step, split in two."""
    run_key = jax.random.split(jax.random.key(seed))[1]
    return jax.random.split(jax.random.fold_in(run_key, step))[0]


@jax.jit
def on_device(key, batch):
    return jax.numpy.stack(augment.two_views(RECIPE)(key, batch), axis=1)


@pytest.fixture(scope="module")
def arrays():
    return from_arrays(np.random.default_rng(0).integers(0, 256, (20, 18, 24, 3), np.uint8))


@pytest.fixture(scope="module")
def from_host(arrays):
    return list(host_views(arrays, RECIPE)(**ORDER, stop_step=5))


def reddish(i, size):
    """Pictures of class "a" are red, those of class "b" blue: a label can be seen."""
    pixels = np.random.default_rng(i).integers(0, 120, (9, 7, 3), np.uint8)
    pixels[..., 0 if i % 2 == 0 else 2] = 250
    return Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("folder")
    for i in range(24):
        path = root / "train" / "ab"[i % 2] / f"{i:02d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = reddish(i, [(21, 80), (117, 47)][i // 2 % 2])
        if i % 8 == 4:
            image.save(f"{path}.png")
        elif i % 8 == 6:
            exif = Image.Exif()
            exif[0x0112] = 6
            image.save(f"{path}.jpg", exif=exif)
        else:
            image.save(f"{path}.jpg", quality=90, subsampling=i % 3, progressive=i % 5 == 0)
    return root


def test_device_and_host_make_the_same_views_of_the_same_images(arrays, from_host):
    assert len(from_host) == 5
    for step, (there, here) in enumerate(zip(from_host, batches(arrays, **ORDER, stop_step=5), strict=True)):
        assert there["views"].shape == (8, 2, 12, 12, 3)
        assert there["views"].dtype == np.float32
        assert there["index"].tolist() == here["index"].tolist()
        np.testing.assert_allclose(there["views"], on_device(step_key(3, step), here), atol=1e-4)


def test_a_run_cut_anywhere_meets_the_same_batches(arrays, from_host):
    for start in (1, 3):  # in the middle of an epoch of two steps, and of the next
        again = list(host_views(arrays, RECIPE)(**ORDER, start_step=start, stop_step=5))
        assert len(again) == 5 - start
        for there, here in zip(again, from_host[start:], strict=True):
            assert np.array_equal(there["views"], here["views"])
            assert np.array_equal(there["index"], here["index"])


def test_processes_share_the_global_batch_in_their_order(arrays, from_host):
    shares = [
        list(host_views(arrays, RECIPE)(**ORDER, stop_step=2, process_index=i, process_count=2))
        for i in range(2)
    ]
    for step in range(2):
        views = np.concatenate([share[step]["views"] for share in shares])
        assert np.array_equal(views, from_host[step]["views"])


def test_bytes_are_the_floats_rounded(arrays, from_host):
    batch = next(host_views(arrays, RECIPE, dtype="uint8")(**ORDER))
    assert batch["views"].dtype == np.uint8
    assert np.abs(batch["views"] / 255 - from_host[0]["views"]).max() <= 0.5 / 255 + 1e-6


def test_each_view_may_have_its_own_recipe(arrays, from_host):
    plain = augment.compose(augment.random_resized_crop((12, 12), area=(1, 1), ratio=(4 / 3, 4 / 3)))
    batch = next(host_views(arrays, (RECIPE, plain))(**ORDER))
    assert np.array_equal(batch["views"][:, 0], from_host[0]["views"][:, 0])
    assert not np.array_equal(batch["views"][:, 1], from_host[0]["views"][:, 1])


def of_one_size(files, index, *, most):
    """(row, the whole image as a batch) of the first rows whose images have the size of most: one program for all."""
    found = [(row, read_rgb(files.content(i))) for row, i in enumerate(index)]
    sizes = [image.shape for _, image in found]
    size = max(sizes, key=sizes.count)
    chosen = [(row, image) for row, image in found if image.shape == size][:most]
    assert len(chosen) > 1
    return [(row, {"image": image[None], "index": index[row : row + 1]}) for row, image in chosen]


def test_files_of_all_sizes_and_kinds_give_the_device_s_views(folder):
    files = find_images(f"folder:{folder}", "train")
    assert 0 < files.plain.sum() < 24
    for step, batch in enumerate(host_views(files, RECIPE)(**ORDER, stop_step=3)):
        for row, i in enumerate(batch["index"]):
            # Decoded in part by TensorFlow, and as a whole by Pillow: the same pixels.
            whole = {"image": read_rgb(files.content(i))[None], "index": np.array([i])}
            np.testing.assert_allclose(batch["views"][row], on_device(step_key(3, step), whole)[0], atol=1e-4)


def test_decoding_alone_gives_what_load_gives(folder):
    files, loaded = find_images(f"folder:{folder}", "train"), load(f"folder:{folder}", "train", size=32)
    met = 0
    for batch in host_images(files, 32)(**ORDER, stop_step=3):
        assert batch["image"].dtype == np.uint8
        assert batch["image"].shape == (8, 32, 32, 3)
        # Pillow rounds to 8 bits between the two directions of a resize.
        assert np.abs(batch["image"].astype(int) - loaded.images[batch["index"]]).max() <= 8
        met += len(batch["index"])
    assert met == 24


CROP = augment.compose(augment.random_resized_crop(12), augment.flip())
# What is quickly compiled; color jitter is in CPC's recipe below.
COLOR = augment.compose(augment.solarize(probability=0.5), augment.grayscale(probability=0.5))
MANY = {
    "leave one out": augment.leave_one_out(
        {"color": COLOR, "rotation": augment.rotate90()},
        before=CROP,
        after=augment.clip(),
    ).views,
    "multi-crop": augment.each_view(augment.multi_crop(20, 8, counts=(1, 2))),
    "one flip for all": augment.each_view([COLOR] * 2, shared=augment.flip()),
    "brightness and color": augment.channel_views(augment.cmc(12), (1, 2)),
    "brightness and color, ycbcr": augment.channel_views(augment.cmc(12, space="ycbcr"), (1, 2)),
}


# To leave one out is tried with files below, and costs most.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "leave one out" else name for name in MANY]
)
def test_views_that_share_draws_or_differ_in_size_are_the_device_s(arrays, name):
    views = MANY[name]
    device = jax.jit(views)
    pipeline = host_views(arrays, views)(**ORDER, start_step=2, stop_step=4)
    for step, (there, here) in enumerate(
        zip(pipeline, batches(arrays, **ORDER, start_step=2), strict=False), start=2
    ):
        made = views(None, there)
        for one, other in zip(made, device(step_key(3, step), here), strict=True):
            np.testing.assert_allclose(one, other, atol=1 / 255)
            assert np.abs(one - other).mean() < 1e-4


def test_leave_one_out_views_of_files_are_the_device_s(folder):
    files, views = find_images(f"folder:{folder}", "train"), MANY["leave one out"]
    batch = next(host_views(files, views, dtype="uint8")(**ORDER))
    assert batch["views"].shape == (8, 4, 12, 12, 3)
    device = jax.jit(lambda key, batch: jax.numpy.stack(views(key, batch), axis=1))
    for row, whole in of_one_size(files, batch["index"], most=3):
        np.testing.assert_allclose(batch["views"][row] / 255, device(step_key(3, 0), whole)[0], atol=1 / 255)


FLIPPED = {
    "one flip for all": augment.each_view([augment.random_resized_crop(12)] * 2, shared=augment.flip()),
    "AMDIM": augment.each_view([augment.amdim(12, crop=True)] * 2, shared=augment.flip()),
    "YADIM": augment.two_views(augment.compose(augment.flip(), augment.amdim(12, crop=True))),
    "CPC": augment.n_views(
        augment.compose(augment.flip(), augment.amdim(16, crop=True), augment.cpc_patches(8, 4)), 1
    ),
    "CMC": augment.channel_views(augment.cmc(12, space="ydbdr"), (1, 2)),
}


# AMDIM's and YADIM's have parts that others have: one flip for all views; a flip for each, and AMDIM's recipe (CPC's).
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in ("AMDIM", "YADIM") else n for n in FLIPPED],
)
def test_recipes_that_flip_before_they_crop_cut_patches_or_change_the_space_are_the_device_s(folder, name):
    files, views = find_images(f"folder:{folder}", "train"), FLIPPED[name]
    batch = next(host_views(files, views)(**ORDER))
    made = views(None, batch)
    device = jax.jit(views)
    for row, whole in of_one_size(files, batch["index"], most=4):
        for here, there in zip(made, device(step_key(3, 0), whole), strict=True):
            np.testing.assert_allclose(here[row], there[0], atol=1 / 255)


@pytest.fixture
def damaged(folder, tmp_path):
    """The folder, and between its files damaged ones: cut off, or with bytes changed."""
    rng = np.random.default_rng(5)
    for path in sorted(folder.rglob("*.*")):
        content = path.read_bytes()
        label = path.parent.name
        (tmp_path / "train" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / label / path.name).write_bytes(content)
        cut = content[: int(rng.integers(len(content) // 2, len(content) - 10))]
        (tmp_path / "train" / label / f"{path.stem}-cut{path.suffix}").write_bytes(cut)
    return tmp_path


def found(folder):
    """Cut off PNGs are found out at once, and of no interest here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return find_images(f"folder:{folder}", "train")


def test_a_good_file_stands_in_for_a_damaged_one_under_its_own_number(damaged):
    files = found(damaged)
    n = len(files.paths)
    order = {"batch_size": 16, "seed": 1}
    with pytest.warns(UserWarning, match="is damaged and left out"):
        first = list(host_views(files, RECIPE, tolerate=1.0)(**order, stop_step=n // 16))
    assert 0 < len(files.damaged) <= n
    assert all("-cut" in files.paths[i] for i in files.damaged)
    for batch in first:
        for i, views in zip(batch["index"], batch["views"], strict=True):
            assert i not in files.damaged
            if "-cut" not in files.paths[i]:
                red, blue = views[..., 0].mean(), views[..., 2].mean()
                # Gray views tell nothing; all others are of the color of their class.
                assert abs(red - blue) < 1e-3 or (red > blue) == (files.classes[files.labels[i]] == "a")
    # What was learnt on the way changes nothing: a second run meets the same batches.
    again = found(damaged)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        last = list(
            host_views(again, RECIPE, tolerate=1.0)(**order, start_step=n // 16 - 1, stop_step=n // 16)
        )
    assert np.array_equal(last[0]["views"], first[-1]["views"])
    assert np.array_equal(last[0]["index"], first[-1]["index"])


def test_a_batch_follows_from_its_step_whatever_was_seen_before_it(tmp_path):
    """Of these files the lower part is gone, so some of their crops can be decoded and others cannot."""
    (tmp_path / "train").mkdir()
    for i in range(16):
        noise = np.random.default_rng(i).integers(0, 256, (96, 64, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"train/{i}.jpg", quality=90)
        if i % 4 == 0:
            content = (tmp_path / f"train/{i}.jpg").read_bytes()
            # A second beginning, which no decoder passes; or a comment that never ends, behind which Pillow stops.
            other = b"\xff\xd8" if i % 8 else b"\xff\xe1\xea\x60"
            end = other + bytes(20) + b"\xff\xd9"
            (tmp_path / f"train/{i}.jpg").write_bytes(content[: len(content) * 2 // 3] + end)
    files = find_images(f"folder:{tmp_path}", "train")
    assert files.plain.all()
    recipe, order = augment.random_resized_crop(16, area=(0.05, 0.2)), {"batch_size": 8, "seed": 0}

    def batches(**steps):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            anew = find_images(f"folder:{tmp_path}", "train")
            return list(host_views(anew, recipe, n=1, tolerate=1.0)(**order, **steps))

    whole = batches(stop_step=10)
    there = [{files.files[i] for i in batch["index"]} for batch in whole]
    known = [name for name in there[0].union(*there) if int(name[6:-4]) % 4 == 0]
    assert known  # some crops of damaged files are taken
    assert len(set.intersection(*there)) < 8
    for step, batch in enumerate(whole):
        (alone,) = batches(start_step=step, stop_step=step + 1)
        np.testing.assert_array_equal(alone["index"], batch["index"])
        np.testing.assert_array_equal(alone["views"], batch["views"])


def test_more_damage_than_tolerated_ends_it_by_name(damaged):
    files = found(damaged)
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(
            ValueError, match=r"images of folder:.* are damaged, more than the fraction of 0 .*-cut"
        ),
    ):
        list(host_views(files, RECIPE, tolerate=0)(batch_size=16, seed=1, stop_step=3))
    # What is known of the files already is not forgiven the second time.
    with pytest.raises(ValueError, match="are damaged, more than the fraction of 0"):
        list(host_views(files, RECIPE, tolerate=0)(batch_size=16, seed=1, stop_step=3))


def test_a_file_that_was_read_badly_once_is_read_again(damaged, monkeypatch):
    """As a file system on a network gives it: the second look finds nothing, and the step is tried once more."""
    good = [file for file in sorted(damaged.rglob("*.jpg")) if "cut" not in file.name]
    for file in damaged.rglob("*"):
        if file.is_file() and file not in good:
            file.unlink()
    path, content = good[0], good[0].read_bytes()
    files = found(damaged)
    path.write_bytes(content[: len(content) // 4])
    looked = pipeline.verdict

    def mended(*given):
        path.write_bytes(content)
        return looked(*given)

    monkeypatch.setattr(pipeline, "verdict", mended)
    batches = list(host_views(files, RECIPE, tolerate=0)(batch_size=len(good), seed=0, stop_step=1))
    assert sorted(batches[0]["index"].tolist()) == list(range(len(good)))


def test_a_file_that_goes_away_is_named(folder, tmp_path):
    (tmp_path / "train").mkdir()
    for i in range(9):
        reddish(i, (20, 20)).save(tmp_path / "train" / f"{i}.jpg")
    files = find_images(f"folder:{tmp_path}", "train")
    os.remove(files.paths[4])
    with pytest.warns(UserWarning, match=r"4\.jpg is damaged and left out: .*No such file"):
        batch = next(host_views(files, RECIPE, tolerate=0.2)(batch_size=9, seed=0))
    assert sorted(batch["index"]) == [0, 1, 2, 3, 5, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dtype": "float16"}, "dtype must be"),
        ({"recipe": augment.compose(augment.rotate90(), RECIPE)}, "must begin with a crop"),
        ({"recipe": augment.each_view([augment.amdim(12)], shared=augment.flip())}, "AMDIM's: crop=True"),
        (
            {"recipe": augment.channel_views(augment.cmc(12), (1, 2)), "dtype": "uint8"},
            'color space has; got crop > flip > clip > lab.*dtype="float32"',
        ),
        ({"recipe": augment.from_host(2)}, "makes views from recipes.*got a function.*--input device"),
        ({"recipe": augment.leave_one_out({"color": COLOR}, before=CROP)}, "got a LeaveOneOut"),
    ],
)
def test_what_cannot_be_made_is_refused(folder, change, says):
    files = find_images(f"folder:{folder}", "train")
    with pytest.raises(ValueError, match=says):
        host_views(files, **({"recipe": RECIPE} | change))


def test_what_cannot_be_dealt_out_is_an_error_at_once(arrays):
    with pytest.raises(ValueError, match="batch_size must lie in"):
        host_views(arrays, RECIPE)(batch_size=21, seed=0)
