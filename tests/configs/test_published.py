"""Configs that claim a paper's recipe: the numbers are those of its authors' code, worked out here by hand."""

import dataclasses
import inspect
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxcl import About
from jaxcl.augment import color, geometry
from jaxcl.cli.words import settings_of
from jaxcl.config import load_config
from jaxcl.evaluate import PROTOCOLS, sgd

CONFIGS = Path(__file__).parents[2] / "configs"
CIFAR, IMAGENET = About(50000, (32, 32, 3), ()), About(1281167, (224, 224, 3), ())


def made(name, about, preset=None, **knobs):
    config = load_config(CONFIGS / f"{name}.py")
    chosen = config.Knobs() if preset is None else config.PRESETS[preset]
    return config.recipe(dataclasses.replace(chosen, **knobs), about)


def simclr_loss(z1, z2, temperature):
    """google-research/simclr, tf2/objective.py: the mean over one view's rows plus the mean over the other's."""
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z1, z2)]
    total = 0.0
    for own, other in (unit, unit[::-1]):
        for i in range(len(own)):
            scores = [own[i] @ k / temperature for k in other]
            scores += [own[i] @ own[k] / temperature for k in range(len(own)) if k != i]
            total += (np.log(np.sum(np.exp(scores))) - scores[i]) / len(own)
    return total


README = {"details": "simclr", "epochs": 1000, "optimizer": "lars", "learning_rate": 1.0, "warmup_epochs": 10}


@pytest.mark.parametrize(
    ("name", "about", "knobs", "temperature", "times"),
    [
        ("simclr_cifar10", CIFAR, README, 0.5, 1.0),
        ("simclr_cifar10", CIFAR, {}, 0.5, 0.5),  # its infoNCE is the mean over both views' rows
        ("simclr_imagenet", IMAGENET, {}, 0.1, 1.0),
        ("simclr_imagenet", IMAGENET, {"loss_factor": 1.0}, 0.1, 0.5),  # the paper's equation 1
        ("simclr_v2", IMAGENET, {"memory": 0}, 0.1, 1.0),
        ("simclr_augmentations", IMAGENET, "imagenet", 0.1, 1.0),
        ("simclr_augmentations", CIFAR, {}, 0.2, 0.5),  # AdamW
    ],
    ids=["README", "torch", "ImageNet", "equation 1", "v2", "augmentations", "augmentations, AdamW"],
)
def test_the_loss_has_the_scale_to_which_the_rates_belong(name, about, knobs, temperature, times):
    z1, z2 = np.random.default_rng(0).normal(size=(2, 6, 5))
    knobs = {"preset": knobs} if isinstance(knobs, str) else knobs
    loss = made(name, about, **knobs).method.five_parts.loss["loss"]
    value = float(jax.jit(loss)(jax.random.key(0), z1, z2))
    assert value == pytest.approx(times * simclr_loss(z1, z2, temperature), rel=1e-5)


def test_simclrs_steps_are_those_of_batches_that_run_on_from_epoch_to_epoch():
    # model.py, get_train_steps: num_examples epochs // batch + 1; the warm-up has no + 1.
    cifar, imagenet = made("simclr_cifar10", CIFAR, **README), made("simclr_imagenet", IMAGENET)
    study, second = made("simclr_augmentations", IMAGENET, "imagenet"), made("simclr_v2", IMAGENET)
    assert (cifar.steps, imagenet.steps, study.steps) == (97657, 31279, 31279)
    # SimCLRv2, section 3: 800 epochs, 40 of them a warm-up to 0.1 sqrt(4096).
    assert second.steps == 800 * 1281167 // 4096 + 1 == 250228
    rows = ((cifar, 976, 2.0), (imagenet, 3127, 4.8), (study, 3127, 4.8), (second, 12511, 6.4))
    for recipe, warmup, peak in rows:
        assert float(recipe.learning_rate(0)) == 0
        assert float(recipe.learning_rate(warmup)) == pytest.approx(peak)
        assert float(recipe.learning_rate(warmup - 1)) == pytest.approx(peak * (warmup - 1) / warmup)
        halfway = warmup + (recipe.steps - warmup) / 2
        assert float(recipe.learning_rate(halfway)) == pytest.approx(peak / 2, rel=1e-4)
    # The other recipe's loader drops an incomplete batch.
    assert made("simclr_cifar10", CIFAR).steps == 97 * 100


def test_the_square_root_rule_is_simclrs_table_b1():
    linear = made("simclr_imagenet", IMAGENET)
    root = made("simclr_imagenet", IMAGENET, rate_rule="sqrt", learning_rate=0.075)
    assert float(linear.learning_rate(3127)) == pytest.approx(float(root.learning_rate(3127)))  # 4.8, at 4096
    small = made("simclr_imagenet", IMAGENET, rate_rule="sqrt", learning_rate=0.075, batch_size=256)
    assert float(small.learning_rate(10 * 1281167 // 256)) == pytest.approx(0.075 * 16)


def test_the_published_runs_crops_are_drawn_by_height():
    """sample_distorted_bounding_box keeps 0.42 of a square image on average; by area it would be 0.48."""
    recipe = made("simclr_cifar10", CIFAR, min_area=0.08, **README)
    draw = jax.jit(jax.vmap(lambda index: recipe.views.sample(jax.random.key(0), index, (320, 320, 3))))
    crop = draw(np.arange(4000))[0][0]
    share = np.asarray(crop.height * crop.width) / 320**2
    # The definition once more, by hand: the ratio is uniform, then the height among those that fit.
    rng, shares = np.random.default_rng(0), []
    while len(shares) < 4000:
        ratio = rng.uniform(3 / 4, 4 / 3)
        low, high = np.sqrt(0.08 / ratio), min(1.0, np.sqrt(1 / ratio), 1 / ratio)
        height = rng.uniform(low, high)
        if height * height * ratio >= 0.1:  # min_object_covered
            shares.append(height * height * ratio)
    assert share.mean() == pytest.approx(np.mean(shares), abs=0.015)
    assert abs(share.mean() - 0.42) < 0.02


@pytest.mark.parametrize(
    ("preset", "epochs", "rate", "weight_decay", "decay"),
    [
        ("imagenet", 1000, 0.2, 1.5e-6, 0.996),
        ("imagenet_300", 300, 0.3, 1e-6, 0.99),
        ("imagenet_100", 100, 0.45, 1e-6, 0.99),
        ("imagenet_40", 40, 0.45, 1e-6, 0.97),
    ],
)
def test_byols_steps_and_rates_are_those_of_its_code(preset, epochs, rate, weight_decay, decay):
    # main_loop.py: max_steps = num_epochs examples // batch, warmup_steps likewise of 10 epochs; configs/byol.py: the
    # rate is for 256 images, and the cosine falls to 0 at the last step.
    config = load_config(CONFIGS / "byol.py")
    knobs = config.PRESETS[preset]
    assert (knobs.weight_decay, knobs.decay) == (weight_decay, decay)
    recipe = config.recipe(knobs, IMAGENET)
    steps, warmup = epochs * 1281167 // 4096, 10 * 1281167 // 4096
    assert recipe.steps == steps
    peak = rate * 4096 / 256
    assert float(recipe.learning_rate(warmup)) == pytest.approx(peak)
    middle = (steps + warmup) // 2
    cosine = 0.5 * (1 + np.cos(np.pi * (middle - warmup) / (steps - warmup)))
    assert float(recipe.learning_rate(middle)) == pytest.approx(peak * cosine, rel=1e-5)
    assert float(recipe.learning_rate(steps)) == pytest.approx(0, abs=1e-6)


def test_a_blur_that_would_change_nothing_is_refused():
    small = About(50_000, (16, 16, 3), ("a", "b"))
    with pytest.raises(ValueError, match="images of 16 pixels stay as they are. Choose --size 20 or more"):
        made("simclr_augmentations", small, second="blur")
    assert made("simclr_augmentations", small, second="noise").steps > 0


def test_byols_classifier_is_trained_on_crops_uniform_in_area():
    """dataset.py: LINEAR_TRAIN has pretraining's _decode_and_random_crop: an area from U(0.08, 1) of a square, sides
    cut to it, keeps 0.53 of it on average (SimCLR's, by height: 0.42)."""
    views = made("byol", IMAGENET, "imagenet").probe_views
    assert [op.name for op in dict(views.recipes[0].settings)["steps"]] == ["crop", "flip", "clip"]
    draw = jax.jit(jax.vmap(lambda index: views.sample(jax.random.key(0), index, (320, 320, 3))))
    crop = draw(np.arange(4000))[0][0]
    rng = np.random.default_rng(0)
    area, ratio = rng.uniform(0.08, 1, 4000), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), 4000))
    sides = np.minimum(1, np.sqrt(area * ratio)), np.minimum(1, np.sqrt(area / ratio))
    share = np.mean(np.asarray(crop.height * crop.width)) / 320**2
    assert share == pytest.approx(np.mean(sides[0] * sides[1]), abs=0.015)
    assert abs(share - 0.53) < 0.015


def test_byols_images_are_standardized_by_imagenets_statistics():
    # byol/utils/dataset.py, normalize_images: mean 0.485, 0.456, 0.406 and deviation 0.229, 0.224, 0.225.
    network = made("byol", IMAGENET, "imagenet").method.five_parts.encoder["encoder"].made
    assert (network.mean, network.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(("details", "colors"), [("torch", "torchvision"), ("simclr", "tensorflow")])
def test_each_recipe_of_simclr_on_cifar10_has_the_colors_of_its_library(details, colors):
    steps = dict(made("simclr_cifar10", CIFAR, details=details).views.recipes[0].settings)["steps"]
    assert {op.name: dict(op.settings) for op in steps}["jitter"]["colors"] == colors


@pytest.mark.parametrize("name", ["moco_imagenet", "moco_imagenet100", "looc", "cmc"])
def test_the_stems_max_pool_is_padded_all_around_where_the_code_has_pytorchs(name):
    # main_moco.py takes torchvision.models; CMC's models/resnet.py has MaxPool2d(kernel_size=3, stride=2, padding=1).
    encoders = made(
        name, IMAGENET, **({"stem": "imagenet"} if name == "cmc" else {})
    ).method.five_parts.encoder
    nets = [encoders["encoder"]] if "encoder" in encoders else next(iter(encoders.values()))
    assert {net.made.module.pool for net in nets} == {"torch"}


def draws(views, kind):
    """What the views of 64 images draw of an op, [view] of its fields [image, ...]; each view does it once."""

    @jax.jit
    @jax.vmap
    def of_image(index):
        every = views.sample(jax.random.key(3), index, (40, 40, 3))
        found = [jax.tree.leaves(one, is_leaf=lambda x: isinstance(x, kind)) for one in every]
        return [[x for x in one if isinstance(x, kind)] for one in found]

    found = of_image(np.arange(64))
    assert {len(one) for one in found} == {1}
    return [one[0] for one in found]


@pytest.mark.parametrize("name", ["looc", "looc_cpu"])
@pytest.mark.parametrize(
    "names", [("rotation",), ("texture",), ("rotation", "texture"), ("color", "rotation")]
)
def test_color_without_a_space_is_drawn_anew_for_every_view(name, names):
    # Tables 1 to 3: "LooC rotation" is MoCo v2 (color and all) with a space for rotation (E.1: color is kept).
    parts = made(name, CIFAR, augmentations=names).method.five_parts
    assert parts.extraction["spaces"] == 1 + len(names)
    views = parts.views["views"]
    assert len(views.recipes) == 2 + len(names)
    brightness = np.stack([drawn.brightness for drawn in draws(views, color.Jitter)])
    shared = brightness[1:] == brightness[0]
    assert shared.all(axis=1).tolist() == [False, *(name == "color" for name in names)]
    assert shared.any(axis=1).tolist() == shared.all(axis=1).tolist()
    if "rotation" in names:
        turned = np.stack([drawn.quarters for drawn in draws(views, geometry.Rotation)])
        assert (turned[1:] == turned[0]).all(axis=1).tolist() == [
            False,
            *(name == "rotation" for name in names),
        ]
    control = made(name, CIFAR, method="moco", augmentations=names).method.five_parts
    assert control.extraction["spaces"] == 1
    first, second = draws(control.views["views"], color.Jitter)
    assert (first.brightness != second.brightness).all()


# What the authors' code has, or PyTorch Lightning Bolts with which Falcon and Cho ran theirs: main_moco.py and MoCo's
# demo; the README of feature transformation and its options/base_options.py, train_options.py; LooC's section 4 (and
# MoCo v2, as it does not say more); SimCLR's section 2.3 and SimCLRv2's section 3, run.py and README of their code;
# datasets.py, train.py, task_self_supervised.py and the README of amdim-public; cpc_module.py and amdim_module.py of
# Bolts; train_CMC.py and its README. None: a config without presets.
MOCO = {"depth": 50, "batch_size": 256, "groups": 8, "learning_rate": 0.03, "weight_decay": 1e-4}
FT = MOCO | {
    "data": "tfds:imagenet2012#imagenet100",
    "epochs": 200,
    "queue_size": 65536,
    "decay": 0.99,
    "mix": "both",
}
LOOC = MOCO | {"data": "tfds:imagenet2012#imagenet100", "epochs": 500, "falls": (300, 400)}
LOOC |= {"queue_size": 16384, "decay": 0.999, "temperature": 0.2, "filter": False}
ADAM = {"learning_rate": 2e-4, "weight_decay": 1e-5}
AMDIM = ADAM | {"warmup_steps": 500, "clip": 20.0, "penalty": 0.05}
CMC = {
    "batch_size": 128,
    "epochs": 240,
    "falls": (120, 160, 200),
    "learning_rate": 0.03,
    "weight_decay": 1e-4,
}
CMC |= {"negatives": 16384, "momentum": 0.5, "loss": "nce", "space": "lab"}
SETTINGS = {
    ("moco_imagenet", None): MOCO
    | {"version": "v2", "epochs": 200, "queue_size": 65536, "decay": 0.999, "size": 224},
    ("moco_cifar10", None): {
        "depth": 18,
        "epochs": 200,
        "batch_size": 512,
        "queue_size": 4096,
        "decay": 0.99,
        "temperature": 0.1,
        "learning_rate": 0.06,
        "weight_decay": 5e-4,
        "groups": 8,
        "symmetric": False,
    },
    ("moco_imagenet100", "v1"): FT | {"version": "v1", "mix": "none"},
    ("moco_imagenet100", "v1_ft"): FT | {"version": "v1"},
    ("moco_imagenet100", "v2_ft"): FT | {"version": "v2"},
    ("looc", "looc"): LOOC | {"method": "looc"},
    ("looc", "looc_plus_plus"): LOOC | {"method": "looc_plus_plus"},
    ("simclr_cifar10", None): {"depth": 18, "batch_size": 512, "temperature": 0.5, "strength": 0.5},
    ("simclr_imagenet", None): {
        "depth": 50,
        "epochs": 100,
        "batch_size": 4096,
        "learning_rate": 0.3,
        "rate_rule": "linear",
        "warmup_epochs": 10,
        "weight_decay": 1e-6,
        "temperature": 0.1,
        "head_layers": 2,
        "strength": 1.0,
        "brightness_form": "add",
    },
    ("simclr_v2", None): {
        "depth": 50,
        "epochs": 800,
        "batch_size": 4096,
        "learning_rate": 0.1,
        "weight_decay": 1e-4,
        "temperature": 0.1,
        "head_layers": 3,
        "strength": 1.0,
        "memory": 65536,
        "decay": 0.999,
        "loss_factor": 2.0,
    },
    ("amdim", "cifar10"): AMDIM
    | {"features": 256, "out": 2048, "depth": 10, "batch_size": 480, "epochs": 300, "falls": (250, 280)},
    ("amdim", "stl10"): AMDIM
    | {
        "features": 192,
        "out": 1536,
        "depth": 8,
        "batch_size": 200,
        "size": 64,
        "train_on": "train+unlabelled",
    },
    ("amdim", "imagenet"): AMDIM
    | {"features": 192, "out": 1536, "depth": 8, "epochs": 50, "falls": (30, 45), "hue": 0.1, "size": 128},
    ("amdim", "imagenet_large"): AMDIM
    | {"features": 320, "out": 2560, "depth": 10, "falls": (60, 90), "epochs": 100},
    ("cpc", "cifar10"): {"patch": 8, "stride": 4, "batch_size": 64, "learning_rate": 4e-5},
    ("cpc", "stl10"): {"patch": 16, "stride": 8, "batch_size": 144, "learning_rate": 1e-4, "size": 64},
    ("cpc", "imagenet"): {"patch": 32, "stride": 16, "batch_size": 3072, "group_size": 48, "size": 128}
    | {"learning_rate": 4e-5},
    ("cpc", "imagenet_henaff"): {"patch": 80, "stride": 36, "size": 260, "blocks": (3, 4, 46)},
    ("cmc", "imagenet"): CMC
    | {"temperature": 0.07, "min_area": 0.08, "depth": 50, "features": 32, "size": 224},
    ("cmc", "imagenet_2x"): CMC | {"temperature": 0.07, "min_area": 0.08, "depth": 50, "features": 128},
    ("cmc", "stl10"): CMC | {"temperature": 0.1, "min_area": 0.2},
    ("yadim", "cifar10"): ADAM | {"features": 320, "out": 1280, "depth": 10, "batch_size": 200},
    ("yadim", "stl10"): ADAM | {"features": 192, "out": 1536, "depth": 8},
    ("byol", "imagenet"): {
        "depth": 50,
        "width": 1,
        "batch_size": 4096,
        "size": 224,
        "blur": True,
        "trust": 0.001,
        "clip_trust": False,
        "warmup_epochs": 10,
    },
    ("byol", "cifar10"): {
        "learning_rate": 1.0,
        "trust": 0.02,
        "clip_trust": True,
        "weight_decay": 1e-5,
        "decay": 0.99,
        "blur": False,
    },
}


@pytest.mark.parametrize(("name", "preset"), SETTINGS)
def test_a_preset_has_the_authors_settings(name, preset):
    config = load_config(CONFIGS / f"{name}.py")
    knobs = config.Knobs() if preset is None else config.PRESETS[preset]
    assert {key: getattr(knobs, key) for key in SETTINGS[name, preset]} == SETTINGS[name, preset]


@pytest.mark.parametrize("depth", [18, 50])
def test_byols_last_scale_of_a_bottleneck_starts_at_zero_and_of_a_basic_block_at_one(depth):
    """haiku's resnet.py: BlockV1 makes its last norm with scale_init 0 where it is a bottleneck, 1 otherwise."""
    config = load_config(CONFIGS / "byol.py")
    encoder = config.recipe(config.Knobs(depth=depth), CIFAR).method.five_parts.encoder["encoder"]
    assert encoder.made.module.zero_init_last_gamma is (depth == 50)


def test_fine_tuning_has_the_number_of_steps_of_simclrs_code():
    """1 % of ImageNet's labels (12,811 images), 60 epochs of batches of 1024, and one more step."""
    about = About(12811, (224, 224, 3), tuple(map(str, range(1000))))
    recipe = made(
        "supervised", about, epochs=60, batch_size=1024, rate_rule="sqrt", optimizer="lars", warmup=False
    )
    assert recipe.steps == 12811 * 60 // 1024 + 1 == 751


# What each of the authors' linear classifiers is trained with, behind the accuracy that a config quotes: MoCo's
# main_lincls.py; README and LinearProbing.py of CMC; byol/configs/eval.py; table and appendix B.6 of SimCLR, and its
# README for CIFAR-10; of feature transformation options/test_options.py, where ImageNet-100 has 60 epochs, and README,
# where ImageNet has 100 with falls; task_classifiers.py of AMDIM; Bolts' SSLFineTuner of Falcon and Cho, of which
# hidden layer, dropout and rate are here. Two of a config: its name and the run's.
TORCH = {"learning_rate": 30, "batch_size": 256, "nesterov": False, "weight_decay": 0, "start_std": 0.01}
TORCH |= {"augmentation": "torchvision", "min_area": 0.08, "schedule": "steps"}
MOCOS = TORCH | {"epochs": 100, "falls": (60, 80), "drop_factor": 0.1}
LINEAR = {"protocol": "mlp", "hidden": 0, "learning_rate": 2e-4, "weight_decay": 1e-5}
HIDDEN = {"protocol": "mlp", "hidden": 1024, "dropout": 0.2, "learning_rate": 2e-4}
COSINE = {"nesterov": True, "schedule": "cosine"}
CLASSIFIERS = {
    "moco_imagenet": MOCOS,
    "moco_imagenet moco_imagenet_ft": MOCOS | {"min_area": 0.2},
    "moco_imagenet100": TORCH | {"epochs": 60, "schedule": "constant", "min_area": 0.2},
    "looc": TORCH | {"epochs": 200, "falls": (120, 160), "drop_factor": 0.1},
    "cmc": TORCH | {"epochs": 60, "falls": (30, 40, 50), "drop_factor": 0.2},
    "byol": COSINE | {"epochs": 80, "batch_size": 4096, "learning_rate": 0.2, "start_std": 0.022},
    "simclr_imagenet": {"epochs": 90, "batch_size": 4096, "learning_rate": 0.1, "nesterov": True},
    "simclr_v2": {"epochs": 90, "batch_size": 4096, "learning_rate": 0.1, "schedule": "cosine"},
    "simclr_cifar10": {"epochs": 100, "batch_size": 512, "learning_rate": 0.1, "nesterov": True},
    "amdim amdim_cifar10": LINEAR | {"epochs": 120, "falls": (80, 110)},
    "amdim amdim_imagenet": LINEAR | {"epochs": 30, "falls": (15, 25)},
    "cpc": HIDDEN,
    "yadim": HIDDEN,
}


@pytest.mark.parametrize("row", CLASSIFIERS)
def test_the_command_of_a_config_is_the_protocol_behind_the_accuracy_it_quotes(row):
    name, *run = row.split()
    command = " ".join(["jaxcl evaluate", *(f"runs/{one} " for one in run)])
    lines = (CONFIGS / f"{name}.py").read_text().replace("\n        ", " ").splitlines()
    words = next(line for line in lines if command in line).split()
    asked = {"protocol": "linear_"} | CLASSIFIERS[row]
    protocol, falls = words[words.index("--protocol") + 1], asked.pop("falls", None)
    assert protocol.startswith(asked.pop("protocol"))
    given = words[words.index("--set") + 1 :] if "--set" in words else []
    used = {key: p.default for key, p in inspect.signature(PROTOCOLS[protocol]).parameters.items()}
    used |= settings_of([word for word in given if "=" in word])
    assert {key: used[key] for key in asked} == asked
    if falls is not None:
        if protocol == "mlp":  # always MultiStepLR with gamma 0.2
            used |= {"schedule": "steps", "drop_factor": 0.2}
        rate = sgd.rates(used["schedule"], drops=used["drops"], drop_factor=used["drop_factor"])
        found = [rate(epoch, 0.0, used["epochs"]) for epoch in range(used["epochs"])]
        fallen = [sum(epoch >= fall for fall in falls) for epoch in range(used["epochs"])]
        np.testing.assert_allclose(found, [used["drop_factor"] ** n for n in fallen])
