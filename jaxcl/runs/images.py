"""The images that a run is evaluated on: its own or others, as its encoder takes them, and none it was trained on."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxcl.config import resolved
from jaxcl.runs.directory import Run, trained_on
from jaxcl.typing import Images


def images_to_evaluate(
    run: Run,
    data: str | None,
    data_dir: str | None,
    *,
    evaluate_on: str | None = None,
    labels: str | None = None,
    layout: str | None = None,
    value_range: tuple[float, float] | None = None,
) -> dict[str, tuple[Images, Images]]:
    """A kind of label -> training and test images that carry it: the run's own, or other data."""
    changed: dict[str, Any] = {"labels": labels, "layout": layout, "value_range": value_range}
    if data is not None:
        how = {name: value for name, value in changed.items() if value is not None}
        return {"": other_images(run, data, data_dir, evaluate_on=evaluate_on or "test", **how)}
    changed["evaluate_on"] = evaluate_on
    knobs = dataclasses.replace(run.knobs, **{name: v for name, v in changed.items() if v is not None})
    run = run._replace(knobs=resolved(knobs))
    try:
        own = run.data()
        sets: dict[str, tuple[Images, Images | None]] = {"": (own.train, own.test)}
        if own.evaluated is not None:
            sets = {kind: (train, test) for kind, (train, test) in own.evaluated.items()}
    except FileNotFoundError as error:
        raise ValueError(
            f"The images of {run.dir} cannot be read, and an evaluation needs labelled images: bring them back, or"
            f" give others with --data. ({error})"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"The images of {run.dir} do not serve to evaluate; give others with --data. ({error})"
        ) from error
    found = {kind: (train, test) for kind, (train, test) in sets.items() if test is not None}
    if not found:
        raise ValueError(
            f"The data of {run.dir} has no test images, so nothing can be evaluated. Give others with --data."
        )
    return found


def other_images(
    run: Run,
    data: str,
    data_dir: str | None,
    *,
    evaluate_on: str = "test",
    **how: Any,
) -> tuple[Images, Images]:
    """Training and test images of another data set, in the size and with the channels of the run's; `how` it is read,
    as for `data.load`."""
    from jaxcl.data import load

    sets = [
        fitting(
            load(data, split, data_dir=data_dir or run.knobs.data_dir, size=side_of(run), **how),
            run.about.shape,
        )
        for split in ("train", evaluate_on)
    ]
    return sets[0], sets[1]


def side_of(run: Run) -> int:
    """To how many pixels a side other data is resized for a run."""
    h, w, _ = run.about.shape
    if h != w:
        raise ValueError(
            f"Other data is resized to squares, and the run's images are {h} x {w}: it can be evaluated on its own data"
            " alone, without --data."
        )
    return h


def fitting(images: Images, shape: Sequence[int]) -> Images:
    """Images of the right size with as many channels as `shape`, (height, width, channels), says."""
    pixels, c = images.images, shape[2]
    if pixels.shape[1:3] != tuple(shape[:2]):
        raise ValueError(
            f"The run's encoder takes images of {tuple(shape[:2])} pixels; those of {images.name} have"
            f" {pixels.shape[1:3]}. Resize them (size={shape[0]}), or give others."
        )
    found = pixels.shape[3]
    if found == 1 and c == 3:
        pixels = np.repeat(pixels, 3, axis=3)
    elif found == 3 and c == 1 and all((pixels[..., :1] == pixels[..., k : k + 1]).all() for k in (1, 2)):
        pixels = np.ascontiguousarray(pixels[..., :1])
    elif found != c:
        raise ValueError(
            f"The run's encoder takes images with {c} channels; those of {images.name} have {found}. Convert them, or"
            " give others."
        )
    return images._replace(images=pixels)


def without_trained_on(
    run: Run,
    sets: dict[str, tuple[Images, Images]],
    data: str | None,
    told: Callable[[str], None],
) -> dict[str, tuple[Images, Images]]:
    """The same without those test images that the run was trained on, and a line about them."""
    from jaxcl.data import take

    own, spec = trained_on(run.dir), run.knobs.data
    if own is None:
        if any(test.files for _, test in sets.values()) and data is None and spec.startswith("folder:"):
            told(
                f"{run.dir} does not record which files it was trained on, as an older jaxcl made it; where a folder"
                " has no splits, test images may be among them."
            )
        return sets
    root = os.path.realpath(spec.partition(":")[2])
    here = root if data is None else os.path.realpath(os.path.expanduser(data.partition(":")[2]))
    known = {os.path.join(root, file) for file in own}
    made = {}
    for kind, (train, test) in sets.items():
        rows = [i for i, file in enumerate(test.files) if os.path.join(here, file) not in known]
        seen = len(test.files) - len(rows)
        if seen and not rows:
            told(f"All {seen} test images were trained on: their accuracy is not that of new images.")
        elif seen:
            told(f"{seen} of {len(test.files)} test images were trained on, and are left out.")
            test = take(test, np.array(rows))
        made[kind] = train, test
    return made
