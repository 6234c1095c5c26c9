"""Images in TFRecords: found and read one by one, and never under another image's label."""

import contextlib
import io
import shutil
import warnings

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxcl import augment
from jaxcl.data import find_images, host_images, host_views, load, records
from jaxcl.data.decode import read_rgb

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
tfds = pytest.importorskip("tensorflow_datasets", reason="TensorFlow Datasets is not installed")

RECIPE = augment.compose(augment.random_resized_crop(32), augment.flip(), augment.clip())
SIZES = ((224, 224), (250, 187), (160, 300))
COUNT = 40


def picture(i):
    """The brightness of image i tells its label, i % 10."""
    coarse = np.random.default_rng(i).integers(-9, 10, (7, 9, 3)) + 20 + 24 * (i % 10)
    return Image.fromarray(coarse.astype(np.uint8)).resize(SIZES[i % 3], Image.Resampling.BICUBIC)


def told(image):
    return round((np.mean(image) - 20) / 24)


def encoded(i):
    """JPEGs mostly: in color, gray, in CMYK; a PNG under the name of a JPEG, as ImageNet has one."""
    mode, kind = {3: ("L", "JPEG"), 5: ("CMYK", "JPEG"), 8: ("RGB", "PNG")}.get(i % 13, ("RGB", "JPEG"))
    file = io.BytesIO()
    picture(i).convert(mode).save(file, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return file.getvalue()


def feature(value):
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    if isinstance(value, list):
        return tf.train.Feature(float_list=tf.train.FloatList(value=value))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[] if value is None else [value]))


def example(**values):
    features = tf.train.Features(feature={name.replace("__", "/"): feature(v) for name, v in values.items()})
    return tf.train.Example(features=features).SerializeToString()


def write(path, contents):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for content in contents:
            writer.write(content)


def record(i, content=None):
    more = {"image__height": 7, "image__object__bbox": [0.5, 1.0], "image__filename": b"a.JPEG"}
    return example(
        image__encoded=encoded(i) if content is None else content, image__class__label=i % 10, **more
    )


class TinyPhotos(tfds.core.GeneratorBasedBuilder):
    """ImageNet's features; the labels of "test" are secret."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(num_classes=10),
                "file_name": tfds.features.Text(),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        return {name: self._generate_examples(name) for name in ("train", "validation", "test")}

    def _generate_examples(self, split):
        for i in range(COUNT if split == "train" else 6):
            label = -1 if split == "test" else i % 10
            yield i, {"image": io.BytesIO(encoded(i)), "label": label, "file_name": f"{i}.JPEG"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The same images, prepared by TFDS, in four shards of TFRecords, and as files."""
    root = tmp_path_factory.mktemp("records")
    tfds.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        TinyPhotos(data_dir=root).download_and_prepare()
    for shard in range(4):
        write(root / f"shards/train-{shard}", [record(i) for i in range(10 * shard, 10 * shard + 10)])
    write(root / "shards/validation-0", [record(i) for i in range(6)])
    for i in range(COUNT):
        path = root / f"files/train/{i % 10}/{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(i))
    return root


@pytest.fixture(scope="module")
def found(root):
    return {
        "tfds": find_images("tfds:tiny_photos", "train", data_dir=root, check=True),
        "tfrecord": find_images(f"tfrecord:{root}/shards/{{split}}-*", "train", check=True),
        "folder": find_images(f"folder:{root}/files", "train"),
    }


@pytest.mark.parametrize("kind", ["tfds", "tfrecord", "folder"])
def test_every_image_is_found_once_with_its_size_and_label(found, kind):
    images = found[kind]
    number = {encoded(i): i for i in range(COUNT)}
    order = [number[images.content(k)] for k in range(COUNT)]
    assert sorted(order) == list(range(COUNT))
    assert images.labels.tolist() == [i % 10 for i in order]
    assert [tuple(size) for size in images.sizes.tolist()] == [SIZES[i % 3][::-1] for i in order]
    assert images.plain.tolist() == [i % 13 not in (5, 8) for i in order]
    assert len(images.classes) == (0 if kind == "tfrecord" else 10)
    if kind == "tfrecord":
        assert order == list(range(COUNT))


def test_the_images_are_those_that_are_loaded_and_in_the_same_order(root, found):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = load("tfds:tiny_photos", "train", data_dir=root, size=48)
    assert loaded.labels.tolist() == found["tfds"].labels.tolist()
    for batch in host_images(found["tfds"], 48)(batch_size=20, seed=0, stop_step=2):
        for image, i in zip(batch["image"], batch["index"], strict=True):
            if found["tfds"].plain[i]:  # of CMYK, TensorFlow makes other colors than Pillow
                assert np.abs(image.astype(int) - loaded.images[i]).mean() < 2
            assert told(image) == found["tfds"].labels[i]


def test_the_splits_of_tfds_are_those_of_load(root):
    images = find_images("tfds:tiny_photos", "test", data_dir=root)
    assert images.name == "tfds:tiny_photos/validation"
    assert len(images.paths) == 6
    assert find_images("tfrecord:" + str(root / "shards/{split}-*"), "test").labels.tolist() == list(range(6))


def test_files_that_are_not_split_hold_out_every_tenth_image(root):
    shards = f"tfrecord:{root}/shards/train-*"
    train, test = find_images(shards, "train"), find_images(shards, "test")
    assert len(train.paths) == 36
    assert test.labels.tolist() == [9] * 4


def test_views_of_records_are_those_of_files(found):
    order = {"batch_size": 10, "seed": 2}
    run_key = jax.random.split(jax.random.key(2))[1]
    views = jax.jit(lambda key, batch: jax.numpy.stack(augment.two_views(RECIPE)(key, batch), axis=1))
    images = found["tfrecord"]
    batches = list(host_views(images, RECIPE)(**order, stop_step=5))
    for step in (0, 4):
        key = jax.random.split(jax.random.fold_in(run_key, step))[0]
        # Of one size, so that the device compiles once.
        rows = [row for row, i in enumerate(batches[step]["index"]) if i % len(SIZES) == 1]
        for row in rows[:3]:
            i = batches[step]["index"][row]
            whole = {"image": read_rgb(images.content(i))[None], "index": np.array([i])}
            np.testing.assert_allclose(batches[step]["views"][row], views(key, whole)[0], atol=1e-4)
    # Cut in the middle of an epoch, and shared by two processes: the same batches.
    shares = [
        next(host_views(images, RECIPE)(**order, start_step=2, process_index=i, process_count=2))
        for i in (0, 1)
    ]
    assert np.array_equal(np.concatenate([share["views"] for share in shares]), batches[2]["views"])


def test_what_is_no_image_is_named_and_left_out_and_no_label_moves(tmp_path):
    good = [record(i) for i in range(8)]
    odd = [
        example(image__encoded=b"this is no picture", image__class__label=1),
        example(image__encoded=encoded(0)[:40], image__class__label=1),
        example(image__encoded=encoded(1)),
        example(image__encoded=encoded(1), image__class__label=-1),
        example(image__encoded=encoded(1), image__class__label=None),
        example(image__encoded=encoded(1), image__class__label=b"one"),
        example(image__encoded=None, image__class__label=1),
        example(image__encoded=7, image__class__label=1),
        example(pixels=encoded(1), image__class__label=1),
        b"",
        b"\xff\xff\xff",
        record(1)[:-9],
    ]
    write(tmp_path / "some", [one for pair in zip(good, odd[:8], strict=True) for one in pair] + odd[8:])
    # Every tenth is held out: the 10th and the 20th, which are odd ones.
    with pytest.warns(UserWarning, match=r"10 of 18 files or records of tfrecord:.*some.*were left out"):
        images = find_images(f"tfrecord:{tmp_path}/some", "train")
    assert images.labels.tolist() == list(range(8))
    assert [images.content(i) for i in range(8)] == [encoded(i) for i in range(8)]
    assert all("some (at byte" in reason for reason in images.skipped)
    said = " ".join(images.skipped)
    for reason in (
        "no image in a known format",
        "it has no label",
        "its label is -1",
        "no encoded image is among",
    ):
        assert reason in said


def test_a_damaged_image_is_found_when_its_turn_comes_and_another_stands_in(tmp_path):
    contents = [encoded(i)[: -300 if i == 6 else None] for i in range(0, 13, 2)]
    write(tmp_path / "some", [example(image=content) for content in contents])
    images = find_images(f"tfrecord:{tmp_path}/some", "train")
    assert images.labels is None
    assert not images.plain[3]
    with pytest.warns(UserWarning, match=r"some \(at byte \d+\) is damaged and left out: .*truncated"):
        batch = next(host_views(images, RECIPE, tolerate=0.2)(batch_size=7, seed=0))
    assert sorted(batch["index"]) == [0, 1, 2, 4, 4, 5, 6]
    for i, views in zip(batch["index"], batch["views"], strict=True):
        assert told(255 * views) == 2 * i % 10
    strict = host_views(find_images(f"tfrecord:{tmp_path}/some", "train"), RECIPE, tolerate=0)
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(ValueError, match=r"1 of the 7 images of tfrecord.*some \(at byte"),
    ):
        next(strict(batch_size=7, seed=0))


def test_a_file_that_becomes_shorter_while_it_is_read_is_named(tmp_path):
    write(tmp_path / "some", [example(image=encoded(i)) for i in range(4)])
    images = find_images(f"tfrecord:{tmp_path}/some", "train")
    with open(tmp_path / "some", "r+b") as file:
        file.truncate(images.spans[3, 0] + 100)
    with pytest.warns(UserWarning, match="the file ends .* bytes too early"):
        batch = next(host_views(images, RECIPE, tolerate=0.5)(batch_size=4, seed=0))
    assert sorted(batch["index"]) == [0, 0, 1, 2]


def damage(path, *, cut=None, at=None):
    content = bytearray(path.read_bytes())
    if at is not None:
        content[at] ^= 4
    path.write_bytes(content[:cut])


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"cut": -5}, "some is damaged: it ends, after .* bytes, within record 2"),
        ({"cut": 5}, "it ends, after 5 bytes, within record 0, which begins at byte 0"),
        ({"at": 3}, "the length of record 0, at byte 0, is damaged. Is it a TFRecord file at all"),
        ({"at": 10}, "the length of record 0"),
    ],
)
def test_files_that_break_off_are_refused_by_name(tmp_path, how, says):
    write(tmp_path / "some", [record(i) for i in range(3)])
    damage(tmp_path / "some", **how)
    with pytest.raises(ValueError, match=says):
        find_images(f"tfrecord:{tmp_path}/some", "train")


def test_a_shard_that_lost_whole_records_or_is_missing_is_refused(root, tmp_path):
    shutil.copytree(root / "tiny_photos", tmp_path / "tiny_photos")
    path = next((tmp_path / "tiny_photos").rglob("*train*record*"))
    with open(path, "rb") as file:
        *_, last = records.record_spans(file)
    damage(path, cut=last.start - 12)
    with pytest.raises(ValueError, match=f"has {COUNT - 1} of {COUNT} images. Prepare the data set again"):
        find_images("tfds:tiny_photos", "train", data_dir=tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="train"):
        find_images("tfds:tiny_photos", "train", data_dir=tmp_path)


def test_a_bit_that_fell_over_within_a_label_is_found_where_checksums_are_compared(tmp_path):
    write(tmp_path / "some", [example(image=encoded(i), label=i) for i in range(3)])
    content = (tmp_path / "some").read_bytes()
    at = content.index(b"label") + 11  # label, and the heads of three lists
    assert content[at] == 0
    damage(tmp_path / "some", at=at)
    assert find_images(f"tfrecord:{tmp_path}/some", "train").labels.tolist() == [4, 1, 2]
    with pytest.raises(ValueError, match="some is damaged: .*corrupted record at 12"):
        find_images(f"tfrecord:{tmp_path}/some", "train", check=True)


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ("tfrecord:", ValueError, "expected folder:PATH, tfds:NAME or tfrecord:PATTERN"),
        ("npz:some", ValueError, "expected folder:PATH, tfds:NAME or tfrecord:PATTERN"),
        ("tfrecord:{}/nowhere-*", FileNotFoundError, "there is no file .*nowhere"),
        (
            "tfrecord:{}/{{split}}-*",
            FileNotFoundError,
            "there is no file .*test-.* or .*val-.* or .*validation",
        ),
        ("tfrecord:{}/few", ValueError, "few has 3 records, of which every 10th.*{split}"),
        ("tfds:tiny_fotos", FileNotFoundError, "not prepared under"),
    ],
)
def test_what_cannot_be_found_is_said(tmp_path, spec, error, says):
    write(tmp_path / "few", [record(i) for i in range(3)])
    with pytest.raises(error, match=says):
        find_images(spec.format(tmp_path), "test", data_dir=tmp_path)


values = st.one_of(st.binary(max_size=300), st.integers(-(2**63), 2**63 - 1), st.none(), st.just([0.5, 2.0]))


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=5), values, max_size=4))
def test_an_example_is_what_tensorflow_takes_it_for(wanted):
    features = tf.train.Features(feature={name: feature(value) for name, value in wanted.items()})
    content = tf.train.Example(features=features).SerializeToString()
    file = io.BytesIO(b"before" + content + b"behind")
    found = records.example(file, records.Span(6, len(content)))
    assert {name for name, value in wanted.items() if value is not None} == set(found)
    for name, (kind, where) in found.items():
        if kind == records.BYTES:
            assert records.read(file, where) == wanted[name]
        elif kind == records.INTEGERS:
            assert records.integer(file, where) == wanted[name]
        else:
            assert isinstance(wanted[name], list)


@settings(max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 2**20),
)
def test_damage_of_any_kind_is_refused_or_left_out(tmp_path, changes, cut):
    path = tmp_path / "some"
    if not path.exists():
        write(tmp_path / "whole", [example(image=encoded(i), label=i) for i in range(3)])
        path.write_bytes((tmp_path / "whole").read_bytes())
    content = bytearray((tmp_path / "whole").read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    path.write_bytes(content[: cut if cut < len(content) and cut % 3 == 0 else None])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(ValueError):  # and nothing else
            images = find_images(f"tfrecord:{path}", "train", check=True)
            assert images.labels.tolist() == [0, 1, 2]
