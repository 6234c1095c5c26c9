"""Prepared TensorFlow data sets, found by the file system alone.

`tfds.load` without a network hangs for minutes, and importing TensorFlow takes seconds: so look first, without it.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxcl.data.arrays import HELD_OUT, allocate, from_arrays
from jaxcl.typing import About, Images

# Data sets of images that are asked for most, to tell a misspelt name from one that is not prepared.
KNOWN_TFDS = tuple(
    "beans caltech101 caltech_birds2011 cars196 cifar10 cifar100 cifar10_corrupted cmaterdb colorectal_histology"
    " deep_weeds dtd emnist eurosat fashion_mnist food101 horses_or_humans imagenet2012 imagenet2012_subset imagenet_a"
    " imagenet_r imagenet_resized imagenet_v2 imagenette imagewang kmnist malaria mnist mnist_corrupted omniglot"
    " oxford_flowers102 oxford_iiit_pet patch_camelyon places365_small resisc45 rock_paper_scissors stanford_dogs stl10"
    " sun397 svhn_cropped tf_flowers uc_merced".split()
)


def load_tfds(
    where: str, split: str, data_dir, size: int | None, download: bool = False, *, exact: bool = False
) -> Images:
    """`exact`: this split and no other in its place, with labels or without."""
    if "+" in split:
        parts = [load_tfds(where, part, data_dir, size, download) for part in split.split("+")]
        return joined(parts, f"tfds:{where}/{split}")
    folder, candidates, others = tfds_splits(where, split, data_dir, download=download)
    from jaxcl.data import tf_read

    for name in candidates:
        # Secret labels of a test split are a reason to look at the next; a split that has none was asked for by name.
        secret = split in HELD_OUT and not exact
        got = tf_read.read(folder, name, size=size, allocate=allocate, unlabelled=not secret)
        if got is not None:
            images, labels, classes = got
            return from_arrays(images, labels, classes=classes, name=f"tfds:{where}/{name}")
    raise ValueError(
        f"the labels of tfds:{where}, split {split}, are not public (they are -1). Load another split:"
        f" {', '.join(others) or 'there is none'}."
    )


def joined(parts: list[Images], name: str) -> Images:
    """Several splits as one, in their order; labels where all have them."""
    shapes = {part.images.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise ValueError(f"{name}: the images of the splits differ in size, {shapes}. Pass size=N.")
    images, at = allocate((sum(len(part.images) for part in parts), *shapes.pop())), 0
    for part in parts:
        images[at : at + len(part.images)] = part.images
        at += len(part.images)
    every = [part.labels for part in parts]
    labels = None if any(some is None for some in every) else np.concatenate(every)
    return from_arrays(images, labels, classes=parts[0].classes if labels is not None else (), name=name)


def about_tfds(where: str, data_dir: Any, size: int | None) -> About | None:
    """What `load_tfds` of the training images would find, by what TFDS wrote beside them; TensorFlow is not loaded.

    None where that does not tell: features of another kind, or images of many sizes and no `size`.
    """
    folder, (split, *_), _ = tfds_splits(where, "train", data_dir)
    try:
        splits = json.loads((folder / "dataset_info.json").read_text())["splits"]
        features = json.loads((folder / "features.json").read_text())["featuresDict"]["features"]
        count = sum(int(n) for one in splits if one["name"] == split for n in one["shardLengths"])
        shape = features[the_feature(features, "Image", "image")]["image"]["shape"]["dimensions"]
        height, width, channels = (int(n or 0) for n in shape)
        label = the_feature(features, "ClassLabel", "label")
        number = int(features[label]["classLabel"]["numClasses"]) if label else 0
    except (KeyError, TypeError, ValueError, OSError):
        return None
    height, width = (size, size) if size else (height, width)
    if count < 1 or height < 1 or width < 1 or channels not in (1, 3):
        return None
    names = folder / f"{label}.labels.txt"
    classes = names.read_text().split("\n")[:number] if names.is_file() else map(str, range(number))
    return About(count, (height, width, channels), tuple(classes))


def the_feature(features: dict[str, Any], kind: str, name: str) -> str | None:
    """The feature of this kind that has this name, or is the only one of its kind."""
    keys = [key for key, one in features.items() if one["pythonClassName"].rpartition(".")[2] == kind]
    return name if name in keys else keys[0] if len(keys) == 1 else None


def tfds_folder(where: str, data_dir: Any, *, download: bool = False) -> tuple[Path, list[str]]:
    """The folder of a prepared data set, and its splits."""
    for module in ("tensorflow_datasets", "tensorflow"):
        if importlib.util.find_spec(module) is None:
            raise ImportError(
                f"tfds:{where} is read by TensorFlow Datasets, and {module} is not installed."
                " Install it: pip install 'jaxcl[tfds]'. Without it there are digits, folder:PATH and npz:PATH."
            )
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    try:
        folder = prepared(where, root)
    except FileNotFoundError:
        if not download:
            raise
        from jaxcl.data import tf_read

        folder = tf_read.prepare(where, root)
    return folder, [
        s["name"] for s in json.loads((folder / "dataset_info.json").read_text()).get("splits", ())
    ]


def tfds_splits(
    where: str, split: str, data_dir: Any, *, download: bool = False
) -> tuple[Path, list[str], list[str]]:
    """The folder of a prepared data set; the names under which it may have the split, the first choice first; and its
    other splits."""
    folder, splits = tfds_folder(where, data_dir, download=download)
    candidates = [split] if split in splits else []
    if split == "test":
        candidates += [name for name in HELD_OUT if name in splits and name != "test"]
    if not candidates:
        near = difflib.get_close_matches(split, splits, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"tfds:{where} has the splits {', '.join(splits) or '(none)'}; got {split!r}.{hint}")
    return folder, candidates, [name for name in splits if name not in candidates]


def prepared(where: str, root: Path) -> Path:
    """The folder NAME[/CONFIG]/VERSION of a prepared data set."""
    matched = re.fullmatch(r"(?P<name>\w+)(/(?P<config>[^:]+))?(:(?P<version>\d+\.\d+\.\d+))?", where)
    if matched is None or ".." in where:
        raise ValueError(f"expected tfds:NAME, tfds:NAME/CONFIG or tfds:NAME:1.2.3; got tfds:{where}.")
    name, config, version = matched["name"], matched["config"], matched["version"]
    base = root / name / config if config else root / name
    folder = version_below(base, version)
    if folder is not None:
        return folder
    configs = (
        sorted(p.name for p in base.iterdir() if version_below(p, version))
        if base.is_dir() and not config
        else []
    )
    if len(configs) == 1:
        return version_below(base / configs[0], version)  # type: ignore[return-value]
    if configs:
        raise ValueError(
            f"tfds:{name} is prepared as {', '.join(configs)}; say which: tfds:{name}/{configs[0]}."
        )
    there = sorted(p.name for p in root.iterdir() if any_version(p)) if root.is_dir() else []
    near = (
        difflib.get_close_matches(name, {*there, *KNOWN_TFDS}, 1) if name not in {*there, *KNOWN_TFDS} else []
    )
    broken_off = base.is_dir() and any(p.name.startswith("incomplete.") for p in base.iterdir())
    found = f"prepared there: {', '.join(there)}" if there else "nothing is prepared there"
    raise FileNotFoundError(
        f"tfds:{where} is not prepared under {root} ({found})."
        + (f" Did you mean tfds:{near[0]}?" if near else "")
        + (" A preparation was begun and not finished." if broken_off else "")
        + " To download and prepare it:"
        f" python -c \"import tensorflow_datasets as tfds; tfds.load('{where}', data_dir='{root}')\""
        " (or load(..., download=True)). If it lies elsewhere: --data-dir DIR (data_dir), or set TFDS_DATA_DIR."
    )


def version_below(base: Path, version: str | None) -> Path | None:
    """The given version below `base`, or the highest."""
    if not base.is_dir():
        return None
    ready = [
        p
        for p in base.iterdir()
        if re.fullmatch(r"\d+\.\d+\.\d+", p.name)
        and (p / "dataset_info.json").is_file()
        and version in (None, p.name)
    ]
    return max(ready, key=lambda p: tuple(map(int, p.name.split("."))), default=None)


def any_version(base: Path) -> bool:
    """Is anything prepared under this name, in whatever config?"""
    return base.is_dir() and (
        version_below(base, None) is not None or any(version_below(p, None) for p in base.iterdir())
    )
