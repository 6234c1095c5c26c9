"""Every protocol through one contract: the same signature, a result that JSON takes, a clear word about labels."""

import functools
import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import augment
from jaxcl.evaluate import PROTOCOLS, Subject, embed, features, subjects
from jaxcl.evaluate.protocols import finetuning
from jaxcl.evaluate.protocols.augmentation import probe_views
from jaxcl.typing import Images


def blobs(n, seed, *, shuffled=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    centers = np.random.default_rng(9).integers(60, 196, (3, 4, 4, 3))
    images = (centers[labels] + rng.integers(-40, 40, (n, 4, 4, 3))).astype(np.uint8)
    return Images("blobs", images, rng.permutation(labels) if shuffled else labels)


TRAIN, TEST = blobs(240, 0), blobs(200, 1)


def flat(x):
    return x.reshape(len(x), -1)


def as_is(key, batch):
    """A view that changes nothing: a crop of 4 x 4 pixels would leave little."""
    return (jnp.asarray(batch["image"], jnp.float32) / 255,)


# Which ask for the class, and which for what was done to the image.
UNLABELLED = ("rotation", "hue")
# Which need no encoder where the features are known.
OF_FEATURES = ("knn", "knn200", "linear", "transfer", "fewshot5", "fewshot10", "linear_sgd", "mlp", "deep")
OF_CLASS = [name for name in PROTOCOLS if name not in UNLABELLED]
# Settings that make a test short; the corruptions have a test of their own.
FEW = {"views": as_is, "epochs": 100, "learning_rate": 2.0}
SMALL = {"hidden": 32, "epochs": 40, "batch_size": 64, "learning_rate": 1e-2}
SHORT = {
    "linear_moco": {"augmentation": "none", "epochs": 20},
    "finetune1": FEW,
    "finetune10": FEW,
    "finetune100": FEW | {"epochs": 10},
    "finetune_grid": {
        "views": as_is,
        "steps": 10,
        "batch_size": 64,
        "learning_rates": [1.0],
        "weight_decays": [0.0],
    },
    "mlp": SMALL,
    "deep": {"blocks": 1, "epochs": 10, "batch_size": 64},
    "corruption": {"images": 20, "names": ["brightness", "contrast"]},
}


@pytest.fixture(scope="module")
def results():
    seen = []
    found = {}
    for name, run in PROTOCOLS.items():
        progress = functools.partial(lambda name, what, done: seen.append((name, what, done)), name)
        subject = Subject(flat, TRAIN, TEST)
        found[name] = run(jax.random.key(0), subject, progress=progress, **SHORT.get(name, {}))
    found["seen"] = seen
    return found


def test_the_table_names_the_protocols():
    assert list(PROTOCOLS) == [
        "knn",
        "knn200",
        "linear",
        "transfer",
        "linear_sgd",
        "linear_moco",
        "mlp",
        "deep",
        "fewshot5",
        "fewshot10",
        "finetune1",
        "finetune10",
        "finetune100",
        "finetune_grid",
        "rotation",
        "hue",
        "corruption",
    ]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_has_the_one_signature(name):
    parameters = inspect.signature(PROTOCOLS[name]).parameters.values()
    given = [p.name for p in parameters if p.default is p.empty]
    assert given == ["key", "subject"]
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters if p.default is not p.empty)
    assert {"views", "progress"} <= {p.name for p in parameters}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_result_is_json_with_settings_and_an_error_bar(name, results):
    result = results[name]
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["protocol"] == name
    assert 0 < result["standard_error"] < 10 or result["accuracy"] == 100
    assert (result["train_images"], result["features"]) == (240, 48)
    assert result["test_images"] == (20 if name == "corruption" else 200)
    assert result["settings"]
    assert result["seconds"] > 0


@pytest.mark.parametrize("name", OF_CLASS)
def test_every_protocol_that_asks_for_the_class_tells_each_class_by_itself(name, results):
    found = results[name]
    assert found["by_class"].keys() == {"0", "1", "2"}
    assert found["mean_class_accuracy"] == pytest.approx(np.mean(list(found["by_class"].values())))
    # A class's accuracy weighs as many images as it has: together they are the accuracy.
    if name != "corruption":  # which shows a part of the test images
        weights = np.bincount(TEST.labels) / len(TEST.labels)
        assert weights @ list(found["by_class"].values()) == pytest.approx(found["accuracy"])
    assert found["top5_accuracy"] is None  # of three


@pytest.mark.parametrize("name", OF_CLASS)
def test_every_protocol_finds_classes_that_are_easy(name, results):
    least = {"finetune1": 60, "corruption": 50}.get(name, 90)  # 1 % of 240 labels are one a class
    assert results[name]["accuracy"] > least


@pytest.mark.parametrize("name", ["knn", "knn200", "linear", "transfer", "linear_sgd"])
def test_the_error_bar_is_that_of_a_fraction(name, results):
    part = results[name]["accuracy"] / 100
    assert results[name]["standard_error"] == pytest.approx(100 * np.sqrt(part * (1 - part) / 200))


@pytest.mark.parametrize("name", [name for name in OF_CLASS if name != "corruption"])
def test_shuffled_labels_score_as_chance(name):
    train, test = blobs(240, 0, shuffled=True), blobs(200, 1, shuffled=True)
    result = PROTOCOLS[name](jax.random.key(0), Subject(flat, train, test), **SHORT.get(name, {}))
    assert abs(result["accuracy"] - 100 / 3) < 4 * 100 * np.sqrt(2 / 9 / 200)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_reports_its_progress(name, results):
    fractions = [done for seen, _, done in results["seen"] if seen == name]
    assert fractions
    assert all(0 <= done <= 1 for done in fractions)


def untimed(result):
    return {name: value for name, value in result.items() if name not in ("seconds", "embed_seconds")}


@pytest.mark.parametrize("name", OF_FEATURES)
def test_features_score_as_the_encoder_that_made_them(name, results):
    train, test = embed(flat, TRAIN.images), embed(flat, TEST.images)
    subject = Subject.of_features(train, TRAIN.labels, test, TEST.labels)
    settings = SHORT.get(name, {})
    assert untimed(PROTOCOLS[name](jax.random.key(0), subject, **settings)) == untimed(results[name])


def test_protocols_that_share_a_subject_run_its_encoder_once_and_find_the_same(results, monkeypatch):
    batches = []

    def counted(encoder, images, **settings):
        batches.append(len(images))
        return forward(encoder, images, **settings)

    forward = features._forward
    monkeypatch.setattr(features, "_forward", counted)
    subject = Subject(flat, TRAIN, TEST)
    for name in OF_FEATURES:
        shared = PROTOCOLS[name](jax.random.key(0), subject, **SHORT.get(name, {}))
        assert untimed(shared) == untimed(results[name])
        assert len(batches) == 2, f"{name} after {batches}"  # the training images, and the test images
        assert shared["seconds"] > subject.embed_seconds > 0 or name in ("linear_sgd", "mlp", "deep")
    # Whole sets again only of what it has made: ten times the test images, corrupted.
    PROTOCOLS["corruption"](jax.random.key(0), subject, names=["brightness", "contrast"])
    assert len(batches) == 2 + 10


def test_kinds_of_labels_on_the_same_images_share_features_and_not_labels():
    other = TRAIN._replace(labels=TRAIN.labels % 2), TEST._replace(labels=TEST.labels % 2)
    cut = TRAIN._replace(images=TRAIN.images[:100], labels=TRAIN.labels[:100]), TEST
    made = subjects(flat, {"three": (TRAIN, TEST), "two": other, "few": cut})
    assert made["two"].train_features() is made["three"].train_features()
    assert made["two"].train.labels.max() == 1
    assert len(made["few"].train_features()) == 100
    again = made["three"].relabelled(None, None)
    assert again.test_features() is made["two"].test_features()
    assert again.test.labels is None


def test_settings_can_be_given_to_every_protocol_that_has_them():
    subject = Subject(flat, TRAIN, TEST)
    assert PROTOCOLS["knn"](jax.random.key(0), subject, k=3)["settings"]["k"] == 3
    linear = PROTOCOLS["linear"](jax.random.key(0), subject, l2=(0.1, 1.0), iterations=20)
    assert linear["l2_path"] == [0.1, 1.0]
    assert linear["settings"]["iterations"] == 20


# SimCLR's README on CIFAR-10, its B.8 (transfer) and B.5 (fine-tuning; the batch is ours); LooC's few shots of Flowers;
# task_classifiers.py of AMDIM (the batch is ours); MoCo's demo.
PUBLISHED = {
    "linear_sgd": {
        "epochs": 100,
        "batch_size": 512,
        "learning_rate": 0.1,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 0,
        "schedule": "cosine",
        "start_std": 0,
    },
    "transfer": {"l2": np.logspace(-6, 5, 45), "standardize": False},
    "finetune_grid": {
        "steps": 20_000,
        "batch_size": 256,
        "momentum": 0.9,
        "learning_rates": np.logspace(-4, -1, 7),
        "weight_decays": [0, *np.logspace(-6, -3, 7)],
        "decay_over_rate": True,
    },
    "fewshot5": {"shots": 5, "steps": 250, "learning_rate": 0.03, "draws": 10},
    "fewshot10": {"shots": 10, "steps": 250, "learning_rate": 0.03, "draws": 10},
    "mlp": {
        "hidden": 1024,
        "dropout": 0.2,
        "epochs": 120,
        "learning_rate": 2e-4,
        "drops": (80 / 120, 110 / 120),
        "weight_decay": 1e-5,
    },
    "knn200": {"k": 200, "vote": "weighted", "temperature": 0.1},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_protocol_has_the_published_settings(name):
    defaults = {key: p.default for key, p in inspect.signature(PROTOCOLS[name]).parameters.items()}
    for key, value in PUBLISHED[name].items():
        if isinstance(value, str | bool):
            assert defaults[key] == value
        else:
            np.testing.assert_allclose(defaults[key], value, rtol=1e-12, err_msg=key)


@pytest.mark.parametrize(("percent", "epochs"), [(1, 60), (10, 30)])
def test_fine_tuning_has_simclrs_rate_and_epochs(percent, epochs, monkeypatch):
    """B.5: Nesterov's momentum 0.9, 0.05 B / 256, no warm-up, no decay; 60 epochs for 1 %, 30 for 10 %."""
    asked = {}

    def stop(key, subject, **settings):
        asked.update(settings)
        raise InterruptedError

    monkeypatch.setattr(finetuning, "finetune", stop)
    with pytest.raises(InterruptedError):
        PROTOCOLS[f"finetune{percent}"](jax.random.key(0), Subject(flat, TRAIN, TEST), views=as_is)
    truth = {"fraction": percent / 100, "epochs": epochs, "learning_rate": 0.05, "rate_rule": "linear"}
    truth |= {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0, "schedule": "cosine"}
    assert {key: asked[key] for key in truth} == truth


def test_mocos_protocol_has_the_settings_of_its_code():
    """main_lincls.py: 100 epochs, batches of 256, rate 30, x 0.1 at epochs 60 and 80, SGD 0.9, no weight decay."""
    defaults = {name: p.default for name, p in inspect.signature(PROTOCOLS["linear_moco"]).parameters.items()}
    moco = {"epochs": 100, "batch_size": 256, "learning_rate": 30, "momentum": 0.9, "nesterov": False}
    moco |= {"weight_decay": 0, "schedule": "steps", "drop_factor": 0.1, "start_std": 0.01}
    assert moco.items() <= defaults.items()
    assert [drop * 100 for drop in defaults["drops"]] == [60, 80]
    views = probe_views(8, defaults["augmentation"])
    crop = dict(dict(views.recipes[0].settings)["steps"][0].settings)
    assert crop["distribution"] is augment.uniform_area_log_ratio
    assert (crop["area"], crop["method"], crop["antialias"]) == ((0.08, 1.0), "bilinear", True)
    # That of feature transformation (options/test_options.py, crop) keeps a fifth of the image at least.
    views = probe_views(8, "torchvision", 0.2)
    assert dict(dict(views.recipes[0].settings)["steps"][0].settings)["area"] == (0.2, 1.0)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_setting_of_a_protocol_is_in_its_result(name, results):
    """All numbers, words and truth values of its signature, but for those that play no part."""
    parameters = inspect.signature(PROTOCOLS[name]).parameters
    known = {
        name: p.default for name, p in parameters.items() if isinstance(p.default, bool | int | float | str)
    }
    assert known
    recorded = results[name]["settings"]
    unused = {"drop_factor"} if recorded.get("schedule") == "cosine" else set()
    unused |= {"temperature"} if recorded.get("vote") == "majority" else set()
    unused |= {"min_area"} if recorded.get("augmentation") in ("recipe", "none") else set()
    unused |= {"trust_coefficient"} if recorded.get("optimizer") == "sgd" else set()
    assert known.keys() - unused <= recorded.keys()


def test_the_augmentation_of_a_probe_can_be_chosen():
    subject, key = Subject(flat, TRAIN, TEST), jax.random.key(0)
    run = functools.partial(PROTOCOLS["linear_sgd"], key, subject, views=as_is, epochs=2)
    chosen = {name: run(augmentation=name) for name in ("recipe", "none", "tensorflow", "torchvision")}
    assert chosen["recipe"]["losses"] == pytest.approx(chosen["none"]["losses"], rel=1e-5)
    assert chosen["none"]["settings"]["augmented"] is False
    losses = {round(chosen[name]["losses"][-1], 5) for name in ("none", "tensorflow", "torchvision")}
    assert len(losses) == 3
    with pytest.raises(ValueError, match="augmentation must be"):
        run(augmentation="pillow")


def test_the_settings_tell_what_was_run(results):
    assert results["knn"]["settings"] == {"k": 10, "vote": "majority", "similarity": "cosine"}
    assert results["knn200"]["settings"]["k"] == 200
    assert results["knn200"]["settings"]["temperature"] == 0.1
    assert results["linear"]["l2"] in results["linear"]["l2_path"]
    assert len(results["linear"]["held_out_accuracies"]) == len(results["linear"]["l2_path"])
    assert results["linear_sgd"]["settings"]["augmented"] is False


def test_a_bank_of_fewer_than_200_uses_all_of_it_and_says_so():
    x, y = np.eye(3)[np.arange(30) % 3] + 0.01, np.arange(30) % 3
    result = PROTOCOLS["knn200"](None, Subject.of_features(x, y, x, y))
    assert result["settings"]["k"] == 30
    assert result["accuracy"] == 100


def test_the_settings_of_what_is_drawn_tell_the_seed_and_the_numbers(results):
    shots = results["fewshot5"]
    assert shots["settings"]["shots"] == 5
    assert len(shots["accuracies"]) == shots["settings"]["draws"] == 10
    assert shots["accuracy"] == pytest.approx(np.mean(shots["accuracies"]))
    assert shots["settings"]["seed"] == [0, 0]
    tuned = results["finetune10"]
    assert tuned["labelled_images"] == 24
    assert tuned["settings"]["fraction"] == 0.1
    assert len(results["transfer"]["l2_path"]) == 45
    assert results["transfer"]["l2_path"][0] == pytest.approx(1e-6)
    assert results["transfer"]["l2_path"][-1] == pytest.approx(1e5)
    corrupted = results["corruption"]
    assert set(corrupted["groups"]) == {"weather", "digital"}
    every = np.array(list(corrupted["corruptions"].values()))
    assert every.shape == (2, 5)
    assert corrupted["accuracy"] == pytest.approx(every.mean())
    assert corrupted["severe"] == pytest.approx(every[:, 2:].mean())
    assert list(results["rotation"]["by_degrees"]) == ["0", "90", "180", "270"]


def test_the_protocols_of_what_was_done_need_no_labels(results):
    for name in UNLABELLED:
        bare = PROTOCOLS[name](jax.random.key(0), Subject(flat, TRAIN, TEST).relabelled(None, None))
        assert bare["accuracy"] == results[name]["accuracy"]


@pytest.mark.parametrize("name", OF_CLASS)
def test_without_labels_every_protocol_says_so_before_it_embeds(name):
    def never(x):
        raise AssertionError("embedded before the labels were looked at")

    with pytest.raises(ValueError, match=f"{name} on 'blobs' needs labels"):
        PROTOCOLS[name](jax.random.key(0), Subject(never, TRAIN, TEST._replace(labels=None)))


@pytest.mark.parametrize("name", [name for name in OF_CLASS if name not in OF_FEATURES])
def test_a_protocol_that_needs_the_encoder_is_refused_on_features(name):
    subject = Subject.of_features(np.eye(4), np.arange(4) % 2, np.eye(4), np.arange(4) % 2)
    with pytest.raises(ValueError, match=r"needs the encoder itself.*Subject\(encoder, train, test\)"):
        PROTOCOLS[name](jax.random.key(0), subject)
