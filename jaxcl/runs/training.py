"""A config trained in a run directory; or several that differ in numbers alone, together."""

from __future__ import annotations

import dataclasses
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import jax

from jaxcl import longer, neighbors
from jaxcl.config import (
    CommonKnobs,
    Recipe,
    check_knobs,
    load_config,
    open_data,
    preset,
    recipe_of,
    resolved,
)
from jaxcl.data.batches import check_steps
from jaxcl.identity import check_processes, check_same, fingerprint, identity
from jaxcl.owner import owned
from jaxcl.records import read_text
from jaxcl.runs.directory import check_same_run, create_or_resume, device, open_run, silent
from jaxcl.tables import describe

if TYPE_CHECKING:
    from jaxcl.data import Data
    from jaxcl.train import Callback, Trained, TrainState
    from jaxcl.typing import Images


def train_run(
    config: str | Path, knobs: CommonKnobs, run_dir: str | Path, *, anyway: bool = False
) -> TrainState:
    """Trains the recipe of a config in `run_dir`, or goes on with the run that is there; returns the final state.

    A finished run is made longer by more epochs (`jaxcl.longer`). Knobs that leave its steps the same may change
    (`config.SAME_STEPS`), which is said; everything else must be as it was.

    Before the first step it prints what a step needs of this machine. Raises ValueError where that does not fit, unless
    it is to be trained `anyway`.
    """
    from jaxcl.train import train

    check_knobs(knobs)
    module, knobs = load_config(config), resolved(knobs)
    data = open_data(module, knobs)
    recipe = recipe_of(module, knobs, data.about)
    check_steps(recipe.steps, knobs.epochs, data.about.count, recipe.batch_size)
    init, begun = None, has_begun(run_dir)
    if not begun:  # a run that goes on needs nothing of what it began with
        init = starting_point(knobs, recipe)
        check_seen_alike(knobs, recipe)
    # All that the data can be wrong in is found before there is a directory.
    described, images = data.about, opened(data)
    if data.about != described:
        recipe = recipe_of(module, knobs, data.about)
    first = jax.process_index() == 0
    say = partial(print, flush=True) if first else silent
    for line in (describe(images), *images.notes):
        say(line)
    callbacks = online_knn(knobs, recipe, data, say=say)
    if images.images.shape[3] not in (1, 3):
        say(
            f"Of images with {images.images.shape[3]} channels grayscale, saturation and hue are left as they are;"
            " brightness and contrast of each channel are changed."
        )
    beside = neighbors.of(module)
    run_dir, text = Path(run_dir), neighbors.program(read_text(config), beside)
    with owned(run_dir) if first else nullcontext():
        mine = identity(text, knobs, fingerprint(images))
        check_processes(run_dir, mine)
        same_run = partial(
            check_same_run, run_dir, config, knobs, data.about, files=images.files, beside=beside
        )
        # Images that came or went are told as such, and not as another number of steps.
        same_run(besides={"epochs"})
        more = longer.longer(run_dir, module, knobs, data.about)
        besides = {"epochs"} if more else set()
        if not more:
            same_run()
        if otherwise := check_same(run_dir, mine, knobs, besides=besides):
            say(goes_on_with(otherwise))
        if more:
            say(longer.said(more))

        def begin() -> None:
            kept: dict[str, Any] = {"beside": beside, "value_range": images.value_range}
            kept["given"] = recipe.given
            create_or_resume(run_dir, config, knobs, data.about, files=images.files, besides=besides, **kept)
            if more and first:
                longer.record(run_dir, knobs, more)

        say(f"{recipe.steps} steps of {recipe.batch_size} images on {device()}: {run_dir}")
        return train(
            recipe,
            images,
            seed=knobs.seed,
            input=knobs.input,
            placement=knobs.placement,
            shard_state=knobs.shard_state,
            nonfinite=knobs.nonfinite,
            log_every=knobs.log_every,
            save_every=knobs.save_every,
            keep_every=knobs.keep_every,
            callbacks=callbacks,
            loggers=knobs.logger,
            init=init,
            run_dir=run_dir,
            identity=mine,
            begin=begin,
            ahead=planned_ahead(
                in_words(config, module, knobs),
                recipe,
                lighter=lighter(knobs) if begun else None,
                chunks=knobs.chunks,
                anyway=anyway,
            ),
        )


def opened(data: Data) -> Images:
    """The training images. If some files cannot be read, `data.about` then counts only the others. The warning about
    this is silenced, as the recipe is made again from the new count."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* was described as ")
        return data.train


def starting_point(
    knobs: CommonKnobs, recipe: Recipe, *, say: Callable[[str], None] | None = None
) -> Callable[[Any], Any] | None:
    """What --init names, a run or a file of weights, as a function of the state to start with. `say`, print unless
    given, gets a line about it."""
    from jaxcl import weights
    from jaxcl.train import checkpoint
    from jaxcl.train.state import start_from

    if knobs.init is None:
        return None
    say = say or (print if jax.process_index() == 0 else silent)
    if weights.is_file(knobs.init):
        return weights.starting_from(knobs.init, recipe.method, carries=recipe.carries, say=say)
    init = Path(knobs.init) / "checkpoints"
    if checkpoint.latest(init) is None:
        if said := weights.of_tensorflow(knobs.init):
            raise ValueError(said)
        raise FileNotFoundError(
            f"--init: there is no checkpoint in {init}; expected a run directory, or a file of weights"
            " (.safetensors, .pth)."
        )

    def begin(state: Any) -> Any:
        begun = start_from(state, init, parts=recipe.carries)
        say(f"Starts from {' and '.join(recipe.carries or ['the encoder'])} of {knobs.init}.")
        return begun

    return begin


def has_begun(run_dir: str | Path) -> bool:
    """Whether a run directory holds a checkpoint to go on from."""
    from jaxcl.train import checkpoint

    return checkpoint.latest(Path(run_dir) / "checkpoints") is not None


def check_seen_alike(knobs: CommonKnobs, recipe: Recipe) -> None:
    """Raises ValueError where the encoder of the run that --init names sees its images otherwise than this one."""
    from jaxcl import weights

    if knobs.init is None or weights.is_file(knobs.init):
        return
    try:
        theirs = open_run(knobs.init)
    except (
        ValueError,
        FileNotFoundError,
    ):  # a stranger's config is not executed; checkpoints alone have none
        if jax.process_index() == 0:
            print(
                f"How {knobs.init} standardizes images is not known here, as its config is not opened. See that this"
                " config does so too."
            )
    else:
        weights.check_seen_alike(knobs.init, theirs.recipe.method, recipe.method)


def train_runs(
    config: str | Path,
    members: Sequence[CommonKnobs],
    run_dirs: Sequence[str | Path],
    *,
    numbers: Sequence[str],
    anyway: bool = False,
) -> list[Trained]:
    """Trains runs that differ in the seed and in these numeric knobs alone, all in one program (`train_together`).

    Each is afterwards a run as `train_run` leaves it. Raises `plan.DoesNotFit` where one program of so many is too
    large for this machine, unless it is to be trained `anyway`.
    """
    from jaxcl.train import train_together

    for knobs in members:
        check_knobs(knobs)
    module, members = load_config(config), [resolved(knobs) for knobs in members]
    data = open_data(module, members[0])

    def recipe_with(values: Mapping[str, Any]) -> Recipe:
        return recipe_of(module, dataclasses.replace(members[0], **values), data.about)

    images = opened(data)
    recipes = [recipe_of(module, knobs, data.about) for knobs in members]
    beside = neighbors.of(module)
    text = neighbors.program(read_text(config), beside)
    folders = [Path(folder) for folder in run_dirs]
    for line in (describe(images), *images.notes):
        print(line, flush=True)
    callbacks = [online_knn(knobs, recipe, data) for knobs, recipe in zip(members, recipes, strict=True)]
    pairs = list(zip(folders, members, strict=True))
    seen = fingerprint(images)
    identities: list[dict[str, Any]] = []

    def begin() -> None:
        for folder, knobs in pairs:
            kept: dict[str, Any] = {"beside": beside, "value_range": images.value_range}
            create_or_resume(folder, config, knobs, data.about, files=images.files, **kept)

    with ExitStack() as owners:
        for folder, knobs in pairs:
            owners.enter_context(owned(folder))
            identities.append(identity(text, knobs, seen))
            check_same_run(folder, config, knobs, data.about, files=images.files, beside=beside)
            if otherwise := check_same(folder, identities[-1], knobs):
                print(f"{folder.name}: {goes_on_with(otherwise)}", flush=True)
        print(
            f"{len(members)} runs together, {recipes[0].steps} steps of {recipes[0].batch_size} images each, on"
            f" {device()}: {folders[0].parent}",
            flush=True,
        )
        return train_together(
            recipe_with,
            [{name: getattr(knobs, name) for name in numbers} for knobs in members],
            images,
            seeds=[knobs.seed for knobs in members],
            log_every=members[0].log_every,
            save_every=members[0].save_every,
            keep_every=members[0].keep_every,
            callbacks=callbacks,
            loggers=members[0].logger,
            run_dirs=folders,
            identities=identities,
            begin=begin,
            ahead=planned_ahead(str(config), recipes[0], members=len(members), anyway=anyway),
        )


def goes_on_with(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """In words, knobs that have changed and leave the steps the same: {knob: (before, now)}.

    >>> goes_on_with({"remat": (False, True)})
    'Goes on with --remat (before: --no-remat): the same steps, up to rounding.'
    """
    said = [
        f"{' '.join(_option(name, now))} (before: {' '.join(_option(name, was))})"
        for name, (was, now) in changes.items()
    ]
    return f"Goes on with {', '.join(said)}: the same steps, up to rounding."


def in_words(config: str | Path, module: ModuleType, knobs: CommonKnobs) -> str:
    """A config with these knobs on a command line: the preset that comes nearest, and what differs from it."""
    presets = [None, *getattr(module, "PRESETS", {})]
    ways = [
        [*(["--preset", name] if name else []), *_options(preset(module, name), knobs)] for name in presets
    ]
    return shlex.join([str(config), *min(ways, key=len)])


def _options(before: CommonKnobs, knobs: CommonKnobs) -> Iterator[str]:
    """The words of a command line that make knobs of others.

    >>> list(_options(CommonKnobs(), CommonKnobs(remat=True, batch_size=64, logger=("wandb", "mlflow"))))
    ['--batch-size', '64', '--remat', '--logger', 'wandb', 'mlflow']
    """
    had = vars(resolved(before))
    for name, value in vars(resolved(knobs)).items():
        if value != had[name]:
            yield from _option(name, value)


def _option(name: str, value: Any) -> list[str]:
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", *map(str, value if isinstance(value, tuple) else [value])]


def lighter(knobs: CommonKnobs) -> list[str]:
    """The options by which a run needs less memory and stays the same run, of those that it does not have yet."""
    split = knobs.placement == "jit" and jax.device_count() > 1 and not knobs.shard_state
    return [*([] if knobs.remat else ["--remat"]), *(["--shard-state"] if split else [])]


def planned_ahead(
    config: str,
    recipe: Recipe,
    *,
    lighter: Sequence[str] | None = None,
    chunks: int = 1,
    members: int = 1,
    anyway: bool,
) -> Callable[..., Callable]:
    """What compiles the training step before its first call, says what it needs of this machine, and refuses what does
    not fit (`plan.ahead`, which says what `config` and `lighter` are)."""
    from jaxcl import plan

    return partial(
        plan.ahead,
        batch_size=recipe.batch_size,
        config=config,
        lighter=lighter,
        chunks=chunks,
        members=members,
        refuse=not anyway,
        say=partial(print, flush=True),
    )


def online_knn(
    knobs: CommonKnobs, recipe: Recipe, data: Data, *, say: Callable[[str], None] = print
) -> list[Callback]:
    """Online kNN accuracy as a callback for training, where it is asked for and there are labels for it; where there
    are none, a line says so."""
    from jaxcl.evaluate import online_knn
    from jaxcl.train import Callback

    if not knobs.knn_every:
        return []
    try:
        test = data.test
        if test is None:
            raise ValueError(f"{data.name} has no images to test on.")
        call = online_knn(recipe.method.embed, data.train, test)
    except (ValueError, FileNotFoundError) as error:
        asked = knobs.evaluate_on != type(knobs).evaluate_on
        if asked and "test" not in data.__dict__:  # a split that is not there, and not one without labels
            raise
        say(f"Without online kNN (--knn-every {knobs.knn_every:g}): {error}")
        return []
    every = int(knobs.knn_every * data.about.count // knobs.batch_size)
    return [Callback(max(every, 1), call)]
