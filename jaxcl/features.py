"""Features in a file, for other people's tools: what a run's encoder makes of any images, with their file names.

    jaxcl embed runs/quickstart --data folder:photos --out features.npz

file.npz      features float32 [n, d]; files, splits and classes [n], words; labels int32 [n], the number of the class
              among class_names, -1 where there is none. `np.load` opens it, without pickle.
file.csv      one line an image: file, split, class, f0, f1, ...
file.parquet  the same columns, for pandas, polars and duckdb; needs pyarrow
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcl.encoder import at_layer, encoder_of
from jaxcl.evaluate import embed
from jaxcl.runs import Run, fitting, open_run, range_for, side_of, told_of_range
from jaxcl.tables import describe

# The endings of the files that features are written to.
KINDS = (".npz", ".csv", ".parquet")


class Features(NamedTuple):
    """Features float32 [n, d] of n images. `files` are their paths below the folder that was named, "" where images are
    no files; `splits` and `classes` their words, "" where they have none."""

    features: np.ndarray
    files: tuple[str, ...]
    splits: tuple[str, ...]
    classes: tuple[str, ...]


def embed_run(
    run_dir: str | Path,
    *,
    data: str | None = None,
    data_dir: str | None = None,
    labels: str | None = None,
    layout: str = "auto",
    value_range: tuple[float, float] | None = None,
    layer: int | None = None,
    untrained: bool = False,
    trust: bool = False,
    progress: Callable[[str, float], None] | None = None,
    say: Callable[[str], None] = print,
) -> Features:
    """The features that a run's newest good checkpoint has of all images of a data set, in their order.

    data
        as for `data.load`, of any size; all splits of it. None: the training and test images of the run. The run's
        training data is needed for nothing else. Images are resized to those of the run; gray ones become RGB where
        the run's are, and the other way round where all channels are equal. Where the run's images stay encoded, of
        the centre square of files the 7/8 in the middle is seen, as of its own.
    labels, layout, value_range, data_dir
        how the data is read, as for `data.load`; but pixels of other than 8 bits are on the run's scale unless
        value_range says otherwise.
    layer
        of the head: 1 is the first, -1 the projection z. None: the representation h.
    untrained
        as the run began.
    trust
        execute the run's config whoever made it (`open_run`).
    progress
        is called now and then with (what is being embedded, the fraction of it that is done).

    Raises ValueError where the images do not fit the encoder, and as `load_encoder`. With several processes all of them
    must call it, and all get all features.
    """
    run = open_run(run_dir, trust=trust)
    apply = run.recipe.method.embed if layer is None else at_layer(run, layer)
    encoder = encoder_of(run, apply, untrained=untrained)
    say(f"The encoder of {run.dir} at step {encoder.step}.")
    found: list[np.ndarray] = []
    words: list[tuple[tuple[str, str], str]] = []
    how: dict[str, Any] = {"labels": labels, "layout": layout, "value_range": value_range}
    said: set[str] = set()
    for images, splits, classes in _parts(run, data, data_dir, how):
        named = tuple(sorted({name for name in classes if name}))
        for line in (describe(images._replace(classes=named)), *images.notes):
            if line not in said:  # a folder's is that of all its splits
                say(line)
            said.add(line)
        images = fitting(images, run.about.shape)
        tell = None if progress is None else partial(progress, images.name)
        found.append(embed(encoder.embed, images.images, progress=tell))
        files = images.files or ("",) * len(images.images)
        words += zip(zip(files, splits, strict=True), classes, strict=True)
    return Features(
        np.concatenate(found),
        tuple(file for (file, _), _ in words),
        tuple(split for (_, split), _ in words),
        tuple(name for _, name in words),
    )


def _parts(run: Run, data: str | None, data_dir: str | None, how: dict[str, Any]) -> Iterator[Any]:
    from jaxcl.data.everything import everything, with_words
    from jaxcl.data.lazy import EVALUATED_FRACTION

    if data is None:
        own = run.data(data_dir)
        yield with_words(own.train, "train")
        if own.test is not None:
            yield with_words(own.test, run.knobs.evaluate_on)
        return
    known = range_for(run, data) if how["value_range"] is None else None
    how["value_range"] = how["value_range"] or known
    how["fraction"] = EVALUATED_FRACTION if run.encoded else 1.0
    for some in everything(data, data_dir=data_dir or run.knobs.data_dir, size=side_of(run), **how):
        yield some if known is None else some._replace(images=told_of_range(some.images))


def check_file(path: str | Path) -> None:
    """Raises ValueError, before anything is computed, where features cannot be written to such a file; ImportError
    where its kind needs a package that is not there."""
    path = Path(path)
    if path.suffix.lower() not in KINDS:
        raise ValueError(f"Features are written as {', '.join(KINDS)}; got {path}.")
    if path.is_dir():
        raise ValueError(f"{path} is a directory; give the name of a file.")
    if path.suffix.lower() == ".parquet":
        _pyarrow()


def write(path: str | Path, found: Features) -> Path:
    """Writes features in the form that the file's ending names (`KINDS`), whole or not at all; folders are made."""
    check_file(path)
    path = Path(path)
    if jax.process_index():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.lower()
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        {".npz": _npz, ".csv": _csv, ".parquet": _parquet}[kind](part, found)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _npz(path: Path, found: Features) -> None:
    names = sorted({name for name in found.classes if name})
    numbers = {name: k for k, name in enumerate(names)}
    with path.open("wb") as file:  # to a name np.savez would add an ending
        np.savez(
            file,
            features=found.features,
            files=np.array(found.files, str),
            splits=np.array(found.splits, str),
            classes=np.array(found.classes, str),
            labels=np.array([numbers.get(name, -1) for name in found.classes], np.int32),
            class_names=np.array(names, str),
        )


def _csv(path: Path, found: Features) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "split", "class", *(f"f{k}" for k in range(found.features.shape[1]))])
        for *words, feature in zip(found.files, found.splits, found.classes, found.features, strict=True):
            rows.writerow([*words, *(f"{x:.9g}" for x in feature.tolist())])  # 9 digits are all of a float32


def _parquet(path: Path, found: Features) -> None:
    arrow, parquet = _pyarrow()
    columns = {"file": found.files, "split": found.splits, "class": found.classes}
    arrays = {name: arrow.array(words, arrow.string()) for name, words in columns.items()}
    arrays |= {
        f"f{k}": arrow.array(column) for k, column in enumerate(np.ascontiguousarray(found.features.T))
    }
    parquet.write_table(arrow.table(arrays), path)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "Parquet files are written by pyarrow, which is not installed: pip install pyarrow. Without it there are"
            " .npz and .csv."
        ) from error
    return pyarrow, pyarrow.parquet
