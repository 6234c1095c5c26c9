"""Truths: the published updates as float64 loops in plain Python, and optax's own schedule."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcl import nets
from jaxcl.train import optim

STEPS, WARMUP = 20, 4

SHAPES = {
    "conv": {"kernel": (3, 3, 2, 4), "bias": (4,)},
    "norm": {"scale": (4,), "offset": (4,)},
    "map_norm": {"scale": (2, 2, 3), "bias": (2, 2, 3)},  # PyTorch's LayerNorm of a map: a scale an entry
    "dense": (5, 3),
}


def some_params(rng):
    params = jax.tree.map(lambda s: rng.normal(size=s), SHAPES, is_leaf=lambda s: isinstance(s, tuple))
    params["zero"] = np.zeros((2, 3))  # |w| = 0: trust must be 1
    params["still"] = rng.normal(size=(2, 3))  # its gradient is 0
    return params


def some_grads(rng, params):
    grads = jax.tree.map(lambda w: rng.normal(size=w.shape), params)
    grads["still"] = np.zeros((2, 3))
    return grads


def rate_of(step):
    return 0.7 * (
        step / WARMUP if step < WARMUP else 0.5 + 0.5 * np.cos(np.pi * (step - WARMUP) / (STEPS - WARMUP))
    )


def by_hand(w, grads, *, decay, adapt, momentum=0.9, nesterov=False, inside=True, eta=0.001):
    """The update of one parameter array, in float64."""
    v = np.zeros_like(w)
    for step, g in enumerate(grads):
        rate = rate_of(step)
        g = g + decay * w
        norms = np.sqrt((w**2).sum()), np.sqrt((g**2).sum())
        trust = eta * norms[0] / norms[1] if adapt and min(norms) > 0 else 1.0
        term = (rate if inside else 1.0) * trust * g
        v = momentum * v + term
        direction = momentum * v + term if nesterov else v
        w = w - (1.0 if inside else rate) * direction
    return w


def run(tx, params, grads):
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    state = tx.init(params)

    @jax.jit
    def update(params, state, g):
        updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state

    for g in grads:
        params, state = update(params, state, jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), g))
    return params


def assert_follows(tx, expected, *, seed=0):
    """expected(w, its gradients, excluded) -> w after all steps, for every array of the tree."""
    rng = np.random.default_rng(seed)
    params = some_params(rng)
    grads = [some_grads(rng, params) for _ in range(STEPS)]
    got = run(tx, params, grads)
    for i, (path, w) in enumerate(jax.tree_util.tree_leaves_with_path(params)):
        excluded = w.ndim <= 1 or getattr(path[-1], "key", "") in ("scale", "bias")
        want = expected(w, [jax.tree.leaves(g)[i] for g in grads], excluded)
        np.testing.assert_allclose(jax.tree.leaves(got)[i], want, rtol=2e-5, atol=2e-6, err_msg=str(path))


SCHEDULE = optim.warmup_cosine(0.7, steps=STEPS, warmup_steps=WARMUP)


@pytest.mark.parametrize("inside", [True, False], ids=["simclr", "byol"])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lars_is_the_published_update(inside, nesterov, decay):
    tx = optim.lars(
        SCHEDULE, weight_decay=decay, nesterov=nesterov, momentum_includes_lr=inside, trust_coefficient=0.02
    )
    loop = partial(by_hand, nesterov=nesterov, inside=inside, eta=0.02)
    assert_follows(tx, lambda w, g, out: loop(w, g, decay=0.0 if out else decay, adapt=not out))


def test_where_the_rate_sits_matters_once_it_changes():
    rng = np.random.default_rng(1)
    params = some_params(rng)
    grads = [some_grads(rng, params) for _ in range(STEPS)]
    simclr, byol = (
        run(optim.lars(SCHEDULE, momentum_includes_lr=inside), params, grads)["norm"]["scale"]
        for inside in (True, False)
    )
    assert float(jnp.max(jnp.abs(simclr - byol))) > 0.05


def test_lars_moves_a_weight_that_is_zero():
    tx = optim.lars(0.1)
    w = jnp.zeros((2, 2))
    updates, _ = tx.update(jnp.ones((2, 2)), tx.init(w), w)
    np.testing.assert_allclose(updates, -0.1)


def test_a_clipped_step_is_at_most_the_rate_times_the_gradient():
    """solo-learn's lars.py, clip_lars_lr: the trust ratio over the rate, at most 1; then momentum, then the rate."""
    w = jnp.array([[3.0, 4.0]])  # of norm 5
    grads = [jnp.array([[0.0, size]]) for size in (0.01, 2.0, 0.0)]

    def first(rate, clip, g):
        tx = optim.lars(rate, trust_coefficient=0.02, clip=clip, momentum_includes_lr=False)
        return np.asarray(tx.update(g, tx.init(w), w)[0][0])

    rows = [
        (True, grads[0], -0.005),  # trust 10, so at most the rate
        (True, grads[1], -0.1),  # trust 0.05, whatever the rate
        (False, grads[0], -0.05),  # trust 0.1 / 0.01, times the rate
        (False, grads[1], -0.05),
    ]
    for clip, g, step in rows:
        np.testing.assert_allclose(first(0.5, clip, g), [0, step], rtol=1e-6)
    assert (first(0.5, True, grads[2]) == 0).all()
    zero, large = jnp.zeros((1, 1)), optim.lars(2.0, trust_coefficient=0.02, clip=True)
    assert float(large.update(jnp.ones((1, 1)), large.init(zero), zero)[0][0, 0]) == -2  # it is not scaled
    assert (first(lambda step: 0.0 * step, True, grads[1]) == 0).all()  # the first step of a warm-up

    # Three steps of a schedule, written out; a bias is neither adapted nor clipped.
    rates = [0.0, 0.5, 0.2]
    tx = optim.lars(
        lambda step: jnp.asarray(rates)[step], trust_coefficient=0.02, clip=True, momentum_includes_lr=False
    )
    params = {"kernel": w, "bias": jnp.ones(2)}
    state, v, plain = tx.init(params), np.zeros((1, 2)), np.zeros(2)
    for rate, g in zip(rates, [grads[0], grads[1], grads[1]], strict=True):
        kernel = np.asarray(params["kernel"], np.float64)
        ratio = 0.02 * np.linalg.norm(kernel) / np.linalg.norm(g)
        v = 0.9 * v + (min(ratio / rate, 1) if rate else 1) * np.asarray(g)
        plain = 0.9 * plain + np.asarray(g)[0]
        updates, state = jax.jit(tx.update)({"kernel": g, "bias": g[0]}, state, params)
        np.testing.assert_allclose(updates["kernel"], -rate * v, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(updates["bias"], -rate * plain, rtol=1e-5, atol=1e-9)
        params = jax.tree.map(jnp.add, params, updates)


def test_exclude_is_asked_by_path():
    asked = {}

    def exclude(path, parameter):
        asked[path] = np.shape(parameter)
        return path.startswith("head_supervised")

    tx = optim.lars(1.0, exclude=exclude, momentum=0.0)
    w = {"head_supervised": [{"kernel": jnp.ones((2, 2))}], "encoder": jnp.ones((2, 2))}
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, w), tx.init(w), w)
    np.testing.assert_allclose(updates["head_supervised"][0]["kernel"], -1.0)
    np.testing.assert_allclose(updates["encoder"], -0.001, rtol=1e-6)
    assert asked == {"head_supervised/0/kernel": (2, 2), "encoder": (2, 2)}


NETS = {
    "resnet": nets.resnet(18, stem="cifar", width=1, norm=nets.batch_norm()),
    "map norms": nets.cpc_resnet(blocks=(1, 1, 1, 1), features=2),
    "layer norms": nets.small_convnet(features=(4, 4), norm=nets.layer_norm()),
    "no norms": nets.small_convnet(features=(4, 4), norm=nets.no_norm()),
    "amdim": nets.amdim(features=4, depth=1, norm=nets.map_norm()),
    "context": nets.masked_context(hidden=4, blocks=1),
}


@pytest.mark.parametrize("name", NETS)
def test_of_every_network_kernels_alone_are_decayed_and_adapted(name):
    shape = (2, 8, 8, 4) if name == "context" else (2, 32, 32, 3)
    params, _ = jax.eval_shape(NETS[name].init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    for path, parameter in jax.tree_util.tree_leaves_with_path(params):
        path = jax.tree_util.keystr(path, simple=True, separator="/")
        assert optim.is_bias_or_norm(path, parameter) == (not path.endswith("kernel")), path


@pytest.mark.parametrize("decay_all", [True, False])
def test_sgd_keeps_the_rate_outside_and_decays_what_it_says(decay_all):
    tx = optim.sgd(SCHEDULE, weight_decay=0.1, decay_all=decay_all)
    assert_follows(
        tx,
        lambda w, g, out: by_hand(
            w, g, decay=0.1 if decay_all or not out else 0.0, adapt=False, inside=False
        ),
    )


def test_sgd_is_torch_sgd():
    torch = pytest.importorskip("torch", reason="compares with torch.optim.SGD")
    rng = np.random.default_rng(2)
    w, grads = rng.normal(size=(3, 4)), [rng.normal(size=(3, 4)) for _ in range(STEPS)]
    theirs = torch.nn.Parameter(torch.tensor(w, dtype=torch.float32))
    optimiser = torch.optim.SGD([theirs], lr=1.0, momentum=0.9, weight_decay=0.01, nesterov=True)
    for step, g in enumerate(grads):
        optimiser.param_groups[0]["lr"] = rate_of(step)
        theirs.grad = torch.tensor(g, dtype=torch.float32)
        optimiser.step()
    ours = run(optim.sgd(SCHEDULE, momentum=0.9, weight_decay=0.01, nesterov=True), w, grads)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_adamw_is_adam_with_decay_beside_it():
    def loop(w, grads, decay):
        m = s = np.zeros_like(w)
        for t, g in enumerate(grads, start=1):
            m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g**2
            w = w - 0.01 * (m / (1 - 0.9**t) / (np.sqrt(s / (1 - 0.999**t)) + 1e-8) + decay * w)
        return w

    tx = optim.adamw(0.01, weight_decay=0.3)
    assert_follows(tx, lambda w, g, out: loop(w, g, 0.0 if out else 0.3))


def test_adam_has_its_decay_in_the_gradient_of_every_parameter():
    def loop(w, grads):
        m = s = np.zeros_like(w)
        for t, g in enumerate(grads, start=1):
            g = g + 0.3 * w
            m, s = 0.8 * m + 0.2 * g, 0.999 * s + 0.001 * g**2
            w = w - 0.01 * m / (1 - 0.8**t) / (np.sqrt(s / (1 - 0.999**t)) + 1e-7)
        return w

    tx = optim.adam(0.01, b1=0.8, eps=1e-7, weight_decay=0.3)
    assert_follows(tx, lambda w, g, out: loop(w, g))


def test_a_rate_that_falls_is_that_of_amdim():
    """Its code sets (updates + 1) / 500 of the rate for 500 updates, and a fifth of it at each milestone."""
    rate = optim.falling(2e-4, at=(2500, 2800), factor=0.2, warmup_steps=500)
    for step in (0, 1, 250, 498, 499, 500, 2499, 2500, 2799, 2800, 5000):
        expected = 2e-4 * min(1.0, (step + 1) / 500) * 0.2 ** ((step >= 2500) + (step >= 2800))
        assert float(jax.jit(rate)(step)) == pytest.approx(expected, rel=1e-6)
    assert float(optim.falling(0.3, at=())(7)) == pytest.approx(0.3)


@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_a_warm_up_may_be_traced(warmup):
    """By hand, of a peak of 2 and a warm-up of 4: 3 / 4 of it at step 3, and at step 2 of `falling`."""
    cosine = partial(optim.warmup_cosine, 2.0, steps=9)
    falls = partial(optim.falling, 2.0, at=(6,), factor=0.5)
    for make in (cosine, falls):
        traced = jax.jit(lambda warmup, make=make: [make(warmup_steps=warmup)(step) for step in range(9)])
        rates = [float(make(warmup_steps=warmup)(step)) for step in range(9)]
        np.testing.assert_allclose(traced(warmup), rates, rtol=1e-6, atol=1e-7)
    assert float(jax.jit(lambda warmup: cosine(warmup_steps=warmup)(3))(4)) == 1.5
    assert float(jax.jit(lambda warmup: falls(warmup_steps=warmup)(2))(4)) == 1.5
    assert float(jax.jit(lambda warmup: falls(warmup_steps=warmup)(6))(4)) == 1.0


def test_float64_stays_float64():
    with jax.enable_x64(True):
        w = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
        for tx in (
            optim.lars(SCHEDULE, weight_decay=0.1),
            optim.sgd(SCHEDULE, weight_decay=0.1),
            optim.adamw(SCHEDULE),
        ):
            updates = jax.jit(lambda w, tx=tx: tx.update(w, tx.init(w), w)[0])(w)
            assert {x.dtype.name for x in jax.tree.leaves(updates)} == {"float64"}


def test_the_schedule_starts_at_exactly_zero_peaks_and_ends_at_zero():
    rate = optim.warmup_cosine(0.6, steps=100, warmup_steps=10)
    values = np.asarray(jax.jit(jax.vmap(rate))(np.arange(130)))
    assert values[0] == 0.0
    assert values[10] == np.float32(0.6) == values.max()
    assert (np.diff(values[:11]) > 0).all()
    assert (np.diff(values[10:101]) < 0).all()
    assert (values[100:] == 0.0).all()


@pytest.mark.parametrize(("steps", "warmup"), [(50, 7), (977, 9), (3, 1)])
def test_the_schedule_is_optax_warmup_cosine_decay(steps, warmup):
    ours = optim.warmup_cosine(1.3, steps=steps, warmup_steps=warmup)
    theirs = optax.warmup_cosine_decay_schedule(0.0, 1.3, warmup, steps, 0.0)
    found, wanted = jax.jit(jax.vmap(lambda step: (ours(step), theirs(step))))(np.arange(steps + 3))
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_without_warm_up_the_first_step_has_the_peak_rate():
    assert float(optim.warmup_cosine(0.5, steps=10, warmup_steps=0)(0)) == 0.5


def test_a_schedule_asked_once_an_epoch_is_constant_within_it():
    once = optim.warmup_cosine(0.5, steps=12, warmup_steps=0, every=4)
    always = optim.warmup_cosine(0.5, steps=12, warmup_steps=0)
    found, wanted = jax.jit(jax.vmap(lambda step: (once(step), always(step - step % 4))))(np.arange(12))
    np.testing.assert_array_equal(found, wanted)
    with pytest.raises(ValueError, match="every=0"):
        optim.warmup_cosine(0.5, steps=12, warmup_steps=0, every=0)


@pytest.mark.parametrize(("steps", "warmup"), [(10, 10), (10, 11), (0, 0), (10, -1)])
def test_a_warm_up_that_does_not_fit_is_refused(steps, warmup):
    with pytest.raises(ValueError, match="0 <= warmup_steps < steps"):
        optim.warmup_cosine(0.5, steps=steps, warmup_steps=warmup)


def test_the_two_scaling_rules_meet_where_the_paper_says():
    linear, root = (
        optim.scaled_learning_rate(b, 4096, rule=r) for b, r in ((0.3, "linear"), (0.075, "sqrt"))
    )
    assert linear == pytest.approx(4.8) == root
    assert optim.scaled_learning_rate(0.1, 4096, rule="none") == 0.1
    with pytest.raises(ValueError, match="rule must be"):
        optim.scaled_learning_rate(0.1, 256, rule="cubic")


@pytest.mark.parametrize(
    "make", [optim.lars, optim.sgd, optim.adam, optim.adamw], ids=lambda make: make.__name__
)
def test_settings_may_be_traced(make):
    rng = np.random.default_rng(3)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), some_params(rng))
    grads = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), some_grads(rng, params))

    def updated(base, weight_decay):
        peak = optim.scaled_learning_rate(base, 512)
        tx = make(optim.warmup_cosine(peak, steps=9, warmup_steps=0), weight_decay=weight_decay)
        return tx.update(grads, tx.init(params), params)[0]

    concrete = jax.jit(lambda: updated(0.3, 0.1))()
    chex.assert_trees_all_close(jax.jit(updated)(0.3, 0.1), concrete, rtol=1e-6, atol=1e-9)
    # A population: one row a member.
    many = jax.jit(jax.vmap(updated))(jnp.array([0.3, 0.2]), jnp.array([0.1, 0.0]))
    chex.assert_trees_all_close(jax.tree.map(lambda x: x[0], many), concrete, rtol=1e-6, atol=1e-9)


def test_simclrs_classifier_is_decayed_and_not_adapted():
    """model_util.py: the exclusions of LARS hold "head_supervised", whose kernel has weight_decay / 2 |w|^2 in the loss
    (add_weight_decay); its bias has neither."""
    params = {name: {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.ones(2)} for name in ("encoder", "probe")}
    grads = jax.tree.map(jnp.ones_like, params)
    tx = optim.lars(
        0.1, weight_decay=0.5, exclude=optim.is_norm_or_probe, undecayed=optim.is_bias_or_norm, momentum=0.0
    )
    updates, _ = tx.update(grads, tx.init(params), params)
    trust = 0.001 * 4 / 4  # |w| = 4 and |g + 0.5 w| = 4
    np.testing.assert_allclose(updates["encoder"]["kernel"], -0.1 * trust * 2, rtol=1e-6)
    np.testing.assert_allclose(updates["probe"]["kernel"], -0.1 * 2, rtol=1e-6)
    for name in params:
        np.testing.assert_allclose(updates[name]["bias"], -0.1, rtol=1e-6)


def test_an_only_epoch_that_is_counted_from_one_has_a_rate():
    one, two = (
        optim.warmup_cosine(0.06, steps=n, warmup_steps=0, every=97, counted_from=1) for n in (97, 194)
    )
    assert [round(float(one(step)), 6) for step in (0, 96)] == [0.06, 0.06]
    assert [round(float(two(step)), 6) for step in (0, 96, 97, 193)] == [0.03, 0.03, 0.0, 0.0]
