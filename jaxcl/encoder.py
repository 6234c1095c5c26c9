"""An encoder is a value: what a run has learnt to make of images, opened without the images it was learnt from.

    encoder = load_encoder("runs/quickstart")
    features = encoder(images)                                  # [b, h, w, c] -> [b, d]
    before = load_encoder("runs/quickstart", untrained=True)    # the same network as the run began

Neither the training data nor the optimizer's state is needed, and of the method's memory (queues, banks, target
networks) only what the features depend on is built.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding
from jax.tree_util import Partial

from jaxcl import keys
from jaxcl.config import Apply
from jaxcl.devices import make_mesh
from jaxcl.runs import Run, open_run
from jaxcl.runs.directory import silent
from jaxcl.runs.training import starting_point
from jaxcl.train import checkpoint, finite
from jaxcl.train.state import STATISTICS, TrainState, blank_batch
from jaxcl.typing import About, Array, Net, PyTree


class Encoder(NamedTuple):
    """apply      (params, state, images float [b, h, w, c] in [0, 1]) -> features [b, d]
    params, state  what it reads of the run's parameters and memory; None in place of what it does not
    about          number, shape and classes of the images it was trained on
    step           training steps behind it; 0 of an untrained one
    """

    apply: Apply
    params: PyTree
    state: PyTree
    about: About
    step: int

    def __call__(self, images: Array | np.ndarray) -> Array:
        """Features [b, d] of images [b, h, w, c], uint8 or float in [0, 1].

        Raises ValueError for another shape or dtype, and, outside of tracing, for floats far outside of [0, 1].
        """
        check_images(images, self.about)
        return _features(self.apply, self.params, self.state, images)

    @property
    def embed(self) -> Partial:
        """images -> features, with the weights as arguments of the compiled program: for `evaluate`."""
        return Partial(self.apply, self.params, self.state)


def check_images(images: Array | np.ndarray, about: About) -> None:
    """Raises ValueError for images of another shape, dtype or range than the encoder takes. The range is not checked
    while a function is traced, as values are not known then."""
    if images.ndim != 4:
        raise ValueError(
            f"An encoder takes images [b, h, w, c]; got {images.shape}. Give one as images[None]."
        )
    channels = about.shape[2]
    if images.shape[3] != channels:
        first = images.shape[1] == channels
        hint = " As PyTorch lays them out? images.transpose(0, 2, 3, 1)." if first else ""
        raise ValueError(f"This encoder takes images [b, h, w, {channels}]; got {images.shape}.{hint}")
    if images.dtype == jnp.uint8:
        return
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"An encoder takes uint8, or floats in [0, 1]; got {images.dtype}. Of numbers from 0 to 255:"
            " images.astype('uint8')."
        )
    if isinstance(images, jax.core.Tracer) or not images.size:
        return
    least, most = float(images.min()), float(images.max())
    # What a resampling adds at an edge is no other scale.
    if least < -0.5 or most > 1.5:
        raise ValueError(
            f"An encoder takes uint8, or floats in [0, 1], and standardizes them itself where its run did; got floats"
            f" from {least:.3g} to {most:.3g}. Of numbers from 0 to 255: images / 255."
        )


def load_encoder(
    run_dir: str | Path,
    *,
    untrained: bool = False,
    part: str | None = None,
    layer: int | None = None,
    trust: bool = False,
) -> Encoder:
    """The encoder of a run at its newest good checkpoint.

    untrained
        as the run began, before the first training step: as it was initialised, or as what --init names (as that is
        now) made it. Needs no checkpoint of its own.
    part
        a part of the representation that the config names (`Recipe.parts`).
    layer
        of the head: 0 is the representation h, 1 what the head's first layer makes of it, -1 the projection z.
    trust
        execute the run's config.py whoever made it; otherwise only one's own, or one that comes with jaxcl.

    Raises FileNotFoundError where there is no run or no checkpoint, ValueError where no checkpoint is good, where the
    encoder has numbers that are not finite, and where the config names no such part, or the head has no such layer.
    """
    run = open_run(run_dir, trust=trust)
    if layer is not None:
        if part is not None:
            raise ValueError(f"Give either part or layer, not both; got part={part!r}, layer={layer}.")
        return encoder_of(run, at_layer(run, layer), untrained=untrained)
    if part is None:
        return encoder_of(run, run.recipe.method.embed, untrained=untrained)
    parts = run.recipe.parts or {}
    if part not in parts:
        named = f"; it names {', '.join(parts)}" if parts else ""
        raise ValueError(f"The config of {run_dir} names no part {part!r} of its representation{named}.")
    return encoder_of(run, parts[part], untrained=untrained)


def encoder_of(run: Run, apply: Apply, *, untrained: bool = False) -> Encoder:
    """The encoder `apply` of an opened run; or its classifier, which is one more function of the same arrays."""
    method, about = run.recipe.method, run.about
    key = keys.init_key(run.knobs.seed)

    def init(key: Array) -> tuple[PyTree, PyTree]:
        return method.init(key, blank_batch(about))

    whole = jax.eval_shape(init, key)
    images = jax.ShapeDtypeStruct((2, *about.shape), jnp.float32)
    used = _used(apply, whole, images)
    if untrained:
        begin = _start_of(run)
        if begin is None:
            # Compiled as a whole: what is not used is not made.
            params, state = jax.jit(lambda key: _only(init(key), used))(key)
            return Encoder(apply, params, state, about, 0)
        params, state = jax.jit(init)(key)
        try:
            begun = begin(TrainState(jnp.int32(0), params, (), state))
        except (FileNotFoundError, ValueError) as error:
            raise _no_start(run, error) from error
        params, state = _only((begun.params, begun.state), used)
        return Encoder(apply, params, state, about, 0)
    params, state = _only(jax.tree.map(_on_devices(), whole), used)
    wanted = {"params": params, "state": state}
    found, step = checkpoint.restore(run.dir / "checkpoints", wanted, part=True)
    if broken := finite.not_finite(found):
        # A maximum swallows a nan on some devices: such an encoder may give features, and even an accuracy.
        raise ValueError(
            f"The encoder of {run.dir} at step {step} has numbers that are not finite, in {len(broken)} of"
            f" {len(jax.tree.leaves(found))} arrays ({', '.join(broken[:3])}{', ...' * (len(broken) > 3)}), so its"
            " features are meaningless. Train again, with a lower learning rate or in float32; today's `jaxcl train`"
            " stops before it saves such a state."
        )
    return Encoder(apply, found["params"], found["state"], about, step)


def _start_of(run: Run) -> Callable[[TrainState], TrainState] | None:
    """What --init gave the run, if it had any, as a function of its first state."""
    try:
        return starting_point(run.knobs, run.recipe, say=silent)
    except (FileNotFoundError, ValueError, ImportError) as error:
        raise _no_start(run, error) from error


def _no_start(run: Run, error: Exception) -> FileNotFoundError:
    return FileNotFoundError(
        f"{run.dir} started from {run.knobs.init} (--init), which is missing or has changed, so its untrained encoder"
        f" cannot be made. ({error}) Restore it, or leave the untrained encoder out (`jaxcl evaluate`: --baselines"
        " raw)."
    )


def at_layer(run: Run, layer: int) -> Apply:
    """(params, state, images) -> what a layer of the head of an opened run makes of h; layer 0 is h itself."""
    layers, about = run.recipe.method.layers, run.about
    if layers is None:
        parts = " --parts evaluates the parts that its config names." if run.recipe.parts else ""
        raise ValueError(
            f"The method of {run.dir} has no single projection head to evaluate layers of. Leave out --layers (layer=):"
            f" the representation is evaluated without it.{parts}"
        )

    def shapes(images: Any) -> Any:
        batch = blank_batch(about)
        return layers(*run.recipe.method.init(keys.init_key(0), batch), images)

    there = len(jax.eval_shape(shapes, jax.ShapeDtypeStruct((2, *about.shape), jnp.float32)))
    if not -there <= layer < there:
        raise ValueError(
            f"The head of {run.dir} has {there - 1} layers, and layer 0 is its input; got layer {layer}."
        )
    return lambda params, state, images: layers(params, state, images)[layer]


def maps_of(run: Run) -> list[tuple[Apply, tuple[int, ...]]]:
    """For every feature map of an opened run's encoder, shallow to deep: (params, state, images) -> the map laid out in
    a row [b, h w c], and its shape (h, w, c). Vectors among the maps are left out.

    Raises ValueError where the method has no single encoder of images whose parameters are called "encoder".
    """
    method, about = run.recipe.method, run.about
    net = None if method.five_parts is None else method.five_parts.encoder.get("encoder")
    shapes = jax.eval_shape(lambda: method.init(keys.init_key(0), blank_batch(about)))

    def of(params: PyTree, state: PyTree) -> tuple[PyTree, PyTree] | None:
        params = params.get("method", params)
        found = [state.get(place[0], {}) if place else state for place in STATISTICS]
        own = [part["encoder"] for part in found if isinstance(part, dict) and "encoder" in part]
        return (params["encoder"], own[0]) if "encoder" in params and own else None

    # (CPC's encoder sees patches.)
    cut = method.five_parts is not None and "patch" in method.five_parts.views
    if not isinstance(net, Net) or cut or of(*shapes) is None:
        raise ValueError(
            f"The method of {run.dir} has no single encoder of images, so there are no feature maps to show."
        )
    images = jax.ShapeDtypeStruct((2, *about.shape), jnp.float32)

    def maps(params: PyTree, state: PyTree, images: Array) -> tuple[Array, ...]:
        place = of(params, state)
        assert place is not None
        return net.apply(*place, images, train=False)[0]

    def laid_out(level: int) -> Apply:
        return lambda params, state, images: maps(params, state, images)[level].reshape(len(images), -1)

    made = jax.eval_shape(maps, *shapes, images)
    return [(laid_out(level), tuple(x.shape[1:])) for level, x in enumerate(made) if x.ndim == 4]


@functools.partial(jax.jit, static_argnums=0)
def _features(apply: Apply, params: PyTree, state: PyTree, images: Array) -> Array:
    if images.dtype == jnp.uint8:
        images = images.astype(jnp.float32) / 255
    return apply(params, state, images)


def _used(apply: Apply, whole: tuple[PyTree, PyTree], images: Any) -> list[bool]:
    """For every array of (params, state), in order: whether `apply` reads it."""
    program = jax.make_jaxpr(apply)(*whole, images).jaxpr
    read = {id(x) for equation in program.eqns for x in equation.invars} | {id(x) for x in program.outvars}
    arrays = jax.tree.leaves(whole)
    return [id(x) in read for x in program.invars[: len(arrays)]]


def _only(tree: PyTree, used: list[bool]) -> PyTree:
    """The tree with None in place of what is not used."""
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [x if keep else None for x, keep in zip(leaves, used, strict=True)])


def _on_devices() -> Any:
    """Says where an array goes: on one device; with several processes on all of them."""
    where: Sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    if jax.process_count() > 1:
        where = NamedSharding(make_mesh(), PartitionSpec())
    return lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)
