"""Whatever happens to a folder of images, reading it ends in a sentence or in the right images, and writes nothing."""

import io
import os
import shutil
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxcl.data import load

CLASSES = ("cat", "dog")
JUNK = [
    b"",
    b"\n",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"\x00" * 64,
    b"file,label\n\x00",
    b'"' + b"x" * 200_000,
]
NAMES = [
    "a b.png",
    "ä.PNG",
    "a\nb.png",
    ".hidden.png",
    "no_ending",
    "x.txt",
    "train",
    "cat",
    "-.png",
    "a" * 200 + ".jpg",
]
MODES = ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F"]


def picture(number):
    return np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two folders of the same images: by split and class, and all in one with a table of labels; and which is which."""
    folder = tmp_path_factory.mktemp("world")
    known, number = {}, 0
    for split in ("train", "test"):
        for name in CLASSES:
            for _ in range(3):
                for file in (f"splits/{split}/{name}/{number}.png", f"flat/{number}.png"):
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(picture(number)).save(folder / file)
                    known[file] = (number, name)
                number += 1
    rows = [f"{number}.png,{name}" for file, (number, name) in known.items() if file.startswith("flat")]
    (folder / "flat/labels.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    return folder, known


def encoded(mode):
    """An image of another kind than the others, as a file."""
    buffer, image = io.BytesIO(), Image.fromarray(picture(99))
    if mode == "I;16":
        image = Image.fromarray(picture(99)[..., 0].astype(np.uint16) * 200)
    elif mode == "LAB":
        image = Image.merge("LAB", image.split())
    elif mode != "HSV":  # which no format holds
        image = image.convert(mode)
    image.save(buffer, "TIFF")
    return buffer.getvalue()


def harm(root, kind, where, how):
    """Does something to a folder; which files it has touched."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    folders = sorted(path for path in (root, *root.rglob("*")) if path.is_dir() and not path.is_symlink())
    if not files:
        return
    file, folder = files[where % len(files)], folders[where % len(folders)]
    if (
        where % 2 and (root / "labels.csv").is_file()
    ):  # one file of many, and the one that everything hangs on
        file = root / "labels.csv"
    data = file.read_bytes()
    place = int(how * max(0, len(data) - 1))
    new = folder / NAMES[int(how * (len(NAMES) - 1))]
    if kind == "junk":
        file.write_bytes(JUNK[int(how * (len(JUNK) - 1))])
    elif kind == "cut":
        file.write_bytes(data[:place])
    elif kind == "flip" and data:
        file.write_bytes(data[:place] + bytes([data[place] ^ 0x15]) + data[place + 1 :])
    elif kind == "append":
        file.write_bytes(data + b"\x00\n,,1\n")
    elif kind == "delete":
        file.unlink()
    elif kind == "mode":
        file.write_bytes(encoded(MODES[int(how * (len(MODES) - 1))]))
    elif kind == "empty folder":
        shutil.rmtree(folder)
        folder.mkdir()
    elif kind == "folder for file":
        file.unlink()
        file.mkdir()
    elif not os.path.lexists(new):
        if kind == "move":
            file.rename(new)
        elif kind == "copy":
            new.write_bytes(data)
        elif kind == "new folder":
            new.mkdir()
        elif kind == "link":
            new.symlink_to([file, folder, "/nowhere/at/all", new][int(how * 3.99)])
        elif kind == "pipe":
            os.mkfifo(new)
        elif kind == "bytes":
            os.makedirs(os.fsencode(folder) + b"/\xff\xfe", exist_ok=True)
            (folder / os.fsdecode(b"\xff.png")).write_bytes(data)


KINDS = [
    "junk", "cut", "flip", "append", "delete", "mode", "empty folder", "folder for file",
    "move", "copy", "new folder", "link", "pipe", "bytes",
]  # fmt: skip
DAMAGES = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 1000), st.floats(0, 1)), min_size=1, max_size=3
)


def contents(root):
    """Every file by its bytes, every link by where it points, every folder."""
    found = {}
    for parent, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = os.path.join(parent, name)
            if os.path.islink(path):
                found[path] = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    found[path] = file.read()
            else:
                found[path] = None
    return found


def fuzz(world, folder, damages, split):
    whole, known = world
    root = whole / "harmed" / folder
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(whole / folder, root)
    for damage in damages:
        harm(root, *damage)
    before = contents(root)
    got, said = None, []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            got = load(f"folder:{root}", split, size=4)
        except (ValueError, OSError) as error:
            said.append(str(error))
    said += [str(warning.message) for warning in warned]
    assert contents(root) == before, "reading wrote something"
    assert all(len(sentence) > 10 for sentence in said)
    if got is None:
        return
    assert len(got.files) == len(got.images) > 0
    at = {}
    for row, file in enumerate(got.files):
        path = str(root / file)
        number, name = known.get(f"{folder}/{file}", (None, None))
        with open(whole / folder / file, "rb") if number is not None else io.BytesIO() as original:
            if number is None or before[path] != original.read():
                continue  # was touched
        at[file] = row
        assert np.array_equal(got.images[row], picture(number)), f"{file}: other pixels without a word"
        if got.labels is not None and not any(
            "labels.csv" in os.path.basename(p) for p in changed(world, folder, before)
        ):
            assert got.classes[got.labels[row]] == name, f"{file}: another class without a word"
    # What is whole and lies where it lay is there, or a word says why not: other notes than those of the whole folder.
    if folder == "splits":
        usual = [
            note.replace(str(whole / folder), str(root))
            for note in load(f"folder:{whole / folder}", split).notes
        ]
        for file in known:
            inside = file.removeprefix("splits/")
            path = str(root / inside)
            if not file.startswith(f"splits/{split}") or path not in before:
                continue
            if before[path] == (whole / file).read_bytes() and inside not in at:
                word = said or got.skipped or list(got.notes) != usual
                assert word, f"{file} is left out without a word"


def changed(world, folder, before):
    whole, _ = world
    root = whole / "harmed" / folder
    for path in sorted((whole / folder).rglob("*")):
        if path.is_file() and before.get(str(root / path.relative_to(whole / folder))) != path.read_bytes():
            yield str(path)


quick = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
CASES = {
    "folder": st.sampled_from(["splits", "flat"]),
    "damages": DAMAGES,
    "split": st.sampled_from(["train", "test"]),
}


@quick
@given(**CASES)
def test_a_damaged_folder_of_images_is_answered_by_a_sentence(world, folder, damages, split):
    fuzz(world, folder, damages, split)


def test_a_name_that_is_no_text_is_left_out_with_a_word(world, tmp_path):
    whole, _ = world
    root = shutil.copytree(whole / "splits", tmp_path / "splits")
    (root / "train/cat/0.png").rename(root / "train/cat" / os.fsdecode(b"\xff.png"))
    with pytest.warns(UserWarning, match="1 of 6 files .*its name is not UTF-8; rename it"):
        got = load(f"folder:{root}", "train", size=4)
    assert got.files[0] == "train/cat/1.png"
    "".join([*got.files, *got.skipped]).encode()


@pytest.mark.slow
@settings(quick, max_examples=500)
@given(**CASES)
def test_a_folder_damaged_in_five_hundred_ways_is_answered_by_a_sentence(world, folder, damages, split):
    fuzz(world, folder, damages, split)
