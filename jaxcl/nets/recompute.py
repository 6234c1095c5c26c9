"""Networks that keep less: activations are computed again in the backward pass, by block or by chunks of the batch.

                     kept between the two passes                                  what is computed again
    net              the activations of the whole batch                           nothing
    remat(net)       what goes into each block                                    each block, when its gradient is due
    chunked(net, n)  images and outputs; within a pass the activations of one     each chunk, when its gradient is due
                     chunk, an n-th of the batch

Both may be combined, `chunked(remat(net), n)`. A forward pass more is a third of the arithmetic more. Values,
gradients and parameters stay as they are; batch statistics do too under `remat`, and become those of a chunk under
`chunked`. What both save: benchmarks/results/cached-step-cpu.md. On a CPU they need jax 0.12: the compiler of jax 0.10
finds that everything is computed twice, and keeps it instead.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcl import collectives
from jaxcl.nets.norm import BatchNorm
from jaxcl.typing import Array, Net, PyTree


def remat(net: Net) -> Net:
    """The net with activations recomputed by block: in training only what goes into a block is kept for the backward
    pass, and its inside is computed again when its gradient is due (Chen et al., 2016, arXiv:1604.06174).

    A block is a flax module that the network's own module calls: a ResNet's blocks, and its stem; of a plain
    convolutional network each convolution and each norm, which saves less. A net without flax modules is one block,
    which saves something only where a method applies it several times. Parameters, state, outputs and gradients are
    those of `net`, and so are `init` and what `train=False` gives.
    """

    def apply(params, state, x, *, train):
        if not train:
            return net.apply(params, state, x, train=False)
        met: set[tuple[str, ...]] = set()
        with nn.intercept_methods(by_block(met)):
            out = net.apply(params, state, x, train=True)
        if met:
            return out
        return jax.checkpoint(lambda params, x: net.apply(params, state, x, train=True))(params, x)

    return Net(net.init, apply, made=net.made)


def by_block(met: set[tuple[str, ...]]):
    """Wraps the call of each module right below the outermost one; `met` gets their paths."""

    def interceptor(call, args, kwargs, context):
        module = context.module
        if len(module.path) != 1 or context.method_name != "__call__" or module.path in met:
            return call(*args, **kwargs)
        met.add(module.path)  # the inner call comes by here again
        return nn.remat(lambda module, *args: module(*args, **kwargs))(module, *args)

    return interceptor


def chunked(net: Net, chunks: int, *, together: int = 2) -> Net:
    """The net on `chunks` chunks of the batch, one after the other, each of which is computed again in the backward
    pass: large batches on little memory.

    With a loss of all rows this is the gradient cache of Gao, Zhang, Han and Callan (2021, arXiv:2101.06983): all rows
    are embedded without keeping activations, the loss and its gradient by the rows are taken of all of them together,
    and that gradient goes back through one chunk at a time. Here autodiff does so by itself. Nothing else of a method
    changes: negatives, queues and banks are those of the whole batch.

        f(x)_r = net(x_i)_r    for each row r of chunk i;    row r is in chunk (r // together) mod chunks

    together
        so many neighbouring rows are in one chunk: 2 for the two views of an image, which SimCLR lays beside each
        other (`batch_norm(views=2)` needs them so).

    Without batch statistics the result is the net's own. With them each chunk is normalized by its own rows, and the
    running averages take the mean over the chunks: `batch_norm()` in `chunks` chunks is `batch_norm(groups=chunks)` of
    the batch in another order. `batch_norm(groups=g)` keeps the size of its groups: each chunk has g / chunks of them.

    Rows are dealt out like cards, so every device works on its share of each chunk, and which rows meet does not depend
    on the number of devices. Outputs are kept whole, so an output that is large and used costs memory (a ResNet's last
    map is some hundredths of its activations; those that nobody uses are not kept). Views are made before the network
    sees them and are in memory for all images.

    On accelerators the chunks are a loop, compiled once. On a CPU, where XLA has only slow convolutions for the inside
    of loops, they are written out, so compiling takes as many times longer.

    Raises ValueError where `chunks` is below 1, and where rows or the groups of batch norm cannot be dealt out evenly.
    """
    if chunks < 1 or together < 1:
        raise ValueError(f"chunked needs one chunk or more, of one row or more; got {chunks} and {together}.")

    def apply(params, state, x, *, train):
        if not train:
            return net.apply(params, state, x, train=False)
        # So that the gradients of all chunks are added up before they are sent to other devices.
        params = jax.tree.map(lambda w: collectives.vary_like(w, x), params)

        def of_one(params, x):
            with nn.intercept_methods(in_chunks(chunks)):
                return net.apply(params, state, x, train=True)

        run = written_out if collectives.target().platform == "cpu" else in_a_loop
        out, states = run(jax.checkpoint(of_one), params, dealt(x, chunks, together))
        return jax.tree.map(lambda y: put_back(y, together), out), jax.tree.map(over_chunks, states)

    return Net(net.init, apply, made=net.made)


def in_chunks(chunks: int):
    """Tells each batch norm that it sees one of so many chunks."""

    def interceptor(call, args, kwargs, context):
        if isinstance(context.module, BatchNorm) and context.method_name == "__call__":
            kwargs = {**kwargs, "chunks": chunks}
        return call(*args, **kwargs)

    return interceptor


def dealt(x: Array, chunks: int, together: int) -> Array:
    """[b, ...] -> [chunks, b / chunks, ...]; each device keeps its rows.

    >>> dealt(jnp.arange(8), 2, 1).tolist(), dealt(jnp.arange(8), 2, 2).tolist()
    ([[0, 2, 4, 6], [1, 3, 5, 7]], [[0, 1, 4, 5], [2, 3, 6, 7]])
    """
    devices = collectives.sharers(x)
    if len(x) % (chunks * together * devices):
        over = f" over {devices} devices" if devices > 1 else ""
        raise ValueError(
            f"{len(x)} rows cannot be split{over} into {chunks} equal chunks that keep {together} neighbouring rows"
            f" together. Choose a batch that is a multiple of {chunks * together * devices}, or fewer chunks."
        )
    cards = x.reshape(-1, chunks, together, *x.shape[1:])
    return collectives.split_rows(jnp.moveaxis(cards, 1, 0).reshape(chunks, -1, *x.shape[1:]), axis=1)


def put_back(y: Array, together: int) -> Array:
    """[chunks, b / chunks, ...] -> [b, ...]: undoes `dealt`."""
    chunks, rows, *rest = y.shape
    cards = jnp.moveaxis(y.reshape(chunks, rows // together, together, *rest), 0, 1)
    return collectives.split_rows(cards.reshape(chunks * rows, *rest))


def over_chunks(states: Array) -> Array:
    """Running averages that each chunk has moved -> one; of anything but floats, the last chunk's."""
    return jnp.mean(states, axis=0) if jnp.issubdtype(states.dtype, jnp.floating) else states[-1]


def in_a_loop(of_one: Any, params: PyTree, xs: Array) -> PyTree:
    return jax.lax.map(lambda x: of_one(params, x), xs)


def written_out(of_one: Any, params: PyTree, xs: Array) -> PyTree:
    made = []
    for x in xs:
        out, state = of_one(params, x)
        # A chunk waits for the one before it, and in the backward pass for the one after it. Otherwise XLA computes
        # them side by side, and nothing is saved. (Not the state: jax 0.10 would forget that devices agree on it.)
        params, out = jax.lax.optimization_barrier((params, out))
        made.append((out, state))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)
