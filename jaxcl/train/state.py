"""What a run is: a pytree of arrays and nothing else, so it can be saved, donated and mapped over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcl.train import checkpoint
from jaxcl.typing import About, Array, Batch, Method, PyTree


class TrainState(NamedTuple):
    step: Array  # int32 []
    params: PyTree
    opt_state: PyTree
    state: PyTree  # the method's memory: batch statistics, target network, queue


def init_state(key: Array, method: Method, tx: optax.GradientTransformation, batch: Batch) -> TrainState:
    """The state before the first step. Two examples of the batch are enough to know the shapes."""
    batch = jax.tree.map(lambda x: x[:2], dict(batch))

    @jax.jit
    def init(key, batch):
        params, state = method.init(key, batch)
        return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), state)

    return init(key, batch)


def blank_batch(about: About, size: int = 2) -> Batch:
    """A batch of black images of the right shape: `Method.init` looks at shapes alone."""
    return {
        "image": np.zeros((size, *about.shape), np.uint8),
        "index": np.arange(size, dtype=np.int32),
        "label": np.zeros(size, np.int32),
    }


def start_from(
    train: TrainState, checkpoints: str | Path, *, parts: Sequence[str] | None = None
) -> TrainState:
    """The same state with the encoder of another run: its newest good params["encoder"].

    A copy of the encoder in the method's memory (the target network of MoCo or BYOL) becomes a copy of the new one.
    Heads, batch statistics and the optimizer stay as initialised.

    parts
        these parts of params in its place, each with its batch statistics, as ("encoder", "head") for fine-tuning. Of
        another part than the encoder the arrays that this run has are taken: of a head of three layers perhaps the
        first alone.

    Raises ValueError, with a table of the differences, where the two encoders are not made alike, as where the other
    has more blocks; and where a method has no single encoder.
    """
    checkpoints = Path(checkpoints)
    newest = checkpoint.latest(checkpoints)
    if newest is None:
        raise FileNotFoundError(
            f"There is no checkpoint in {checkpoints} to start from; expected the folder `checkpoints` of a run."
        )
    if parts is not None:
        return _carried(train, checkpoints, newest, parts)
    own = _place_of_encoder([f"params/{name}" for name in by_path(train.params)], "the method of this run")
    theirs = _place_of_encoder(checkpoint.names(checkpoints, newest), f"the run of {checkpoints}")
    encoder = _at(train.params, own)
    return with_encoder(train, _restored(checkpoints, ("params", *theirs), encoder, whole=True))


def with_encoder(train: TrainState, encoder: PyTree, *, statistics: PyTree | None = None) -> TrainState:
    """The same state with these parameters of its encoder; copies of it in the method's memory (the target network of
    MoCo or BYOL) become copies of the new ones.

    statistics
        the encoder's batch statistics, wherever the method keeps some; None leaves them as initialised.
    """
    own = _place_of_encoder([f"params/{name}" for name in by_path(train.params)], "the method of this run")
    before, after = by_path(_at(train.params, own)), by_path(encoder)
    if statistics is not None:
        before, after = before | by_path(encoder_statistics(train.state)), after | by_path(statistics)

    def renewed(path: tuple, x: Any) -> Any:
        _, below, name = jax.tree_util.keystr(path, simple=True, separator="/").rpartition("encoder/")
        if not below or name not in before or x.shape != before[name].shape:
            return x
        # An array of its own: one that two parts of the state share could not be donated.
        return jnp.array(after[name]) if jnp.array_equal(x, before[name]) else x

    memory = jax.tree_util.tree_map_with_path(renewed, train.state)
    return train._replace(params=_replaced(train.params, own, encoder), state=memory)


def encoder_parameters(params: PyTree, *, whose: str = "the method of this run") -> PyTree:
    """The encoder's part of a method's parameters. Raises ValueError where there is no single encoder."""
    return _at(params, _place_of_encoder([f"params/{name}" for name in by_path(params)], whose))


def encoder_statistics(state: PyTree) -> PyTree:
    """The batch statistics of the encoder that is evaluated, of a method's memory; {} where there are none."""
    found = [state.get(place[0], {}) if place else state for place in STATISTICS]
    return next((part["encoder"] for part in found if isinstance(part, dict) and "encoder" in part), {})


# Where a method keeps the statistics of the network that is evaluated.
STATISTICS = ((), ("query",), ("online",))


def _carried(train: TrainState, checkpoints: Path, newest: int, parts: Sequence[str]) -> TrainState:
    """The same state with some parts of another run's params, and with their statistics."""
    whose = f"the run of {checkpoints}"
    saved = checkpoint.names(checkpoints, newest)
    *theirs, _ = _place_of_encoder(saved, whose)
    for part in parts:
        here, whole = train.params[part], part == "encoder"
        if jax.tree.leaves(here):
            found = _restored(checkpoints, ("params", *theirs, part), here, whole=whole)
            train = train._replace(params={**train.params, part: found})
        statistics = train.state.get(part, {})
        if jax.tree.leaves(statistics):
            name = next(iter(by_path(statistics)))
            places = [place for place in STATISTICS if "/".join(("state", *place, part, name)) in saved]
            if not places:
                raise ValueError(
                    f"No batch statistics of {part!r} can be handed over: {whose} has none. Was it made with another"
                    " norm?"
                )
            found = _restored(checkpoints, ("state", *places[0], part), statistics, whole=whole)
            train = train._replace(state={**train.state, part: found})
    return train


def _restored(checkpoints: Path, place: tuple[str, ...], like: PyTree, *, whole: bool) -> PyTree:
    """What is saved at a place; with `whole` nothing else may be saved below it."""
    below = ["/".join(place)] if whole else []
    found, _ = checkpoint.restore(checkpoints, _nested(place, like), part=True, whole=below)
    return _at(found, place)


def fill(train: TrainState, given: Mapping[str, str | Path]) -> TrainState:
    """The same state whose parts `state[name]`, {"params", "state"}, are those of other runs' newest good checkpoints.

    given
        name -> run directory. Raises ValueError, with a table of the differences, where a run has others.
    """
    for name, run_dir in given.items():
        own = train.state[name]
        found, _ = checkpoint.restore(Path(run_dir) / "checkpoints", own, part=True, whole=list(own))
        train = train._replace(state={**train.state, name: found})
    return train


def _place_of_encoder(names: list[str], whose: str) -> tuple[str, ...]:
    """Where among the parameters the encoder is: at the top, or below "method" where there is an online classifier."""
    for place in (("encoder",), ("method", "encoder")):
        if any(name.startswith("/".join(("params", *place, ""))) for name in names):
            return place
    raise ValueError(
        f'No encoder can be handed over: {whose} has no params["encoder"]; both methods need one.'
    )


def by_path(tree: PyTree) -> dict[str, Any]:
    """The arrays of a tree by their paths: "params/encoder/Dense_0/kernel"."""
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in pairs}


def _at(tree: PyTree, place: tuple[str, ...]) -> PyTree:
    for name in place:
        tree = tree[name]
    return tree


def _nested(place: tuple[str, ...], tree: PyTree) -> PyTree:
    for name in reversed(place):
        tree = {name: tree}
    return tree


def _replaced(tree: PyTree, place: tuple[str, ...], new: PyTree) -> PyTree:
    if not place:
        return new
    return {**tree, place[0]: _replaced(tree[place[0]], place[1:], new)}
