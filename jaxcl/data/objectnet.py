"""ObjectNet-13: photographs of ObjectNet whose classes ImageNet-100 has too, as LooC is tested on them (table 3)."""

from __future__ import annotations

import os
from pathlib import Path

from jaxcl.data.classes import IMAGENET100
from jaxcl.data.decode import first
from jaxcl.data.folders import missing, read_folder
from jaxcl.data.layout import Layout, Part
from jaxcl.typing import Images

# ObjectNet's folder -> WordNet's number of the class of ImageNet that ObjectNet's authors say it is
# (mappings/objectnet_to_imagenet_1k.json of their archive): of their 113 folders that are any class of ImageNet,
# the 13 with one of ImageNet-100, which are as many as LooC tells of. (Three of them are a part of several classes of
# ImageNet, of which ImageNet-100 has one: a chair is a rocking chair.)
OBJECTNET13 = {
    "bench": "n03891251",
    "bottle_cap": "n02877765",
    "chair": "n04099969",
    "helmet": "n03379051",
    "iron_for_clothes": "n03584829",
    "jeans": "n03594734",
    "keyboard": "n03085013",
    "lampshade": "n03637318",
    "laptop_open": "n03642806",
    "mixing_salad_bowl": "n03775546",
    "safety_pin": "n04127249",
    "vacuum_cleaner": "n04517823",
    "wheel": "n02974003",
}
# Pixels at every edge that are not the photograph's: ObjectNet draws a red line around each, so that nobody trains on
# it unawares.
BORDER = 2


def objectnet13(path: str | os.PathLike, *, size: int, fraction: float = 1.0) -> Images:
    """Barbu et al. (2019), "ObjectNet": the images of the 13 classes, labelled with their places in ImageNet-100.

    path
        the folder of ObjectNet's folders: objectnet-1.0/images. Others than the 13 may be there, and are not read.
    size, fraction
        the shorter side is resized to `size` (bicubic, antialiased), and the centre square kept; of the centre square
        only the `fraction` in its middle, as 7/8 where photographs are evaluated so. First the border of 2 pixels is
        cut off.

    They are for testing: a classifier of all of ImageNet-100 is asked. Which 13 classes LooC has is not written down in
    it; these follow from both lists.

    Raises FileNotFoundError where a folder is not there, ValueError where a folder holds no image. Files that are no
    images are left out and named in `Images.skipped`.
    """
    root = Path(path).expanduser()
    folders = [root / name for name in OBJECTNET13]
    for folder in folders if root.is_dir() else [root]:
        if not folder.is_dir():
            raise missing(folder, "folder")
    files: list[tuple[str | None, Path]] = [
        (OBJECTNET13[folder.name], file)
        for folder in folders
        for file in sorted(folder.iterdir())
        if not file.name.startswith(".")
    ]
    check_complete(root, {file.parent.name for _, file in files}, [])
    classes = tuple(sorted(IMAGENET100))
    there = Layout(root, {"test": Part(root, files, [])}, classes, own_splits=True, says="")
    images = read_folder(there, "test", size, fraction=fraction, border=BORDER)
    check_complete(root, {name.split("/")[0] for name in images.files}, list(images.skipped))
    return images._replace(name=f"objectnet13:{root}", notes=())


def check_complete(root: Path, folders: set[str], skipped: list[str]) -> None:
    if empty := sorted({*OBJECTNET13} - folders):
        raise ValueError(
            f"{root} holds no image of {', '.join(empty)}. {first(skipped) if skipped else ''}".rstrip()
        )
