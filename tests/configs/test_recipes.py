"""What the configs of published runs make of their knobs, beside the authors' rules written out by hand: updates,
schedules, losses, heads, views, and the commands in docstrings that are a published run."""

import ast
import dataclasses
import re
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import About, augment
from jaxcl.augment.color import JITTERS
from jaxcl.cli.words import knobs_of
from jaxcl.config import load_config
from jaxcl.feature_transform import mixing
from jaxcl.five_parts import described, settings_of
from jaxcl.losses import binary_nce, info_nce, temperature_of

CONFIGS = Path(__file__).parents[2] / "configs"
CIFAR, STL = About(50_000, (32, 32, 3), ()), About(100_000, (64, 64, 3), ())
IMAGENET = About(1_281_167, (224, 224, 3), tuple(map(str, range(1000))))
IMAGENET100 = About(126_689, (224, 224, 3), tuple(map(str, range(100))))


@cache
def docstring_of(name):
    """In one line, with one blank between two words."""
    return " ".join(ast.get_docstring(ast.parse((CONFIGS / f"{name}.py").read_text())).split())


def words_of(name, first, last):
    """The words of a command in a config's docstring, from one to another."""
    return re.search(rf"{re.escape(first)}.*?{re.escape(last)}", docstring_of(name)).group(0).split()


README = words_of("simclr_cifar10", "--details simclr", "--dtype float32")


def made(name, about, words="", **changes):
    """The recipe of a config as these words of a command line, or a list of them, set its knobs."""
    words = words.split() if isinstance(words, str) else words
    knobs = knobs_of("train", CONFIGS / f"{name}.py", words)
    return load_config(CONFIGS / f"{name}.py").recipe(dataclasses.replace(knobs, **changes), about)


# Of every parameter in float64: (weight, gradients, rates of the steps) -> the change of each step.
def sgd(w, grads, rates, *, decay, momentum=0.9):
    """torch.optim.SGD, with which MoCo, feature transformation and CMC are trained: all parameters are decayed."""
    v = 0.0
    for g, rate in zip(grads, rates, strict=True):
        v = momentum * v + g + decay * w
        yield -rate * v
        w = w - rate * v


def adam(w, grads, rates, *, decay, eps, betas=(0.8, 0.999)):
    """torch.optim.Adam, with its decay in the gradient of every parameter."""
    m = s = 0.0
    for t, (g, rate) in enumerate(zip(grads, rates, strict=True), 1):
        g = g + decay * w
        m, s = betas[0] * m + (1 - betas[0]) * g, betas[1] * s + (1 - betas[1]) * g**2
        change = -rate * m / (1 - betas[0] ** t) / (np.sqrt(s / (1 - betas[1] ** t)) + eps)
        yield change
        w = w + change


def lars(w, grads, rates, *, decay, adapted, inside=True, eta=0.001):
    """lars_optimizer.py of SimCLR, where the rate is part of the buffer; of BYOL, where it is not."""
    v = 0.0
    for g, rate in zip(grads, rates, strict=True):
        g = g + decay * w
        trust = eta * np.linalg.norm(w) / np.linalg.norm(g) if adapted else 1.0
        v = 0.9 * v + (rate if inside else 1.0) * trust * g
        change = -v if inside else -rate * v
        yield change
        w = w + change


def lars_of_kernels(decay, **more):
    """Neither scales nor biases are adapted or decayed; a classifier beside the encoder is decayed in the loss."""

    def of(path, w, grads, rates):
        kernel = path.endswith("kernel")
        adapted = kernel and not path.startswith("probe")
        return lars(w, grads, rates, decay=decay if kernel else 0.0, adapted=adapted, **more)

    return of


def of_all(rule, **settings):
    return lambda path, w, grads, rates: rule(w, grads, rates, **settings)


STEPS = 3
# The rate of the first steps, the rule: main_moco.py and the demo on CIFAR-10 (whose epochs count from 1); feature
# transformation's base_trainer.py (also from 1, down to a thousandth); LooC as MoCo v2; train_CMC.py; SimCLR's B.6 and
# 2.3, SimCLRv2's section 3 and the README of both; BYOL's code; task_self_supervised.py of AMDIM; Bolts.
UPDATES = {
    "moco_imagenet": (IMAGENET, "", lambda t: 0.03, of_all(sgd, decay=1e-4)),
    "moco_imagenet, v1": (IMAGENET, "--version v1", lambda t: 0.03, of_all(sgd, decay=1e-4)),
    "moco_cifar10": (CIFAR, "", lambda t: 0.03 * (1 + np.cos(np.pi / 200)), of_all(sgd, decay=5e-4)),
    "moco_imagenet100": (
        IMAGENET100,
        "--preset v1_ft",
        lambda t: 3e-5 + (0.03 - 3e-5) * (1 + np.cos(np.pi / 200)) / 2,
        of_all(sgd, decay=1e-4),
    ),
    "looc": (IMAGENET100, "--preset looc", lambda t: 0.03, of_all(sgd, decay=1e-4)),
    "cmc": (IMAGENET, "--preset imagenet", lambda t: 0.03, of_all(sgd, decay=1e-4)),
    "simclr_imagenet": (IMAGENET, "", lambda t: 4.8 * t / 3127, lars_of_kernels(1e-6)),
    "simclr_cifar10": (CIFAR, README, lambda t: 2.0 * t / 976, lars_of_kernels(1e-4)),
    "simclr_v2": (IMAGENET, "", lambda t: 6.4 * t / 12511, lars_of_kernels(1e-4)),
    "byol": (
        IMAGENET,
        "--preset imagenet",
        lambda t: 3.2 * t / 3127,
        lars_of_kernels(1.5e-6, inside=False),
    ),
    "amdim": (
        IMAGENET,
        "--preset imagenet",
        lambda t: 2e-4 * (t + 1) / 500,
        of_all(adam, decay=1e-5, eps=1e-8),
    ),
    "cpc": (CIFAR, "--preset cifar10", lambda t: 4e-5, of_all(adam, decay=1e-5, eps=1e-7)),
    "yadim": (CIFAR, "--preset cifar10", lambda t: 2e-4, of_all(adam, decay=1e-5, eps=1e-7)),
}


def check_update(recipe, rate, rule, classifier=False):
    """The optimizer changes parameters of each kind in its first steps as the rule does."""
    rng = np.random.default_rng(0)
    shapes = {"encoder/kernel": (3, 4), "encoder/scale": (4,), "head/kernel": (4, 2), "head/bias": (2,)}
    shapes |= {"probe/kernel": (4, 5)} if classifier else {}
    weights = {path: rng.normal(size=shape) for path, shape in shapes.items()}
    # So small that the decay counts beside them, and of what is not decayed yet, as it is 0, Adam's eps.
    grads = {path: 1e-5 * rng.normal(size=(STEPS, *shape)) for path, shape in shapes.items()}
    weights["head/bias"], grads["head/bias"] = np.zeros(2), grads["head/bias"] / 100

    @jax.jit
    def changes(params, grads):
        state, found = recipe.optimizer.init(params), []
        for t in range(STEPS):
            change, state = recipe.optimizer.update(jax.tree.map(lambda g, t=t: g[t], grads), state, params)
            params = jax.tree.map(jnp.add, params, change)
            found.append(change)
        return found

    found = changes(nested(weights), nested(grads))
    rates = [rate(t) for t in range(STEPS)]
    for path, w in weights.items():
        room, name = path.split("/")
        for t, change in enumerate(rule(path, w, grads[path], rates)):
            np.testing.assert_allclose(found[t][room][name], change, rtol=5e-4, atol=1e-13, err_msg=path)


def nested(flat):
    rooms = {path.split("/")[0]: {} for path in flat}
    for path, array in flat.items():
        room, name = path.split("/")
        rooms[room][name] = jnp.asarray(array, jnp.float32)
    return rooms


@pytest.mark.parametrize("row", UPDATES)
def test_the_first_updates_of_a_recipe_are_the_published_rule(row):
    about, words, rate, rule = UPDATES[row]
    check_update(made(row.split(",")[0], about, words), rate, rule)


# By how much the rate falls, and after which epochs (of how many): main_moco.py (also where features are mixed), LooC's
# section 4, train_CMC.py, task_self_supervised.py of AMDIM (for datasets of small images, for ImageNet, and its comment
# on the best runs, whose batch is not told: 480 is that of its README's command for the smaller network).
FALLS = {
    "moco_imagenet --version v1": (IMAGENET, 0.1, (120, 160), 200, 256),
    "moco_imagenet --version v1 --mix both": (IMAGENET, 0.1, (120, 160), 200, 256),
    "looc --preset looc": (IMAGENET100, 0.1, (300, 400), 500, 256),
    "looc --preset looc_plus_plus": (IMAGENET100, 0.1, (300, 400), 500, 256),
    "cmc --preset imagenet": (IMAGENET, 0.1, (120, 160, 200), 240, 128),
    "cmc --preset stl10": (STL, 0.1, (120, 160, 200), 240, 128),
    "amdim --preset cifar10": (CIFAR, 0.2, (250, 280), 300, 480),
    "amdim --preset stl10": (STL, 0.2, (250, 280), 300, 200),
    "amdim --preset imagenet": (IMAGENET, 0.2, (30, 45), 50, 480),
    "amdim --preset imagenet_large": (IMAGENET, 0.2, (60, 90), 100, 480),
}


@pytest.mark.parametrize("row", FALLS)
def test_a_rate_falls_after_the_published_epochs(row):
    about, factor, falls, epochs, batch_size = FALLS[row]
    name, *words = row.split()
    recipe, per_epoch = made(name, about, words), about.count // batch_size
    assert (recipe.batch_size, recipe.steps) == (batch_size, epochs * per_epoch)
    peak = {"amdim": 2e-4}.get(name, 0.03)
    for fallen, epoch in enumerate((*falls, epochs)):
        last = recipe.learning_rate(jnp.int32(epoch * per_epoch - 1))
        np.testing.assert_allclose(last, peak * factor**fallen, rtol=1e-5)
        if epoch < epochs:
            first = recipe.learning_rate(jnp.int32(epoch * per_epoch))
            np.testing.assert_allclose(first, peak * factor ** (fallen + 1), rtol=1e-5)


# The options of moco_imagenet100.py that its neighbour names as the authors' command for the whole of ImageNet.
WHOLE = " ".join(words_of("moco_imagenet", "--preset v1_ft", "--decay 0.999"))


@pytest.mark.parametrize(
    ("words", "about"), [("--preset v1_ft", IMAGENET100), ("--preset v2_ft", IMAGENET100), (WHOLE, IMAGENET)]
)
def test_feature_transformations_cosine_counts_from_one_and_ends_at_a_thousandth(words, about):
    """base_trainer.py: eta_min = rate 0.1^3, and the rate of epoch 1 to 200 is on the cosine between the two."""
    rate, per_epoch = made("moco_imagenet100", about, words).learning_rate, about.count // 256
    for epoch in (1, 2, 100, 200):
        truth = 3e-5 + (0.03 - 3e-5) * (1 + np.cos(np.pi * epoch / 200)) / 2
        for step in ((epoch - 1) * per_epoch, epoch * per_epoch - 1):
            np.testing.assert_allclose(rate(jnp.int32(step)), truth, rtol=1e-4)
    np.testing.assert_allclose(rate(jnp.int32(200 * per_epoch - 1)), 3e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("row", "rate"),
    [
        ("cpc --preset cifar10", 4e-5),
        ("cpc --preset stl10", 1e-4),
        ("cpc --preset imagenet", 4e-5),
        ("yadim --preset cifar10", 2e-4),
        ("yadim --preset stl10", 2e-4),
    ],
)
def test_a_rate_of_falcon_and_cho_stays_as_it_is(row, rate):
    """Bolts has no schedule for CPC, nor for AMDIM, after which YADIM is trained here."""
    name, *words = row.split()
    recipe = made(name, IMAGENET, words)
    for step in (0, recipe.steps // 2, recipe.steps - 1):
        np.testing.assert_allclose(recipe.learning_rate(jnp.int32(step)), rate, rtol=1e-6)


TEMPERATURES = {
    "moco_imagenet": 0.2,
    "moco_imagenet --version v1": 0.07,
    "moco_imagenet100 --preset v1_ft": 0.07,
    "moco_imagenet100 --preset v2_ft": 0.2,
    "moco_cifar10": 0.1,
}


@pytest.mark.parametrize("row", TEMPERATURES)
def test_mocos_loss_is_the_cross_entropy_of_the_own_key_at_the_published_temperature(row):
    rng = np.random.default_rng(0)
    q, k, queue = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(3, 6, 5)))
    name, *words = row.split()
    loss = made(name, CIFAR, words).method.five_parts.loss["loss"]
    truth = 0.0
    for i in range(6):
        scores = np.exp(np.array([q[i] @ k[i], *(queue @ q[i])]) / TEMPERATURES[row])
        truth -= np.log(scores[0] / scores.sum()) / 6
    assert float(jax.jit(loss)(jax.random.key(0), q, k, queue)) == pytest.approx(truth, rel=1e-5)


# What a method is built with, as its authors have it: the queue, the moving average, and (SimCLRv2's memory, in its
# paper alone) the scale of the loss that is its code's.
MEMORIES = {
    "moco_imagenet": (65536, 0.999),
    "moco_imagenet --version v1": (65536, 0.999),
    "moco_imagenet100 --preset v1_ft": (65536, 0.99),
    f"moco_imagenet100 {WHOLE}": (65536, 0.999),
    "moco_cifar10": (4096, 0.99),
    "looc --preset looc": (16384, 0.999),
    "looc --preset looc_plus_plus": (16384, 0.999),
    "simclr_v2": (65536, 0.999),
}


@pytest.mark.parametrize("row", MEMORIES)
def test_a_method_remembers_as_many_keys_of_as_slow_an_encoder_as_published(row):
    name, *words = row.split()
    parts = made(name, IMAGENET, words).method.five_parts
    assert (parts.loss["queue_size"], parts.encoder["decay"]) == MEMORIES[row]


def test_looc_divides_by_moco_v2s_temperature():
    assert temperature_of(made("looc", IMAGENET100).method.five_parts.loss["loss"]) == 0.2


def test_simclr_v2_has_its_memory_by_default_at_the_temperature_and_scale_of_the_code():
    """run.py: temperature 0.1; objective.py adds the means of both views, twice the mean over all. --memory 0 is held
    beside SimCLR's, as is its value."""
    loss = made("simclr_v2", IMAGENET).method.five_parts.loss
    assert settings_of(loss["loss"])[0] is info_nce
    assert (temperature_of(loss["loss"]), loss["factor"]) == (0.1, 2.0)
    assert "queue_size" not in made("simclr_v2", IMAGENET, "--memory 0").method.five_parts.loss


@pytest.mark.parametrize(
    ("preset", "temperature"), [("imagenet", 0.07), ("imagenet_2x", 0.07), ("stl10", 0.1)]
)
def test_cmc_compares_with_a_memory_of_all_images_by_binary_nce(preset, temperature):
    """train_CMC.py: nce_k 16384, nce_t 0.07, nce_m 0.5, NCE but for --softmax; README: 0.1 on STL-10."""
    parts = made("cmc", IMAGENET, f"--preset {preset}").method.five_parts
    function, settings = settings_of(parts.loss["loss"])
    assert function is binary_nce
    assert settings["images"] == parts.loss["images"] == 1_281_167
    assert (parts.loss["negatives"], parts.loss["momentum"]) == (16384, 0.5)
    assert parts.similarity["temperature"] == temperature


@pytest.mark.parametrize(
    ("name", "preset", "clip"),
    [("amdim", preset, 20.0) for preset in ("cifar10", "stl10", "imagenet", "imagenet_large")]
    + [("yadim", preset, 10.0) for preset in ("cifar10", "stl10", "imagenet")],
)
def test_amdims_scores_are_clipped_and_penalized_as_in_its_code(name, preset, clip):
    """train.py: tclip 20; costs.py: 0.05 of the mean square. Bolts: amdim_module.py makes FeatureMapContrastiveTask
    without a clip, whose default is 10."""
    settings = settings_of(made(name, IMAGENET, f"--preset {preset}").method.five_parts.loss["loss"])[1]
    assert (settings["clip"], settings["penalty"]) == (clip, 0.05)


# A config -> its alphas. The second and third are no command of theirs: each is its side of "both".
MIXED = {
    "moco_imagenet100 --preset v1_ft": "negatives=1.6, positives=2",
    "moco_imagenet100 --preset v1_negatives": "negatives=1.6",
    "moco_imagenet100 --preset v1_positives": "positives=2",
    "moco_imagenet100 --preset v2_ft": "negatives=1.6, positives=2",
    "moco_imagenet --mix both": "negatives=1.6, positives=2",
}


@pytest.mark.parametrize("row", MIXED)
def test_features_are_mixed_as_by_the_commands_of_feature_transformation(row):
    """README: pos_alpha 2.0, neg_alpha 1.6, mix_start_epoch left at 0, no dim_mask (one factor a step), no
    postmix_norm."""
    name, *words = row.split()
    transform = made(name, IMAGENET100, words).method.five_parts.extraction["transform"]
    truth = f"mixing(dimension_wise=False, {MIXED[row]}, renormalize=False, start=0)"
    assert described(transform) == truth


@pytest.mark.parametrize("mix", ["positives", "negatives"])
def test_one_side_alone_is_mixed_as_within_both_and_the_codes_by_the_entry(mix):
    """mem_moco.py draws np.random.beta(alpha, alpha, size=q.shape), or the queue's, where mixnorm_target is "pos" or
    "neg", with beta_alpha 2.0: as many factors as entries, of variance 1 / (4 (2 alpha + 1)) = 1 / 20."""
    config = made("moco_imagenet100", IMAGENET100, f"--mix {mix}").method.five_parts.extraction["transform"]
    code = {"positives": {"negatives": None}, "negatives": {"positives": None, "negatives": 2.0}}[mix]
    q, k, queue = np.ones((60, 2000)), np.zeros((60, 2000)), np.eye(2100, 2000)

    @jax.jit
    def both(q, k, queue):
        of = partial(mixing, **code, dimension_wise=True)
        return [transform(jax.random.key(0), 0, q, k, queue) for transform in (config, of())]

    ours, theirs = both(q, k, queue)
    for mixed, entries in ((ours, False), (theirs, True)):
        if mix == "positives":  # 1 q + 0 k, and so the factors themselves, which are 1 more than Beta's
            factors = np.asarray(mixed[0]) - 1
            np.testing.assert_array_equal(mixed[2], queue)
        else:  # a row of the unit matrix has a factor, or 1 less it, where it or the other one is 1
            factors = np.asarray(mixed[2])[:2000][np.eye(2000, dtype=bool)]
            factors = factors[(factors > 0) & (factors < 1)]
            np.testing.assert_array_equal(mixed[0], q)
        assert (len(np.unique(factors)) > 0.9 * factors.size) == entries
        if entries:
            assert factors.var() == pytest.approx(1 / 20, rel=0.1)


@pytest.mark.parametrize(
    "row",
    [
        "moco_imagenet",
        "moco_cifar10",
        "looc --preset looc",
        "simclr_imagenet",
        "simclr_v2",
        "byol --preset imagenet",
        "cmc --preset imagenet",
        "cmc --preset imagenet_2x",
        "amdim --preset imagenet",
    ],
)
def test_batch_norm_sees_an_eighth_of_mocos_batch_and_all_of_simclrs(row):
    """main_moco.py on 8 GPUs, the demo's SplitBatchNorm; run.py, global_bn; configs/byol.py, cross_replica_axis; the
    README of CMC and AMDIM: DataParallel on four GPUs. All: a momentum of 0.9 (PyTorch's 0.1)."""
    name, *words = row.split()
    parts = made(name, IMAGENET, words).method.five_parts
    groups = {"moco": 8, "looc": 8, "cmc": 4, "amdim": 4}.get(name.partition("_")[0], 1)
    norms = re.findall(r"BatchNorm\(.*?\)", described(parts.encoder) + described(parts.extraction))
    assert set(norms) == {f"BatchNorm(groups={groups}, views=1, momentum=0.9, epsilon=1e-05)"}


# Kernels from a representation of 2048 or 512 numbers on, and whether there are biases and norms: moco/builder.py
# and PyContrast's heads; model_util.py, projection_head, whose number of layers is 2 in SimCLR's paper.
HEADS = {
    "moco_imagenet --version v1": ([(2048, 128)], "bias"),
    "moco_imagenet": ([(2048, 2048), (2048, 128)], "bias"),
    "moco_imagenet100 --preset v1_ft": ([(2048, 128)], "bias"),
    "moco_imagenet100 --preset v2_ft": ([(2048, 2048), (2048, 128)], "bias"),
    "moco_cifar10": ([(512, 128)], "bias"),
    "looc --preset looc": ([(2048, 2048), (2048, 128)], "bias"),
    "simclr_imagenet": ([(2048, 2048), (2048, 128)], "norm"),
    "simclr_imagenet --head-layers 3": ([(2048, 2048)] * 2 + [(2048, 128)], "norm"),
    "simclr_v2": ([(2048, 2048)] * 2 + [(2048, 128)], "norm"),
    " ".join(["simclr_cifar10", *README]): ([(512, 512)] * 2 + [(512, 128)], "norm"),
}


@pytest.mark.parametrize("row", HEADS, ids=lambda row: row[:40])
def test_a_head_has_the_published_layers(row):
    name, *words = row.split()
    kernels, kind = HEADS[row]
    head = made(name, CIFAR, words).method.five_parts.extraction["head"]
    params = jax.eval_shape(head.init, jax.random.key(0), jnp.zeros((2, kernels[0][0])))[0]
    assert [params[f"Dense_{i}"]["kernel"].shape for i in range(len(kernels))] == kernels
    last = params[f"Dense_{len(kernels) - 1}"]
    if kind == "bias":
        assert last["bias"].shape == (128,)
        assert not any("BatchNorm" in layer for layer in params)
    else:  # norms between the layers and after them; the last scales alone
        assert [sorted(params[f"BatchNorm_{i}"]) for i in range(len(kernels))] == [
            *[["bias", "scale"]] * (len(kernels) - 1),
            ["scale"],
        ]
        assert set(last) == {"kernel"}


def test_byols_projector_and_predictor_have_4096_and_256_units_and_no_bias_at_their_ends():
    """BYOL's code: each a linear layer of 4096, batch norm, ReLU, and a linear layer of 256 without bias."""
    parts = made("byol", IMAGENET, "--preset imagenet").method.five_parts.extraction
    for head, width in (("projector", 2048), ("predictor", 256)):
        params = jax.eval_shape(parts[head].init, jax.random.key(0), jnp.zeros((2, width)))[0]
        assert params["Dense_0"]["kernel"].shape == (width, 4096)
        assert sorted(params["BatchNorm_0"]) == ["bias", "scale"]
        assert {name: array.shape for name, array in params["Dense_1"].items()} == {"kernel": (4096, 256)}


def steps_in(op):
    steps = dict(op.settings).get("steps")
    return [op] if steps is None else [inner for step in steps for inner in steps_in(step)]


# Order; least area; strengths and probability of the jitter; probability of gray. main_moco.py; dataset/util.py of
# feature transformation (where the flip stands changes nothing); the demo; LooC's section 4; data_util.py and appendix
# A of SimCLR, whose brightness is added in the first version and multiplied in the second; datasets.py of AMDIM.
TORCH, SIMCLR = (
    "crop > jitter > grayscale > blur > flip > clip",
    "crop > flip > jitter > grayscale > clip > blur",
)
LOOC = "crop > flip > jitter > grayscale > rotate90 > blur > clip"
AMDIM = (0.4, 0.4, 0.4, 0.2), 0.8, 0.25
IN_AMDIM = (0.4, 0.4, 0.4, 0.1), 0.8, 0.25
V2, FULL = ((0.4, 0.4, 0.4, 0.1), 0.8, 0.2), ((0.8, 0.8, 0.8, 0.2), 0.8, 0.2)
ALWAYS = (0.4, 0.4, 0.4, 0.4), 1.0, 0.2
VIEWS = {
    "moco_imagenet": (TORCH, 0.2, *V2),
    "moco_imagenet --version v1": ("crop > grayscale > jitter > flip > clip", 0.2, *ALWAYS),
    "moco_imagenet100 --preset v1_ft": ("crop > jitter > grayscale > flip > clip", 0.2, *ALWAYS),
    "moco_imagenet100 --preset v2_ft": (TORCH, 0.2, *V2),
    "moco_cifar10": ("crop > jitter > grayscale > flip > clip", 0.08, *V2),
    "looc --preset moco": (LOOC, 0.2, *V2),
    "looc --preset looc": (LOOC, 0.2, *V2),
    "simclr_imagenet": (SIMCLR, 0.08, *FULL),
    "simclr_v2": (SIMCLR, 0.08, *FULL),
    " ".join(["simclr_cifar10", *README]): (
        "crop > flip > jitter > grayscale > clip",
        0.08,
        (0.4, 0.4, 0.4, 0.1),
        0.8,
        0.2,
    ),
    "cmc --preset imagenet": ("crop > flip > clip > lab", 0.08),
    "cmc --preset imagenet_2x": ("crop > flip > clip > lab", 0.08),
    "cmc --preset stl10": ("crop > flip > clip > lab", 0.2),
    "cmc --preset imagenet --space ycbcr": ("crop > flip > clip > ycbcr", 0.08),
    "amdim --preset cifar10": ("flip > translate > jitter > grayscale > clip", None, *AMDIM),
    "amdim --preset stl10 --size 64": ("flip > crop > jitter > grayscale > clip", 0.3, *AMDIM),
    "amdim --preset imagenet": ("flip > crop > jitter > grayscale > clip", 0.3, *IN_AMDIM),
    # cpc_transforms.py of Bolts: AMDIM's, of the whole image, which is then cut up. YADIM's are inferred to be so.
    "cpc --preset cifar10": ("flip > translate > jitter > grayscale > clip", None, *AMDIM),
    "cpc --preset stl10": ("flip > crop > jitter > grayscale > clip", 0.3, *AMDIM),
    "cpc --preset imagenet": ("flip > crop > jitter > grayscale > clip", 0.3, *IN_AMDIM),
    "yadim --preset cifar10": ("flip > translate > jitter > grayscale > clip", None, *AMDIM),
    "yadim --preset stl10": ("flip > crop > jitter > grayscale > clip", 0.3, *AMDIM),
    "yadim --preset imagenet": ("flip > crop > jitter > grayscale > clip", 0.3, *IN_AMDIM),
}


@pytest.mark.parametrize("row", VIEWS, ids=lambda row: row[:40])
def test_a_view_is_changed_by_the_published_steps_alone(row):
    (name, *words), (order, least, *colors) = row.split(), VIEWS[row]
    size = 32 if "cifar10" in row else 128
    for recipe in made(name, About(50_000, (size, size, 3), ()), words).views.recipes:
        steps = {op.name: dict(op.settings) for op in steps_in(recipe)}
        assert " > ".join(steps) == order
        simclr, bolts = name.startswith("simclr"), name in ("amdim", "cpc", "yadim")
        if "translate" in steps:  # RandomTranslateWithReflect(4) with p 0.8
            moved = {key: steps["translate"][key] for key in ("pixels", "probability", "border")}
            assert moved == {"pixels": 4, "probability": 0.8, "border": "reflect"}
        if least is not None:
            assert steps["crop"]["area"] == (least, 1.0)
            assert steps["crop"]["ratio"] == ((0.7, 1.4) if bolts else (3 / 4, 4 / 3))
            # tf.image's kernel is never widened; Pillow's is, and torchvision asks for the bilinear one by default.
            kernel = "bicubic" if simclr or bolts else "bilinear"
            assert (steps["crop"]["method"], steps["crop"]["antialias"]) == (kernel, not simclr)
            boxes = augment.uniform_height if simclr else augment.uniform_area_log_ratio
            assert steps["crop"]["distribution"] is boxes
        if colors:
            strengths, probability, gray = colors
            assert tuple(steps["jitter"][one] for one in JITTERS) == pytest.approx(strengths)
            assert steps["jitter"]["probability"] == probability
            assert steps["jitter"]["colors"] == ("tensorflow" if simclr else "torchvision")
            assert steps["grayscale"]["probability"] == gray
        if "blur" in steps:
            assert (steps["blur"]["sigma"], steps["blur"]["probability"]) == ((0.1, 2.0), 0.5)
            pillow = steps["blur"]["border"] == "edge" and steps["blur"]["boxes"] == 3
            assert pillow != simclr
        if simclr:
            form = "add" if name == "simclr_imagenet" else "multiply"
            assert steps["jitter"]["brightness_form"] == form


def test_byols_two_views_are_changed_as_augmentations_py_says():
    """Both: a crop of 0.08 to 1, flip (p 0.5), jitter of 0.4, 0.4, 0.2, 0.1 (p 0.8), gray (p 0.2). The first is always
    blurred and never solarized, the second blurred with p 0.1 and solarized, from 0.5 on, with 0.2; sigma 0.1 to 2 of a
    kernel of a tenth of the side, with zeros beyond the border."""
    views = made("byol", IMAGENET, "--preset imagenet").views.recipes
    for recipe, blurred, solarized in zip(views, (1.0, 0.1), (0.0, 0.2), strict=True):
        steps = {op.name: dict(op.settings) for op in steps_in(recipe)}
        assert list(steps) == ["crop", "clip", "flip", "jitter", "grayscale", "blur", "solarize"]
        assert (steps["crop"]["area"], steps["crop"]["ratio"]) == ((0.08, 1.0), (3 / 4, 4 / 3))
        assert tuple(steps["jitter"][one] for one in JITTERS) == (0.4, 0.4, 0.2, 0.1)
        assert (steps["jitter"]["colors"], steps["jitter"]["brightness_form"]) == ("tensorflow", "add")
        probabilities = {one: steps[one]["probability"] for one in ("flip", "jitter", "grayscale")}
        assert probabilities == {"flip": 0.5, "jitter": 0.8, "grayscale": 0.2}
        assert (steps["blur"]["sigma"], steps["blur"]["probability"]) == ((0.1, 2.0), blurred)
        assert (steps["blur"]["border"], steps["blur"]["radius"], steps["blur"]["boxes"]) == (
            "black",
            None,
            None,
        )
        assert (steps["solarize"]["threshold"], steps["solarize"]["probability"]) == (0.5, solarized)


# datasets.py of AMDIM, cpc_transforms.py and amdim_transforms.py of Bolts.
PIXELS = {
    "cifar10": (np.array([125.3, 123.0, 113.9]) / 255, np.array([63.0, 62.1, 66.7]) / 255),
    "stl10": ((0.43, 0.42, 0.39), (0.27, 0.26, 0.27)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


@pytest.mark.parametrize("name", ["amdim", "cpc", "yadim"])
@pytest.mark.parametrize("preset", PIXELS)
def test_images_are_standardized_as_by_amdims_code(name, preset):
    network = made(name, CIFAR, f"--preset {preset}").method.five_parts.encoder["encoder"].made
    for found, truth in zip((network.mean, network.std), PIXELS[preset], strict=True):
        np.testing.assert_allclose(found, truth, rtol=1e-6)


@pytest.mark.parametrize("preset", ["cifar10", "stl10", "imagenet"])
def test_cpcs_loss_is_the_sum_of_the_double_loop_in_bolts(preset):
    """self_supervised_learning.py, CPCTask, on one GPU: of target_dim 64, predictions times embed_scale 0.1; for every
    number of steps_to_ignore up to h - 2 the cross-entropy of each i from it plus 1 to h - 1, row r against row
    r + i + 1 among all vectors of the batch; added."""
    parts = made("cpc", CIFAR, f"--preset {preset}").method.five_parts
    grid = jnp.zeros((2, 7, 7, 16))
    for one in ("target", "predictor"):
        params = jax.eval_shape(parts.extraction[one].init, jax.random.key(0), grid)[0]
        assert params["Dense_0"]["kernel"].shape == (16, 64)
    rng = np.random.default_rng(0)
    n, h, w, predictions, targets = 2, 7, 7, *rng.normal(size=(2, 2, 7, 7, 64)).astype(np.float32)
    every, total = targets.reshape(-1, 64), 0.0
    for steps_to_ignore in range(h - 1):
        for i in range(steps_to_ignore + 1, h - 1):  # of i = h - 1 no row is left, and the mean is nan
            chosen = 0.1 * predictions[:, : h - i - 1].reshape(-1, 64).astype(np.float64)
            scores = chosen @ every.T
            own = np.arange(n * h * w).reshape(n, h, w)[:, i + 1 :].reshape(-1)
            scores -= scores.max(axis=1, keepdims=True)
            log = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(own)), own]
            total += log.mean()
    assert parts.extraction["shared_predictor"]
    assert parts.extraction["rotations"] == 1
    below = parts.extraction["rows"](7)
    # 3,072 images are compared in groups of those on one of 64 GPUs.
    function, settings = settings_of(parts.loss["loss"])
    assert settings.pop("group_size") == (48 if preset == "imagenet" else None)
    loss = jax.jit(partial(function, **settings, below=below))
    np.testing.assert_allclose(loss(predictions, targets), total, rtol=1e-4)


@pytest.mark.parametrize("preset", ["cifar10", "stl10", "imagenet", "imagenet_large"])
def test_amdim_compares_the_maps_that_its_code_compares(preset):
    """costs.py: 1 to 5, 1 to 7 and 5 to 5, of the maps that are 1, 5 and 7 wide."""
    parts = made("amdim", IMAGENET, f"--preset {preset}").method.five_parts.extraction
    assert described(parts["extract"]) == "of_widths(widths=(1, 5, 7))"
    maps = (1, 5, 7)
    assert [(maps[a], maps[b]) for a, b in parts["compare"]] == [(1, 5), (1, 7), (5, 5)]
    assert parts["heads"][0] is None  # NopNet
    assert None not in parts["heads"][1:]


@pytest.mark.parametrize(
    ("name", "preset", "figure", "lacks"),
    [
        ("amdim", "imagenet_large", "68.1 %", ["Fast AutoAugment"]),
        ("cmc", "imagenet_2x", "68.4 %", ["Fast AutoAugment", "4,096 negatives"]),
    ],
)
def test_a_figure_is_quoted_with_the_policy_that_the_config_lacks(name, preset, figure, lacks):
    """READMEs: AMDIM's strongest results have Fast AutoAugment's policy, as CMC's weights of resnet50v2 and v3, which
    have 4096 negatives. Neither code has it."""
    said = docstring_of(name)
    quoted = said[said.index(f"{preset}:") :].partition("stl10:")[0]
    assert figure in quoted
    assert all(one in quoted for one in lacks)
    steps = [op.name for op in steps_in(made(name, IMAGENET, f"--preset {preset}").views.recipes[0])]
    assert set(steps) <= {"flip", "crop", "jitter", "grayscale", "clip", "lab"}


@pytest.mark.parametrize("preset", ["cifar10", "stl10", "imagenet"])
def test_amdims_classifiers_see_images_augmented_as_in_pretraining(preset):
    recipe = made("amdim", IMAGENET if preset == "imagenet" else CIFAR, f"--preset {preset}")
    (classified,), pretrained = recipe.probe_views.recipes, recipe.views.recipes[0]
    assert {op.name: op.settings for op in steps_in(classified)} == {
        op.name: op.settings for op in steps_in(pretrained)
    }


def test_the_command_of_supervised_is_simclr_v2s_fine_tuning():
    """README of its code, 1 % of the labels: LARS, 0.005 sqrt(1024) = 0.16, no warm-up, no decay, 60 epochs, from the
    first of three layers of the head."""
    words = words_of("supervised", "--init runs/simclr_v2", "--data-dir DATA_DIR")
    knobs = knobs_of("train", CONFIGS / "supervised.py", words)
    assert (knobs.data, knobs.from_layer, knobs.head_layers) == ("tfds:imagenet2012_subset/1pct", 1, 3)
    about = IMAGENET._replace(count=12811)
    recipe = made("supervised", about, words)
    assert (recipe.batch_size, recipe.steps, recipe.carries) == (1024, 751, ("encoder", "head"))
    check_update(
        recipe, lambda t: 0.16 * (1 + np.cos(np.pi * t / 751)) / 2, lars_of_kernels(0.0), classifier=True
    )
    head = jax.eval_shape(
        recipe.method.five_parts.extraction["head"].init, jax.random.key(0), jnp.zeros((2, 2048))
    )[0]
    assert [layer["kernel"].shape for layer in head.values() if "kernel" in layer] == [(2048, 2048)]
    assert [op.name for op in steps_in(recipe.views.recipes[0])] == ["crop", "flip", "clip"]
    # 10 %: 128,116 images, 30 epochs.
    said = docstring_of("supervised")
    assert (
        "(/10pct with --epochs 30; all labels, `tfds:imagenet2012`, with --epochs 30 --from-layer 0.)" in said
    )
    assert "0.005 sqrt(batch), 0.002 with --sk or a larger width" in said
    assert made("supervised", IMAGENET._replace(count=128116), words, epochs=30).steps == 3754
    assert made("supervised", IMAGENET, words, epochs=30).steps == 30 * 1_281_167 // 1024 + 1


def test_simclrs_reference_networks_learn_from_labels_by_sgd_whose_decay_spares_batch_norm_alone():
    """An author in issue 10 of its code: SGD, 0.1 for 256 images, decay 1e-4, a cosine, as torchvision (momentum 0.9;
    run.py: Nesterov); model_util.py, add_weight_decay: of all variables but batch_normalization."""
    words = words_of("supervised", "--data tfds:imagenet2012 --encoder", "--data-dir DATA_DIR")
    recipe = made("supervised", IMAGENET, words)
    assert (recipe.batch_size, recipe.steps) == (256, 90 * 1_281_167 // 256 + 1)
    recipe = made("supervised", IMAGENET, words, batch_size=128)
    w = {"encoder/kernel": 3.0, "encoder/scale": 3.0, "probe/kernel": 3.0, "probe/bias": 3.0}
    params = nested({path: np.full(2, value) for path, value in w.items()})
    params["encoder"]["kernel"], params["probe"]["kernel"] = jnp.full((2, 2), 3.0), jnp.full((2, 2), 3.0)
    grads = jax.tree.map(jnp.zeros_like, params)
    change, _ = recipe.optimizer.update(grads, recipe.optimizer.init(params), params)
    decayed = -0.05 * (1 + 0.9) * 1e-4 * 3.0
    truth = {"encoder": {"kernel": decayed, "scale": 0.0}, "probe": {"kernel": decayed, "bias": decayed}}
    for room, arrays in truth.items():
        for name, value in arrays.items():
            np.testing.assert_allclose(change[room][name], value, rtol=1e-5, err_msg=f"{room}/{name}")


def test_only_a_classifier_that_is_fine_tuned_starts_at_zero():
    about = About(600, (8, 8, 3), ("a", "b"))
    batch = {"image": np.zeros((2, 8, 8, 3), np.uint8), "index": np.arange(2), "label": np.arange(2)}
    for words, zero in (("--init runs/simclr_v2", True), ("", False)):
        init = made("supervised", about, f"--features 2 2 {words}").method.init
        assert (np.asarray(jax.jit(init)(jax.random.key(0), batch)[0]["probe"]["kernel"]) == 0).all() == zero


@pytest.fixture
def taught(tmp_path, monkeypatch):
    """(words) -> the recipe of distill.py on ImageNet, whose teacher is of supervised.py."""
    teacher = SimpleNamespace(recipe=made("supervised", IMAGENET), about=IMAGENET)

    def recipe(words):
        config = load_config(CONFIGS / "distill.py")
        monkeypatch.setattr(config, "open_run", lambda path: teacher)
        knobs = knobs_of("train", CONFIGS / "distill.py", words)
        return config.recipe(dataclasses.replace(knobs, teacher=str(tmp_path)), IMAGENET)

    return recipe


def test_the_command_of_distill_is_simclr_v2s_distillation(taught):
    """Section 3 of the paper: 400 epochs, and as pretraining batch 4096, LARS 0.1 sqrt(4096) = 6.4, decay 1e-4 and a
    warm-up of a twentieth; of views crop and flip; temperature 1 for a smaller student and no labels."""
    recipe = taught(words_of("distill", "--teacher runs/fine-tuned", "--data-dir DATA_DIR"))
    steps = 400 * 1_281_167 // 4096 + 1
    assert (recipe.batch_size, recipe.steps, recipe.labelled) == (4096, steps, False)
    rate = lambda t: 6.4 * t / (steps // 20)  # noqa: E731
    check_update(recipe, rate, lars_of_kernels(1e-4), classifier=True)
    np.testing.assert_allclose(recipe.learning_rate(jnp.int32(steps // 20)), 6.4, rtol=1e-6)
    assert [op.name for op in steps_in(recipe.views.recipes[0])] == ["crop", "flip", "clip"]
    loss = recipe.method.five_parts.loss
    assert (loss["temperature"], loss["factor"], loss["weight"]) == (1.0, 1.0, 1.0)
    itself = taught(words_of("distill", "--temperature", "0.1"))
    assert itself.method.five_parts.loss["temperature"] == 0.1


@pytest.mark.parametrize(
    ("words", "factor"),
    [
        ("--temperature 0.1", 0.01),  # the notebook's: temperature^2
        ("--temperature 0.1 --scale code", 0.01),
        ("", 1.0),
        ("--temperature 0.1 --scale equation", 1.0),
        ("--scale equation --temperature 0.5", 1.0),
    ],
)
def test_distills_loss_has_the_scale_of_the_code_or_of_the_equation(taught, words, factor):
    assert taught(words.split()).method.five_parts.loss["factor"] == pytest.approx(factor)


@pytest.mark.parametrize(("name", "rule"), [("digit_on_image", "SGD"), ("randbits", "AdamW")])
def test_configs_of_the_intriguing_properties_say_that_the_paper_has_lars(name, rule):
    """Its updates are those of the rule that it names: SGD's grow with the gradient, AdamW's do not."""
    assert f"{rule} where the paper has LARS" in docstring_of(name)
    recipe = made(name, IMAGENET100, "--preset imagenet100")
    w, g = {"kernel": jnp.full(3, 0.01)}, {"kernel": jnp.array([1.0, -2.0, 4.0])}

    @jax.jit
    def changes(scale):
        state, change = recipe.optimizer.init(w), None
        for _ in range(2):  # the first has a rate of 0
            change, state = recipe.optimizer.update(jax.tree.map(lambda x: scale * x, g), state, w)
        return change["kernel"]

    once, twice = changes(1.0), changes(2.0)
    assert np.abs(once).max() > 0
    np.testing.assert_allclose(twice, once * (2 if rule == "SGD" else 1), rtol=1e-3)
