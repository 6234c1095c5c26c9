"""The contract of every method: pure, the same on any number of devices, and better with training."""

import functools
import inspect
import itertools
import math
import sys
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcl import collectives, devices, keys, losses, methods, nets
from jaxcl.extract import last, of_widths
from jaxcl.feature_transform import batch_scores, mixing, mixing_scores
from jaxcl.losses import (
    binary_nce,
    keyless,
    map_nce,
    nt_xent,
    patch_nce,
    queue_nce,
    regression,
)
from jaxcl.methods import (
    Teacher,
    amdim,
    byol,
    cmc,
    cosine_decay,
    cpc,
    distill,
    looc,
    moco,
    simclr,
    simclr_v2,
    simsiam,
    supervised,
    with_probe,
    yadim,
)
from jaxcl.monitor import score_monitor
from jaxcl.testing import assert_shared
from jaxcl.train import init_state, make_step, placement


def as_it_is(views):
    return views


HISTOGRAMS = partial(score_monitor, temperature=0.2, bins=8)


def seen(q, k, negatives, *, own=None, axis_name=None):
    """Two means that hang on all that a page hands to its scores; with all of `score_monitor` every row of the table
    would take long to compile."""
    scores, numbers = q @ negatives.T, jnp.arange(len(negatives))
    if own is not None:
        scores = jnp.where(jnp.any(numbers[None, :, None] == own[:, None, :], axis=2), 0, scores)
    means = {"positive_mean": jnp.mean(jnp.sum(q * k, axis=1)), "negative_mean": jnp.mean(scores)}
    return collectives.mean(means, axis_name)


def noisy(count):
    """Views that compile in no time: the image with waves of its own."""

    def views(key, batch):
        def noise(index):
            shape = (count, *batch["image"].shape[1:])
            # A phase and a rate for each image: numbers that are drawn take XLA as long as a small network.
            phase, rate = (jax.random.key_data(key) // (index.astype(jnp.uint32) + 1)) % 1024
            return 0.14 * jnp.sin(phase + rate * jnp.arange(math.prod(shape)).reshape(shape))

        x, drawn = jnp.asarray(batch["image"], jnp.float32) / 255, jax.vmap(noise)(batch["index"])
        return tuple(x + drawn[:, view] for view in range(count))

    return views


def tiny_simclr(axis_name, views=as_it_is, *, temperature=0.2):
    norm = nets.batch_norm(axis_name=axis_name)
    return simclr(
        views=views(noisy(2)),
        encoder=nets.small_convnet(features=(8,), norm=norm),
        head=nets.mlp_head(norm=norm, hidden=(8,), out=8),
        loss=keyless(nt_xent, temperature=temperature),
        scores=seen,
        axis_name=axis_name,
    )


def moco_parts(axis_name, decay):
    # Eight groups, on one device or on eight: with fewer than the global batch, shuffling matters.
    norm = nets.batch_norm(axis_name=axis_name, groups=8)
    encoder = nets.small_convnet(features=(8,), norm=norm)
    head = nets.mlp_head(norm=nets.no_norm(), hidden=(8,), out=8)
    return {"encoder": encoder, "head": head, "queue_size": 40, "decay": decay, "axis_name": axis_name}


def tiny_moco(axis_name, views=as_it_is, *, temperature=0.2, decay=0.9, positives=2.0, negatives=1.6):
    """All that may go wrong between devices: two directions, mixed, with scores."""
    return moco(
        views=views(noisy(2)),
        symmetric=True,
        transform=mixing(positives=positives, negatives=negatives, dimension_wise="positives", start=1),
        scores=HISTOGRAMS,
        loss=keyless(queue_nce, temperature=temperature),
        **moco_parts(axis_name, decay),
    )


def tiny_looc_plus_plus(axis_name, views=as_it_is, *, temperature=0.2, decay=0.9):
    norm = nets.batch_norm(axis_name=axis_name, groups=8)
    branch = nets.conv_stage(features=8, norm=norm)
    return looc(
        views=views(noisy(3)),
        spaces=2,
        branch=branch,
        temperature=temperature,
        scores=seen,
        **moco_parts(axis_name, decay),
    )


def tiny_looc(axis_name, views=as_it_is, *, temperature=0.2, decay=0.9):
    return looc(
        views=views(noisy(2)),
        spaces=2,
        temperature=temperature,
        scores=seen,
        **moco_parts(axis_name, decay),
    )


def tiny_simclr_v2(axis_name, views=as_it_is, *, temperature=0.2, decay=0.9, transform=None):
    norm = nets.batch_norm(axis_name=axis_name)
    return simclr_v2(
        views=views(noisy(2)),
        encoder=nets.small_convnet(features=(8,), norm=norm),
        head=nets.projection_head(layers=2, out=8, norm=norm),
        temperature=temperature,
        queue_size=40,
        decay=decay,
        transform=transform,
        scores=seen,
        axis_name=axis_name,
    )


def probed_simclr(axis_name, views=as_it_is, *, temperature=0.5):
    norm = nets.batch_norm(axis_name=axis_name)
    method = simclr(
        views=views(noisy(2)),
        encoder=nets.small_convnet(features=(8,), norm=norm),
        head=nets.mlp_head(norm=norm, hidden=(), out=8),
        loss=keyless(nt_xent, temperature=temperature),
        scores=seen,
        axis_name=axis_name,
    )
    return with_probe(method, classes=2, views=views(noisy(1)), axis_name=axis_name)[0]


def tiny_byol(axis_name, views=as_it_is, *, start=0.9):
    norm = nets.batch_norm(axis_name=axis_name)
    return byol(
        views=views(noisy(2)),
        encoder=nets.small_convnet(features=(8,), norm=norm),
        projector=nets.mlp_head(norm=norm, hidden=(16,), out=8, bias=False),
        predictor=nets.mlp_head(norm=norm, hidden=(16,), out=8, bias=False),
        loss=keyless(regression),
        decay=cosine_decay(start, steps=60),
        scores=seen,
        axis_name=axis_name,
    )


def tiny_simsiam(axis_name, views=as_it_is):
    norm = nets.batch_norm(axis_name=axis_name)
    return simsiam(
        views=views(noisy(2)),
        encoder=nets.small_convnet(features=(8,), norm=norm),
        projector=nets.mlp_head(norm=norm, hidden=(16,), out=8, bias=False),
        predictor=nets.mlp_head(norm=norm, hidden=(16,), out=8, bias=False),
        loss=keyless(regression),  # twice the negative cosine, and 2: in the units of the other rows
        scores=seen,
        axis_name=axis_name,
    )


def tiny_amdim(axis_name, views=as_it_is, *, clip=20.0, penalty=0.05):
    norm = nets.batch_norm(axis_name=axis_name)
    head = nets.amdim_head(norm=norm, out=8)
    return amdim(
        views=views(noisy(2)),
        encoder=nets.conv_n(features=(8,), dense=16, norm=norm),
        heads=(head, head),
        compare=((0, 1), (1, 1)),
        loss=keyless(map_nce, clip=clip, penalty=penalty),
        extract=of_widths(1, 7),
        scores=seen,
        axis_name=axis_name,
    )


def tiny_yadim(axis_name, views=as_it_is, *, clip=20.0, penalty=0.05):
    norm = nets.batch_norm(axis_name=axis_name)
    return yadim(
        views=views(noisy(2)),
        encoder=nets.small_convnet(features=(8, 8), norm=norm),  # its last map has four positions
        loss=keyless(map_nce, clip=clip, penalty=penalty),
        scores=seen,
        axis_name=axis_name,
    )


def tiny_cmc(
    axis_name, views=as_it_is, *, negatives=32, temperature=0.07, momentum=0.5, epsilon=1e-7, transform=None
):
    norm = nets.batch_norm(axis_name=axis_name)

    def halves(key, batch):
        (x,) = noisy(1)(key, batch)
        return x[..., :1], x[..., 1:]

    return cmc(
        views=views(halves),
        channels=lambda images: (images[..., :1], images[..., 1:]),
        encoders=(nets.small_convnet(features=(8,), norm=norm),) * 2,
        heads=(nets.mlp_head(norm=norm, hidden=(), out=8),) * 2,
        images=256,
        negatives=negatives,
        temperature=temperature,
        momentum=momentum,
        loss=keyless(binary_nce, images=256, epsilon=epsilon),
        transform=transform,
        scores=seen,
        axis_name=axis_name,
    )


def tiny_cpc(axis_name, views=as_it_is, *, scale=1.0, weight=2.0):
    linear = nets.mlp_head(norm=nets.no_norm(), hidden=(), out=8)
    return cpc(
        views=views(noisy(1)),
        encoder=nets.small_convnet(features=(8,), norm=nets.layer_norm()),
        context=nets.masked_context(hidden=8, blocks=2),
        target=linear,
        predictor=linear,
        loss=keyless(patch_nce, scale=scale),
        patch=(8, 4),
        rows=lambda height: {1: weight, 2: 0.5},  # the row next below overlaps; nothing else can be foretold
        scores=seen,
        axis_name=axis_name,
    )


def one_view(axis_name, views):
    norm = nets.batch_norm(axis_name=axis_name)
    return {
        "views": views(noisy(1)),
        "encoder": nets.small_convnet(features=(8, 8), norm=norm),
        "head": nets.projection_head(layers=2, until=1, norm=norm),
        "axis_name": axis_name,
    }


def labelled_parts(axis_name, views):
    return one_view(axis_name, views) | {"classes": 2, "start": 0.01}


def tiny_supervised(axis_name, views=as_it_is, *, smoothing=0.1):
    return supervised(**labelled_parts(axis_name, views), smoothing=smoothing)[0]


def tiny_distill(axis_name, views=as_it_is, *, temperature=0.5, weight=0.7):
    parts = labelled_parts(axis_name, views)
    teacher, classify = supervised(**parts | {"start": 5.0})
    parts |= {"teacher": Teacher(teacher.init, classify), "temperature": temperature, "weight": weight}
    return distill(**parts)[0]


# function, a comma, and in what variant -> (axis_name, what its views go through) -> Method
METHODS = {
    "amdim": tiny_amdim,
    "byol": tiny_byol,
    "cmc": tiny_cmc,
    "cmc, negatives of the batch, mixed": partial(tiny_cmc, negatives="batch", transform=mixing_scores()),
    "cpc": tiny_cpc,
    "distill": tiny_distill,
    "looc": tiny_looc,
    "looc, branches and keys that leave one out": tiny_looc_plus_plus,
    "moco, both directions mixed": tiny_moco,
    "simclr": tiny_simclr,
    "simclr_v2": tiny_simclr_v2,
    "simsiam": tiny_simsiam,
    "supervised": tiny_supervised,
    "simclr_v2, mixed": functools.partial(tiny_simclr_v2, transform=batch_scores),
    "with_probe": probed_simclr,
    "yadim": tiny_yadim,
}


def test_every_exported_method_is_a_row_of_the_table():
    functions = {name: getattr(methods, name) for name in methods.__all__ if name.islower()}
    makers = {
        name for name, f in functions.items() if "Method" in str(inspect.signature(f).return_annotation)
    }
    assert {name.split(",")[0] for name in METHODS} == makers


def batch_of(n=16, size=16):
    images = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    index = np.arange(n, dtype=np.int32)
    return {"image": images, "index": index, "label": index % 2}


@pytest.mark.parametrize("name", ["cmc", "looc", "moco, both directions mixed", "simclr", "simclr_v2"])
def test_the_entropy_is_monitored_at_the_temperature_of_the_loss(name, monkeypatch):
    seen, page = [], sys.modules[f"jaxcl.methods.{name.split(',')[0]}"]
    monitor = page.contrast_monitor

    def watched(*rows, **settings):
        seen.append(settings["temperature"])
        return monitor(*rows, **settings)

    monkeypatch.setattr(page, "contrast_monitor", watched)
    method, batch, key = METHODS[name](None, temperature=0.37), batch_of(), jax.random.key(0)
    jax.eval_shape(lambda: method.loss(*method.init(key, batch), key, batch))
    assert seen == [0.37]


OPTIMIZER = optax.sgd(0.1)


@pytest.fixture(scope="module")
def begun(drawn):
    """name -> a state before the first step, which does not depend on the axis."""

    @functools.cache
    def state(name):
        return drawn(lambda: init_state(jax.random.key(0), METHODS[name](None), OPTIMIZER, batch_of()))

    return state


def numbers_of(make):
    """The numeric settings of a row of the table, with their values."""
    parameters = inspect.signature(make).parameters.items()
    return {name: np.float32(p.default) for name, p in parameters if isinstance(p.default, float)}


@functools.cache
def step_on_one(name):
    """(train, key, batch) -> train, metrics on one device, with the method's numbers traced. On several devices they
    are as the table has them, so that a comparison of the two also says that traced ones give the same."""

    def step(given, key, batch):
        numbers, train = given
        train, metrics = make_step(METHODS[name](None, **numbers), OPTIMIZER)(train, key, batch)
        return (numbers, train), metrics

    mesh = devices.make_mesh(devices=1)
    placed = placement.place(step, "jit", mesh)

    def with_numbers(train, key, batch):
        (_, train), metrics = placed((devices.replicate(numbers_of(METHODS[name]), mesh), train), key, batch)
        return train, metrics

    return with_numbers


def first_step(begun, name, seed):
    """A step on one device: the state after it, and its metrics."""
    mesh = devices.make_mesh(devices=1)
    given = devices.replicate((jax.tree.map(np.array, begun(name)), jax.random.key(seed)), mesh)
    return step_on_one(name)(*given, devices.split(batch_of(), mesh))


def two_steps(begun, name, place, count):
    mesh, axis = devices.make_mesh(devices=count), devices.axis_name(place)
    if count == 1:
        step = step_on_one(name)
    else:
        step = placement.place(make_step(METHODS[name](axis), OPTIMIZER, axis_name=axis), place, mesh)
    state = devices.replicate(jax.tree.map(np.array, begun(name)), mesh)  # a step keeps what it is given
    key = devices.replicate(jax.random.key(1), mesh)
    batch = batch_of() if place == "pmap" else devices.split(batch_of(), mesh)
    for _ in range(2):
        state, metrics = step(state, key, batch)
    return jax.device_get((state.params, state.state, metrics))


def apart(metrics):
    """Histograms, and all other metrics."""
    counts = {name: value for name, value in metrics.items() if "histogram" in name}
    return counts, {name: value for name, value in metrics.items() if name not in counts}


# Under an axis each page speaks to the other devices itself. Under `jit` XLA does so, tried with pages that have
# between them a loss of pairs, of maps, of a queue and of a bank, an average, a probe, and both kinds of statistics.
# pmap is a form of shard_map, tried with losses of each kind (tests/losses/test_devices.py) and every input.
UNDER_JIT = {"cmc", "moco, both directions mixed", "with_probe", "yadim"}


def places():
    """Every method in every placement; where another pair shows as much, the test is slow."""
    for name, place in itertools.product(METHODS, devices.PLACEMENTS):
        quick = place == "shard_map" or (place == "jit" and name in UNDER_JIT)
        yield pytest.param(name, place, marks=() if quick else pytest.mark.slow)


@functools.cache
def on_one_device(begun, name):
    return two_steps(begun, name, "jit", 1)


@pytest.mark.parametrize(("name", "place"), list(places()))
def test_two_steps_on_eight_devices_are_two_steps_on_one_whose_numbers_are_traced(begun, name, place):
    (*here, metrics), (*there, true_metrics) = two_steps(begun, name, place, 8), on_one_device(begun, name)
    counts, others = apart(metrics)
    true_counts, true_others = apart(true_metrics)
    # ReLUs and batch statistics of 32 rows magnify rounding; a wrong gradient is off by whole factors.
    chex.assert_trees_all_close((here, others), (there, true_others), atol=2e-4, rtol=2e-3)
    # A score that lies on the border of two bins may be counted in either.
    chex.assert_trees_all_close(counts, true_counts, atol=1e-2)


def assert_work_is_shared(name, placements):
    """A whole step, compiled for 64 images and read. What is not shared is small beside them: the optimizer, the moving
    averages, the queue and the bank."""
    tx, batch = optax.sgd(0.1, momentum=0.9), batch_of(64)
    key = jax.eval_shape(lambda: jax.random.key(1))
    state = jax.eval_shape(lambda key: init_state(key, METHODS[name](None), tx, batch), key)

    def make(axis_name):
        return make_step(METHODS[name](axis_name), tx, axis_name=axis_name)

    assert_shared(make, state, key, batch, placements=placements)


def test_under_jit_a_device_does_its_share_of_a_step():
    assert_work_is_shared("yadim", ["jit"])


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_device_does_its_share_of_every_method(name):
    assert_work_is_shared(name, devices.PLACEMENTS)


AXIS = "devices"


def is_given_a_loss(name):
    """Whether a method's loss does not stand on its own page: it is an argument, or that of the method it is given."""
    return {"loss", "method"} & {*inspect.signature(getattr(methods, name.split(",")[0])).parameters}


@pytest.mark.parametrize("name", filter(is_given_a_loss, METHODS))
def test_a_page_hands_its_axis_to_its_loss_and_its_scores(begun, name, monkeypatch):
    """Nothing that a config wrote names the axis, so the loss can only have it from the page."""
    _, params, _, state = begun(name)
    given = {"loss": [], "scores": []}

    def recording(part, function):
        def recorded(*arrays, axis_name=None, **settings):
            given[part].append(axis_name)
            return function(*arrays, axis_name=axis_name, **settings)

        return recorded

    def recorded_keyless(function, **settings):
        return losses.keyless(recording("loss", function), **settings)

    monkeypatch.setitem(globals(), "keyless", recorded_keyless)
    for scores in ("seen", "HISTOGRAMS"):
        monkeypatch.setitem(globals(), scores, recording("scores", globals()[scores]))
    # One device is enough to see who is given it.
    loss = jax.vmap(METHODS[name](AXIS).loss, in_axes=(None, None, None, 0), axis_name=AXIS)
    jax.eval_shape(loss, params, state, jax.random.key(1), jax.tree.map(lambda x: x[None], batch_of()))
    assert set(given["loss"]) == set(given["scores"]) == {AXIS}


@pytest.mark.parametrize("name", METHODS)
def test_views_are_given_the_same_key_of_a_step_whatever_the_method(begun, name):
    given = []

    def recorded(views):
        def record(key, batch):
            given.append(jax.random.key_data(key))
            return views(key, batch)

        return record

    (_, params, _, state), method = begun(name), METHODS[name](None, recorded)

    @jax.jit  # of which only the keys are computed
    def of_step(key):
        method.loss(params, state, key, batch_of())
        return list(given)

    key = keys.step_key(keys.run_key(0), 3)
    got, *of_probe = of_step(key)
    np.testing.assert_array_equal(got, jax.random.key_data(keys.views_key(key)))
    # What is trained along draws apart from the method, which then learns what it learns alone.
    assert len(of_probe) == (name == "with_probe")
    for own in of_probe:
        np.testing.assert_array_equal(own, jax.random.key_data(keys.probe_key(key)))


@pytest.mark.parametrize("name", METHODS)
def test_loss_does_not_change_what_it_was_given_and_repeats_itself(begun, name):
    """As the first step shows it, which every placement is compared with as well."""

    def loss(seed):
        train, metrics = first_step(begun, name, seed)
        return metrics["loss"], train.state, metrics

    (one, new_state, metrics), (two, *_), (other, *_) = loss(1), loss(1), loss(2)
    assert one == two != other
    chex.assert_shape(one, ())
    chex.assert_type(one, jnp.float32)
    # What comes back can be given again: the same tree, shapes and types, so the step compiles once.
    chex.assert_trees_all_equal_shapes_and_dtypes(new_state, begun(name).state)
    assert all(jnp.all(jnp.isfinite(value)) and value.ndim <= 1 for value in metrics.values())
    if "positive_mean" not in metrics:  # it learns from labels, or from a teacher
        assert 0 <= metrics.get("accuracy", metrics.get("teacher_agreement")) <= 1
        return
    assert -1.001 <= metrics["positive_mean"] <= 1.001
    histograms, _ = apart(metrics)
    np.testing.assert_allclose([counts.sum() for counts in histograms.values()], 1, rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_numeric_settings_may_be_traced(begun, name):
    """A population of runs maps a step over its settings, so nothing may ask for their values. (What traced ones give
    is compared with the numbers themselves by `step_on_one`.)"""
    _, params, _, state = begun(name)

    def first(numbers):
        value, (new_state, _) = METHODS[name](None, **numbers).loss(
            params, state, jax.random.key(1), batch_of()
        )
        return value, new_state

    value, new_state = jax.eval_shape(first, numbers_of(METHODS[name]))
    chex.assert_shape(value, ())
    chex.assert_trees_all_equal_shapes_and_dtypes(new_state, state)


@pytest.mark.parametrize("name", METHODS)
def test_embed_gives_a_row_an_image_whatever_else_is_in_the_batch(begun, name):
    _, params, _, state = begun(name)
    images = np.asarray(batch_of()["image"] / 255.0, np.float32)
    embed = jax.jit(METHODS[name](None).embed)
    whole = embed(params, state, images)
    chex.assert_shape(whole, (len(images), None))
    chex.assert_type(whole, jnp.float32)
    # Two of them, in another place among others.
    beside = np.concatenate([np.flip(images[5:]) ** 2, images[3:5], images[:3]])
    chex.assert_trees_all_close(embed(params, state, beside)[-5:-3], whole[3:5], atol=1e-5)
    of_two = jax.eval_shape(embed, params, state, images[3:5])
    assert (of_two.shape, of_two.dtype) == ((2, whole.shape[1]), jnp.float32)


def trained_on_patches(method, step=None, *, tx=None, rows=64, steps=120):
    """The metrics of every step on images of patches of color: new ones at every step for four steps, so that no image
    meets its own key in a queue of 40. `step`: what was compiled already, of `rows` images by `tx`."""
    patches = np.random.default_rng(0).integers(0, 256, (4 * rows, 4, 4, 3))
    images = np.kron(patches, np.ones((1, 4, 4, 1))).astype(np.uint8)
    tx = tx or optax.adam(1e-2)
    batches = [
        {"image": images[some], "index": some, "label": some % 2}
        for some in np.split(np.arange(4 * rows, dtype=np.int32), 4)
    ]
    state = init_state(jax.random.key(0), method, tx, batches[0])
    step = step or jax.jit(make_step(method, tx))
    each = []
    for number in range(steps):
        state, metrics = step(state, jax.random.key(1), batches[number % 4])
        each.append(metrics)
    return jax.device_get(each)


# A student's loss can fall no lower than its teacher's doubts, which a random teacher has many of: see below.
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if name != "distill"])
def test_training_lowers_the_loss_on_images_of_patches_of_color(name):
    assert_loss_falls(trained_on_patches(METHODS[name](None)))


def test_training_lowers_the_loss_of_a_method_and_of_the_classifier_along():
    name = "with_probe"
    assert_loss_falls(trained_on_patches(METHODS[name](None), step_on_one(name), tx=OPTIMIZER, rows=16))


def assert_loss_falls(metrics):
    losses = [each["loss"] for each in metrics]
    # The first queue is of random vectors and easy; it is gone after a step.
    assert np.mean(losses[-16:]) < np.mean(losses[4:12]) - 0.4


@pytest.mark.slow
def test_a_student_learns_what_its_teacher_says_of_images_without_labels():
    def red_or_blue(params, state, images):
        red, _, blue = jnp.moveaxis(jnp.mean(images, axis=(1, 2)), 1, 0)
        return 200 * jnp.stack([red, blue], axis=1)

    teacher = Teacher(lambda key, batch: ({}, {}), red_or_blue)
    method, _ = distill(**labelled_parts(None, as_it_is), teacher=teacher)
    metrics = trained_on_patches(method)
    loss, agreed = (np.array([each[name] for each in metrics]) for name in ("loss", "teacher_agreement"))
    assert np.mean(loss[-16:]) < np.mean(loss[4:12]) - 0.4
    assert np.mean(agreed[:4]) < 0.75
    assert np.mean(agreed[-16:]) > 0.9


VECTORS = {
    "simclr": lambda **parts: simclr(loss=keyless(nt_xent), **parts),
    "moco": lambda **parts: moco(loss=keyless(queue_nce), queue_size=8, **parts),
    "looc": lambda **parts: looc(spaces=1, queue_size=8, **parts),
    "byol": lambda head, **parts: byol(projector=head, predictor=head, loss=keyless(regression), **parts),
}


@pytest.mark.parametrize("name", VECTORS)
def test_a_method_of_vectors_says_that_it_needs_one_an_image_and_two_views(name):
    norm = nets.batch_norm()
    parts = {
        "encoder": nets.small_convnet(features=(4, 4), norm=norm),
        "head": nets.mlp_head(norm=norm, hidden=(), out=4),
    }
    with pytest.raises(ValueError, match=rf"{name} needs an `extract` .* got \(an array \[16, 2, 2, 4\],\)"):
        jax.eval_shape(
            VECTORS[name](views=noisy(2), extract=last, **parts).init, jax.random.key(0), batch_of()
        )
    method = VECTORS[name](views=noisy(1 if name == "simclr" else 3), **parts)  # simclr takes more than two
    begun = jax.eval_shape(method.init, jax.random.key(0), batch_of())
    with pytest.raises(ValueError, match="2 views of an image|one key view for all"):
        jax.eval_shape(method.loss, *begun, jax.random.key(1), batch_of())
