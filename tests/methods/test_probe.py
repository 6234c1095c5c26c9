"""An online classifier: it learns, and the method does not notice."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcl import devices, nets
from jaxcl.losses import keyless, nt_xent
from jaxcl.methods import simclr, with_probe
from jaxcl.train import init_state, make_step, placement

N, CLASSES = 16, 2
LABELS = np.arange(2 * N) % CLASSES


def batch():
    """Rows 5 to 20 of a data set; images of class 1 are brighter."""
    index = np.arange(5, 5 + N)
    noise = np.random.default_rng(0).integers(0, 100, (N, 16, 16, 1))
    image = (noise + 100 * LABELS[index][:, None, None, None]).astype(np.uint8)
    return {"image": image, "index": index.astype(np.int32), "label": LABELS[index].astype(np.int32)}


def noisy(key, batch):
    """Two views: the image with noise of its own."""

    def noise(index):
        return 0.1 * jax.random.normal(jax.random.fold_in(key, index), (2, *batch["image"].shape[1:]))

    drawn = jax.vmap(noise)(batch["index"])
    x = jnp.asarray(batch["image"], jnp.float32) / 255
    return x + drawn[:, 0], x + drawn[:, 1]


def parts(axis_name=None):
    norm = nets.batch_norm(axis_name=axis_name)
    method = simclr(
        views=noisy,
        encoder=nets.conv_n(features=(4,), dense=8, norm=norm),
        head=nets.mlp_head(norm=norm, hidden=(), out=4),
        loss=keyless(nt_xent, temperature=0.5),
        axis_name=axis_name,
    )
    probed = with_probe(method, classes=CLASSES, views=noisy, axis_name=axis_name)
    return method, *probed


def steps(method, count, *, place="jit", on=1):
    mesh, tx = devices.make_mesh(devices=on), optax.adam(0.01)
    state = devices.replicate(init_state(jax.random.key(0), method, tx, batch()), mesh)
    step = placement.place(make_step(method, tx, axis_name=devices.axis_name(place)), place, mesh)
    key = devices.replicate(jax.random.key(1), mesh)
    rows = batch() if place == "pmap" else devices.split(batch(), mesh)
    for _ in range(count):
        state, metrics = step(state, key, rows)
    return jax.device_get(state), jax.device_get(metrics)


@pytest.fixture(scope="module")
def trained():
    method, probed, classify = parts()
    return steps(method, 100), steps(probed, 100), classify


def test_the_method_learns_what_it_learns_alone(trained):
    (alone, metrics), (along, more), _ = trained
    chex.assert_trees_all_close(along.params["method"], alone.params, atol=1e-4)
    chex.assert_trees_all_close(along.state, alone.state, atol=1e-4)
    np.testing.assert_allclose(more["loss"], metrics["loss"] + more["probe_loss"], rtol=1e-4)


def test_the_classifier_learns_the_labels_of_the_rows_it_is_given(trained):
    _, (state, metrics), classify = trained
    logits = classify(state.params, state.state, batch()["image"] / np.float32(255))
    assert logits.shape == (N, CLASSES)
    assert (np.argmax(logits, axis=1) == LABELS[batch()["index"]]).all()
    assert metrics["probe_loss"] < 0.5


def test_a_step_on_eight_devices_is_a_step_on_one():
    one = steps(parts()[1], 1)
    many = steps(parts(devices.AXIS)[1], 1, place="shard_map", on=8)
    chex.assert_trees_all_close(many[1], one[1], atol=1e-3, rtol=1e-3)
    # Adam's first step is the sign of the gradient, so its moments are compared instead of the parameters.
    chex.assert_trees_all_close(
        many[0].opt_state[0].mu["probe"], one[0].opt_state[0].mu["probe"], atol=1e-5, rtol=1e-3
    )


def test_batches_without_one_label_an_image_are_refused():
    probed = parts()[1]
    rows = batch()
    params, state = jax.eval_shape(probed.init, jax.random.key(0), rows)
    for label, says in ((None, "got .*'image', 'index'"), (np.zeros((N, 2), int), r"got shape \(16, 2\)")):
        rows.pop("label", None)
        given = rows if label is None else {**rows, "label": label}
        with pytest.raises(ValueError, match=f'one "label" an image.*{says}'):
            jax.eval_shape(probed.loss, params, state, jax.random.key(0), given)


def test_fewer_than_two_classes_are_refused():
    with pytest.raises(ValueError, match="two classes or more; got classes=0"):
        with_probe(parts()[0], classes=0, views=lambda key, batch: ())
