"""A run directory: making it, checking that it is the same run, opening it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxcl import neighbors
from jaxcl.config import (
    CommonKnobs,
    Recipe,
    changed_knobs,
    knobs_from_json,
    knobs_to_json,
    load_config,
    open_data,
    recipe_of,
)
from jaxcl.identity import version
from jaxcl.records import check_fits, knobs_file, read_json, read_text, write_whole
from jaxcl.trust import FILE as MARK
from jaxcl.trust import is_own, stranger, unmarked, vouch
from jaxcl.typing import About

if TYPE_CHECKING:
    from jaxcl.data import Data

FILES = "trained_on.txt"
# Of each run that a run was given (`Recipe.given`), what its recipe is made from.
GIVEN = "given"
KEPT = ("config.py", "knobs.json", "run.json", MARK, neighbors.FOLDER, GIVEN)
OLD_SPLIT = (
    " (An older jaxcl held out every tenth file of a folder without splits, by its position in the list; now a"
    " file's name decides.)"
)
PACKAGES = ("jaxcl", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class Run(NamedTuple):
    """An opened run directory. Its images are read when they are asked for: `run.data().train`."""

    dir: Path
    config: ModuleType
    knobs: Any
    about: About
    record: dict[str, Any]  # run.json
    recipe: Recipe

    @property
    def encoded(self) -> bool:
        """Whether its images stay encoded, so that 7/8 of their centre squares are evaluated."""
        return self.knobs.encoded or self.knobs.data.startswith("tfrecord:")

    @property
    def value_range(self) -> tuple[float, float] | None:
        """The values that became black and white in training, where pixels had other than 8 bits."""
        found = self.record.get("value_range")
        return self.knobs.value_range or (tuple(found) if found else None)

    @property
    def own_knobs(self) -> Any:
        """The knobs that its recipe is made of: where one names a run that it was given, the copy that it keeps."""
        return _own_knobs(self.dir, self.knobs, self.record)

    def data(self, data_dir: str | None = None) -> Data:
        """Training and test images, still unread; from `data_dir` where TFDS has them elsewhere now."""
        moved = {} if data_dir is None else {"data_dir": data_dir}
        return open_data(self.config, replace(self.knobs, **moved))


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def device() -> str:
    """The devices in words, as "8 x NVIDIA H100" or "1 x cpu (4 cores)"."""
    kind = jax.devices()[0].device_kind
    cores = f" ({os.cpu_count()} cores)" if jax.default_backend() == "cpu" else ""
    return f"{jax.device_count()} x {kind}{cores}"


def create_or_resume(
    run_dir: str | Path,
    config: str | Path,
    knobs: CommonKnobs,
    about: About,
    *,
    files: Sequence[str] = (),
    besides: Collection[str] = (),
    beside: Mapping[str, str] | None = None,
    value_range: tuple[float, float] | None = None,
    given: Mapping[str, str | Path] | None = None,
) -> Path:
    """Makes a run directory, or checks that the one there is the same run. One in which nothing was learnt yet, as it
    ended before its first line of the log, is made anew.

    files
        the training images' own, where they have any (`Images.files`).
    besides
        knobs that may differ from the run's.
    beside
        the files that the config imports from its folder (`neighbors.of`), to be kept with the run.
    value_range
        the training images' (`Images.value_range`), by which others are scaled later.
    given
        the runs that its method is given (`Recipe.given`): what their recipes are made from is kept, without their
        weights, so that the run is opened without them.

    Where TFDS has the same images elsewhere now, the run's data_dir becomes that.

    Raises ValueError where a knob, the config's program or the training images differ from the run's.
    """
    run_dir, text, beside = Path(run_dir), read_text(config), beside or {}
    if check_same_run(run_dir, config, knobs, about, files=files, besides=besides, beside=beside):
        had = read_json(run_dir / "knobs.json")
        now = json.loads(knobs_to_json(knobs))["data_dir"]
        if had.get("data_dir") != now and jax.process_index() == 0:
            write_whole(run_dir / "knobs.json", json.dumps({**had, "data_dir": now}, indent=2) + "\n")
        return run_dir
    run_dir.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:
        (run_dir / "config.py").write_text(text)
        neighbors.keep(run_dir, beside)
        if not vouch(run_dir, neighbors.program(text, beside)):
            warnings.warn(unmarked(run_dir), stacklevel=2)
        (run_dir / FILES).unlink(missing_ok=True)
        if files:
            lines = "".join(
                file.replace("\n", "\0") + "\n" for file in files
            )  # a name may hold all but the latter
            (run_dir / FILES).write_text(lines, encoding="utf-8")
        record: dict[str, Any] = {"config": str(config), "command": sys.argv, "about": about._asdict()}
        if value_range is not None:
            record["value_range"] = list(value_range)
        shutil.rmtree(run_dir / GIVEN, ignore_errors=True)
        if given:
            record["given"] = {name: str(other) for name, other in given.items()}
            for name, other in given.items():
                _keep_recipe(Path(other), run_dir / GIVEN / name)
        record |= {"versions": versions(), "device": device()}
        record["started"] = time.strftime("%Y-%m-%d %H:%M:%S")
        (run_dir / "run.json").write_text(json.dumps(record, indent=2) + "\n")
        # Last, and whole at once: its presence makes this a run, which another process may be looking for.
        write_whole(run_dir / "knobs.json", knobs_to_json(knobs))
    return run_dir


def _keep_recipe(run_dir: Path, copy: Path) -> None:
    copy.mkdir(parents=True)
    for name in KEPT:
        if (run_dir / name).is_dir():
            shutil.copytree(run_dir / name, copy / name)
        elif (run_dir / name).exists():
            shutil.copyfile(run_dir / name, copy / name)


def check_same_run(
    run_dir: Path,
    config: str | Path,
    knobs: CommonKnobs,
    about: About,
    *,
    files: Sequence[str] = (),
    besides: Collection[str] = (),
    beside: Mapping[str, str] | None = None,
) -> bool:
    """Whether there is a run that can be gone on with; an error, as of `create_or_resume`, where it is another one."""
    if not (run_dir / "knobs.json").exists() or nothing_learnt(run_dir):
        return False
    changes = changed_knobs(read_json(run_dir / "knobs.json"), knobs, besides=besides)
    if changes:
        raise ValueError(
            f"{run_dir} holds a run with other knobs, so it cannot be resumed with these:\n  "
            + "\n  ".join(changes)
            + "\nGive the knobs of that run. Or start a new run in another --run-dir;"
            + f" --init {run_dir} starts from this one's encoder."
        )
    mine = neighbors.program(read_text(config), beside or {})
    if not neighbors.same_program(program_of(run_dir), mine):
        of = f"{config} or of what it imports" if beside else config
        if not neighbors.same_program(program_of(run_dir), program_of(run_dir) + "\n"):
            raise ValueError(
                f"{run_dir / 'config.py'}, or what is beside it, is damaged: it is no longer a program. Put {config} in"
                " its place if the run was made by that, or choose another --run-dir."
            )
        raise ValueError(
            f"{run_dir} holds a run of another version of {of}. Go on with `jaxcl train {run_dir}/config.py"
            f" --run-dir {run_dir}`, or choose another --run-dir."
        )
    recorded = _about(run_dir, read_json(run_dir / "run.json"))
    if recorded != about:
        raise ValueError(
            f"The training images of {run_dir} have changed: the run began with {_in_words(recorded)}; now there are"
            f" {_in_words(about)}. Give it the images of before, or choose another --run-dir."
            + ("" if (run_dir / FILES).exists() or not files else OLD_SPLIT)
        )
    before = trained_on(run_dir)
    if before is not None and tuple(files) != before:
        gone, new = sorted(set(before) - set(files)), sorted(set(files) - set(before))
        changes = [
            f"{len(some)} {what}, as {some[0]}" for some, what in ((gone, "gone"), (new, "new")) if some
        ]
        raise ValueError(
            f"The files that {run_dir} is trained on have changed: {'; '.join(changes) or 'their order'}. Give it those"
            f" of before ({run_dir / FILES}), or choose another --run-dir."
        )
    return True


def nothing_learnt(run_dir: Path) -> bool:
    """Whether a run has neither a checkpoint nor a line in its log."""
    log = run_dir / "metrics.jsonl"
    saved = [one for one in (run_dir / "checkpoints").glob("*") if one.name.isdecimal()]
    return not saved and (not log.exists() or log.stat().st_size == 0)


def trained_on(run_dir: Path) -> tuple[str, ...] | None:
    """The files that a run was trained on; None where it does not say: its images are no files, or it is an old one."""
    record = run_dir / FILES
    lines = read_text(record).split("\n")[:-1] if record.exists() else None
    return None if lines is None else tuple(line.replace("\0", "\n") for line in lines)


def open_run(run_dir: str | Path, *, trust: bool = False) -> Run:
    """The run in a directory, by its own copy of the config; its images are not touched.

    trust
        execute the config whoever made it; otherwise only one's own, or one that is shipped (`jaxcl.trust`).

    Raises ValueError where the config is a stranger's, and where something in the directory is damaged.
    """
    run_dir = Path(run_dir)
    saved = knobs_file(run_dir)
    record = read_json(run_dir / "run.json")
    about = _about(run_dir, record)
    hints = {"config": str, "device": str, "value_range": tuple[float, float], "given": dict[str, str]}
    check_fits(run_dir / "run.json", record, hints)
    text, beside = trusted(run_dir, trust=trust)
    config = load_config(run_dir / "config.py", text=text, beside=beside)
    try:
        knobs = knobs_from_json(config, read_text(saved))
    except ValueError as error:
        raise ValueError(f"{saved} does not fit {run_dir / 'config.py'}: {error}") from error
    for copy in sorted((run_dir / GIVEN).rglob("knobs.json")):
        trusted(copy.parent, trust=trust, within=run_dir)
    try:
        recipe = recipe_of(config, _own_knobs(run_dir, knobs, record), about)
    except Exception as error:  # whatever a program may raise
        raise ValueError(
            f"{run_dir / 'config.py'} makes no recipe with the run's knobs: {type(error).__name__}: {error}"
        ) from error
    # Their weights are where they were.
    return Run(
        run_dir, config, knobs, about, record, recipe._replace(given=record.get("given", recipe.given))
    )


def _own_knobs(run_dir: Path, knobs: Any, record: Mapping[str, Any]) -> Any:
    copies = {path: str(run_dir / GIVEN / name) for name, path in record.get("given", {}).items()}
    values = {field.name: getattr(knobs, field.name) for field in fields(knobs)}
    return replace(
        knobs, **{name: copies[x] for name, x in values.items() if isinstance(x, str) and x in copies}
    )


def trusted(run_dir: Path, *, trust: bool, within: Path | None = None) -> tuple[str, dict[str, str]]:
    """The text of a run's config, and those of the files that it imports. Raises ValueError where they are a
    stranger's; `trust` makes them one's own. Process 0 decides for all."""
    config, beside, refused = read_text(run_dir / "config.py"), neighbors.kept(run_dir), False
    text = neighbors.program(config, beside)
    if jax.process_index() == 0:
        refused = not trust and not is_own(run_dir, text)
        if trust:
            vouch(run_dir, text)
    if jax.process_count() > 1:
        refused = bool(multihost_utils.broadcast_one_to_all(np.int32(refused)))
    if refused:
        raise ValueError(stranger(run_dir, within=within))
    return config, beside


def program_of(run_dir: Path) -> str:
    """All that is executed where a run is opened: its config, and what that imports."""
    return neighbors.program(read_text(run_dir / "config.py"), neighbors.kept(run_dir))


def recorded_about(run_dir: Path) -> About:
    """What a run's recipe knows of its images, from run.json. Raises ValueError where that is damaged, or too old."""
    return _about(run_dir, read_json(run_dir / "run.json"))


def _about(run_dir: Path, record: Mapping[str, Any]) -> About:
    if "about" not in record:
        raise ValueError(
            f'{run_dir}/run.json has no "about" the images: an older jaxcl made this run. Open it with that'
            " version, or train again."
        )
    about, file = record["about"], run_dir / "run.json"
    if not isinstance(about, dict) or {"count", "shape", "classes"} - about.keys():
        raise ValueError(
            f'{file} is damaged: "about" should say count, shape and classes of the images; it is {about!r}.'
        )
    check_fits(file, about, {"count": int, "shape": tuple[int, int, int], "classes": tuple[str, ...]})
    return About(about["count"], tuple(about["shape"]), tuple(about["classes"]))


def _in_words(about: About) -> str:
    return f"{about.count} images of {' x '.join(map(str, about.shape))}, {len(about.classes)} classes"


def evaluations(run_dir: str | Path) -> list[dict[str, Any]]:
    """The results that `evaluate_run` left."""
    return [
        row
        for file in sorted(Path(run_dir, "evaluations").glob("*.json"))
        if not file.name.startswith(".")  # half written, by one that was stopped
        for row in read_json(file, kind=list)
    ]


def silent(line: str) -> None:
    """Prints nothing: in place of print."""
