"""CPC's networks: what a patch becomes, and what its context may see."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import nets


def shapes_of(net, *shape):
    """Of maps, and of all that the network keeps, traced at once."""
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(partial(net.made.module.init_with_output, train=True), jax.random.key(0), x)


def test_a_patch_of_eight_pixels_becomes_a_vector_of_2048_and_the_third_stage_has_4096():
    maps, kept = shapes_of(nets.cpc_resnet(), 2, 8, 8, 3)
    assert [m.shape[1:] for m in maps] == [(2, 2, 256), (1, 1, 512), (1, 1, 4096), (1, 1, 2048)]
    assert set(kept) == {"params"}


def test_the_resnet_161_of_the_paper_has_three_stages_and_303_million_parameters_in_kernels():
    maps, kept = shapes_of(nets.cpc_resnet(blocks=(3, 4, 46)), 1, 80, 80, 3)
    assert [m.shape[-1] for m in maps] == [256, 512, 4096]
    leaves = jax.tree_util.tree_leaves_with_path(kept["params"])
    kernels = sum(int(np.prod(p.shape)) for path, p in leaves if "kernel" in str(path))
    # By hand: the stem, then of each block 1x1, 3x3, 1x1, and of the first in a stage its shortcut.
    truth, c = 49 * 3 * 64, 64
    for count, inner, outer in ((3, 64, 256), (4, 128, 512), (46, 512, 4096)):
        truth += c * outer
        for _ in range(count):
            truth, c = truth + c * inner + 9 * inner**2 + inner * outer, outer
    assert kernels == truth
    assert round(kernels / 1e6) == 303


def test_parameters_are_those_of_its_layers():
    f, patch = 8, 16
    net = nets.cpc_resnet(blocks=(1, 2, 3, 1), features=f)
    params, _ = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((2, patch, patch, 3)))
    size, c = patch // 2, f
    total = 49 * 3 * f + 2 * size**2 * f  # stem, and its norm over the whole map
    size //= 2
    for stage, (count, inner, outer) in enumerate([(1, 1, 4), (2, 2, 8), (3, 8, 64), (1, 8, 32)]):
        inner, outer = inner * f, outer * f
        for i in range(count):
            before = size
            if stage and not i:
                size = (size + 1) // 2
            total += c * inner + 9 * inner**2 + inner * outer
            total += 2 * (before**2 * inner + size**2 * inner + size**2 * outer)
            if size != before or c != outer:
                total += c * outer + 2 * size**2 * outer
            c = outer
    assert sum(int(np.prod(p.shape)) for p in jax.tree.leaves(params)) == total


def test_a_context_sees_its_row_and_so_many_above_as_there_are_blocks_and_nothing_below(drawn):
    net = nets.masked_context(hidden=16, blocks=2)
    x = 2 + np.random.default_rng(0).uniform(size=(1, 7, 9, 4)).astype(
        np.float32
    )  # so that the last ReLU lets it through
    params, state = drawn(net.init, jax.random.key(1), x)

    def place(x):
        return jnp.sum(net.apply(params, state, x, train=False)[0][0, 4, 4])

    seen = np.any(np.asarray(jax.jit(jax.grad(place))(x)[0]) != 0, axis=-1)
    rows, columns = np.nonzero(seen)
    assert (rows.min(), rows.max()) == (2, 4)
    # The 1 x 3 is unpadded and its result then padded again, so a block sees the column before to the one after.
    assert (columns.min(), columns.max()) == (2, 6)


def test_a_block_of_the_published_context_is_its_pseudo_code():
    net = nets.masked_context(hidden=3, blocks=1, top=0.0, sides="early")
    x = np.random.default_rng(0).normal(size=(1, 3, 4, 2))
    with jax.enable_x64(True):
        shapes, state = jax.eval_shape(net.init, jax.random.key(1), x)
        p = jax.tree.map(lambda p: np.random.default_rng(p.size).normal(size=p.shape), shapes)
        got, _ = jax.jit(partial(net.apply, train=False))(p, state, x)
    first = np.maximum(x[0] @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"], 0)
    beside = np.pad(first, ((0, 0), (1, 1), (0, 0)))
    wide = np.zeros((4, 4, 3))  # one row of zeros above
    for r in range(3):
        for c in range(4):
            seen = sum(beside[r, c + i] @ p["Conv_0"]["kernel"][0, i] for i in range(3))
            wide[r + 1, c] = p["Conv_0"]["bias"] + seen
    for r in range(3):
        for c in range(4):
            y = p["Conv_1"]["bias"] + sum(wide[r + i, c] @ p["Conv_1"]["kernel"][i, 0] for i in range(2))
            y = np.maximum(y, 0) @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"]
            np.testing.assert_allclose(
                np.asarray(got)[0, r, c], np.maximum(x[0, r, c] + y, 0), rtol=1e-5, atol=1e-6
            )


def test_a_block_of_context_is_its_loops():
    net = nets.masked_context(hidden=3, blocks=1, top=1.0)
    x = np.random.default_rng(0).normal(size=(1, 3, 4, 2))
    with jax.enable_x64(True):
        shapes, state = jax.eval_shape(net.init, jax.random.key(1), x)
        p = jax.tree.map(lambda p: np.random.default_rng(p.size).normal(size=p.shape), shapes)
        got, _ = jax.jit(partial(net.apply, train=False))(p, state, x)
    first = np.maximum(x[0] @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"], 0)  # [3, 4, 3]
    wide = np.zeros((3, 2, 3))
    for r in range(3):
        for c in range(2):
            wide[r, c] = p["Conv_0"]["bias"] + sum(
                first[r, c + i] @ p["Conv_0"]["kernel"][0, i] for i in range(3)
            )
    with_top = np.concatenate([np.ones((1, 2, 3)), wide])
    padded = np.pad(with_top, ((0, 0), (1, 1), (0, 0)))
    for r in range(3):
        for c in range(4):
            y = p["Conv_1"]["bias"] + sum(padded[r + i, c] @ p["Conv_1"]["kernel"][i, 0] for i in range(2))
            y = np.maximum(y, 0) @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"]
            np.testing.assert_allclose(got[0, r, c], np.maximum(x[0, r, c] + y, 0), rtol=1e-5, atol=1e-6)


def test_map_norm_normalizes_every_row_over_its_whole_map():
    layer = nets.map_norm()()
    x = np.float32(3 + 2 * np.random.default_rng(0).normal(size=(4, 5, 5, 6)))
    variables = jax.jit(partial(layer.init, train=True))(jax.random.key(1), x)
    apply = jax.jit(partial(layer.apply, train=True))
    y = np.asarray(apply(variables, x))
    np.testing.assert_allclose(y.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axis=(1, 2, 3)), 1, atol=1e-4)
    assert variables["params"]["scale"].shape == (5, 5, 6)
    np.testing.assert_allclose(y[1], np.asarray(apply(variables, x[1:2]))[0], atol=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="three columns or more"):
        nets.masked_context().init(jax.random.key(0), jnp.ones((1, 3, 2, 4)))
    with pytest.raises(ValueError, match='"early" or "late"'):
        nets.masked_context(sides="none")
    with pytest.raises(ValueError, match="initialization is"):
        nets.masked_context(initialization="keras")
    with pytest.raises(ValueError, match="three stages or four"):
        nets.cpc_resnet(blocks=(3, 4))
