"""The residual classifier on a grid of features: CPC's second evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import nets
from jaxcl.evaluate import PROTOCOLS, Subject, deep_probe, linear_probe
from jaxcl.evaluate.deep import grid_shape

SHORT = {"side": 3, "blocks": 1, "epochs": 15, "batch_size": 100, "learning_rate": 0.5}


def neighbors(n, seed):
    """Grids 3 x 3 of vectors of which one is a and one is b: whether a stands left of b. Every mean is the same."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    grids = rng.normal(0, 0.1, (n, 3, 3, 4))
    row, column = rng.integers(0, 3, n), rng.integers(0, 2, n)
    for i in range(n):
        grids[i, row[i], column[i] + (labels[i] == 0), 0] += 3
        grids[i, row[i], column[i] + (labels[i] == 1), 1] += 3
    return grids.reshape(n, -1).astype(np.float32), labels.astype(np.int32)


def subject():
    return Subject.of_features(*neighbors(400, 0), *neighbors(200, 1))


@pytest.fixture(scope="module")
def probe():
    return deep_probe(jax.random.key(0), subject(), **SHORT)


def test_it_sees_how_vectors_stand_to_each_other_which_their_mean_does_not_tell(probe):
    (x, y), (x_test, y_test) = neighbors(400, 0), neighbors(200, 1)
    mean = [grids.reshape(-1, 9, 4).mean(axis=1) for grids in (x, x_test)]
    assert linear_probe(mean[0], y, mean[1], y_test, l2=(1e-3,)).accuracy < 0.65
    assert probe.accuracy > 0.95
    assert probe.details["steps"] == 60


def test_what_it_says_is_a_bottleneck_and_a_dense_layer_on_the_mean_of_the_grid(probe):
    """One block at one image, in loops: 1x1, 3x3 with zeros around, 1x1, each normalized by the running statistics."""
    x = neighbors(1, 3)[0].reshape(3, 3, 4).astype(np.float64)
    p, s = (jax.tree.map(lambda w: np.asarray(w, np.float64), t) for t in (probe.params, probe.state))
    block, statistics = p["Bottleneck_0"], s["batch_stats"]["Bottleneck_0"]

    def convolved(y, kernel):
        side, out = len(kernel) // 2, np.zeros((3, 3, kernel.shape[3]))
        for i, j, di, dj in np.ndindex(3, 3, len(kernel), len(kernel)):
            r, c = i + di - side, j + dj - side
            if 0 <= r < 3 and 0 <= c < 3:
                out[i, j] += y[r, c] @ kernel[di, dj]
        return out

    y = x
    for layer in range(3):
        norm, running = block[f"BatchNorm_{layer}"], statistics[f"BatchNorm_{layer}"]
        y = convolved(y, block[f"Conv_{layer}"]["kernel"])
        y = (y - running["mean"]) / np.sqrt(running["var"] + 1e-5) * norm["scale"] + norm["bias"]
        y = np.maximum(y, 0) if layer < 2 else y
    expected = np.maximum(x + y, 0).mean(axis=(0, 1)) @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]
    found, _ = probe.net.apply(probe.params, probe.state, jnp.asarray(x[None], jnp.float32), train=False)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-4)


def test_the_published_one_has_eleven_blocks_of_4096_channels_and_1024_within():
    net = nets.residual_classifier(classes=1000, norm=nets.batch_norm())
    params, _ = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 6, 6, 4096)))
    kernels = 11 * (2 * 4096 * 1024 + 9 * 1024 * 1024)
    norms = 11 * 2 * (1024 + 1024 + 4096)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == kernels + norms + 1000 * 4097


def test_it_sees_a_balanced_part_of_the_labels_and_no_others():
    given = SHORT | {"fraction": 0.1, "batch_size": 20, "epochs": 1}
    train, labels = neighbors(400, 0)
    one = deep_probe(jax.random.key(0), subject(), **given)
    assert np.bincount(labels[one.rows]).tolist() == [20, 20]
    hidden = np.where(np.isin(np.arange(400), one.rows)[:, None], train, 7.0)
    other = deep_probe(jax.random.key(0), Subject.of_features(hidden, labels, *neighbors(200, 1)), **given)
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


def test_the_protocol_tells_its_settings():
    result = PROTOCOLS["deep"](jax.random.key(0), subject(), **SHORT | {"epochs": 1})
    assert result["settings"]["side"] == 3
    assert result["settings"]["augmented"] is False
    assert result["features"] == 36


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"side": 5}, "The 36 features are a grid of side x side vectors, .* got side=5"),
        ({"fraction": 0.0}, "fraction is the part of the labels"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 500}, "batch_size must be between"),
        ({"blocks": 0}, "needs a block"),
    ],
)
def test_mistakes_are_answered_with_a_sentence(wrong, says):
    with pytest.raises(ValueError, match=says):
        deep_probe(jax.random.key(0), subject(), **SHORT | wrong)


def test_a_grid_that_was_taken_for_a_vector_is_refused():
    with pytest.raises(ValueError, match="Set the side of the encoder's grid"):
        grid_shape(7 * 7 * 2048, 1)
