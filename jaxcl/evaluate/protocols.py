"""The evaluations by name: one table, one signature, the settings written into every result.

    subject = Subject(encoder, train, test)
    PROTOCOLS["knn"](key, subject)                          # embeds the images
    PROTOCOLS["linear"](key, subject)                       # has their features already

    knn, knn200        neighbors                                      class, from features
    linear, transfer   logistic regression, l2 chosen on held-out     class, from features
    linear_sgd         the same by SGD on augmented images            class, from features where there are no views
    linear_moco        so with MoCo's settings                        class
    mlp                one hidden layer, as AMDIM's second probe      class, from features where there are no views
    fewshot5, 10       5 or 10 labelled images a class                class, from features, by the key
    finetune1, 10      the whole encoder on 1 or 10 % of the labels   class
    finetune100        on all: transfer, where the data is another    class
    finetune_grid      so, with rate and decay chosen by themselves   class
    corruption         the linear classifier on corrupted images      class
    rotation, hue      which of four rotations, of four hue shifts    needs no labels

Those that read features share the subject's; they need no encoder where features were computed elsewhere
(`Subject.of_features`). The same code scores raw pixels (`encoder=lambda x: x.reshape(len(x), -1)`, or the features
`raw_pixels`), an untrained encoder and a trained one, so that their numbers compare.

Every result holds "protocol", "accuracy" (top-1 on the test set, in percent), "standard_error" (of that accuracy over
the draw of the test images, in percent: `100 sqrt(a (1 - a) / n)` where nothing else is said), "train_images",
"test_images", "features" (the width), "settings", "seconds", and what the protocol adds. Those that ask for the class
also hold "top5_accuracy", "mean_class_accuracy" and "by_class" (`figures`); "rotation" and "hue" show every image in
all of their four classes, and hold "by_degrees". The seconds of those from
features count the embedding in, whether it was done for them or for a protocol before; "embed_seconds" is its part.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxcl import augment
from jaxcl.evaluate import transforms
from jaxcl.evaluate.checks import check_sets
from jaxcl.evaluate.corruptions import CORRUPTIONS
from jaxcl.evaluate.fewshot import few_shot
from jaxcl.evaluate.figures import Hits, figures, hits, ranked
from jaxcl.evaluate.finetune import FineTuned, finetune
from jaxcl.evaluate.grid import DECAYS, RATES, finetune_grid
from jaxcl.evaluate.knn import knn_ranked, knn_ranked_each
from jaxcl.evaluate.mlp import mlp_probe
from jaxcl.evaluate.probe import L2, LinearProbe, linear_probe, linear_probe_each
from jaxcl.evaluate.progress import Progress, stage
from jaxcl.evaluate.robustness import robustness
from jaxcl.evaluate.sgd import linear_sgd
from jaxcl.evaluate.subject import Subject
from jaxcl.images import as_float
from jaxcl.typing import Array, Batch, Views

# SimCLR's appendix B.8 and Kornblith et al. (2019): 45 values, evenly spaced in their logarithm.
TRANSFER_L2 = tuple(float(x) for x in np.logspace(-6, 5, 45))

# What a protocol returns: numbers, strings, lists and dicts, which json.dump takes as they are.
Result = dict[str, Any]


def _knn(
    protocol: str,
    key: Array | None,
    subject: Subject,
    *,
    k: int,
    vote: str,
    temperature: float = 0.1,
    views: Views | None = None,
    progress: Progress | None = None,
) -> Result:
    """`knn`. A small data set has fewer neighbors than 200; the k that was used is in the settings."""
    return _knn_each(protocol, [subject], k=k, vote=vote, temperature=temperature, progress=progress)[0]


def _knn_each(
    protocol: str,
    subjects: Sequence[Subject],
    *,
    k: int,
    vote: str,
    temperature: float = 0.1,
    progress: Progress | None = None,
) -> list[Result]:
    """ "knn" of subjects that differ in the encoder alone: several in one program."""
    labels, test_labels = check_sets(protocol, subjects[0].train, subjects[0].test)
    banks = [subject.train_features(progress) for subject in subjects]
    queries = [subject.test_features(progress) for subject in subjects]
    stage(progress, "fitting")(0.0)
    start = time.perf_counter()
    k = min(k, len(labels))
    how: dict[str, Any] = {"k": k, "vote": vote, "temperature": temperature}
    if len(subjects) == 1:
        ranks = [knn_ranked(banks[0], labels, queries[0], **how)]
    else:
        ranks = list(knn_ranked_each(np.stack(banks), labels, np.stack(queries), **how))
    weighted = {"temperature": temperature} if vote == "weighted" else {}
    settings = {"k": k, "vote": vote, "similarity": "cosine", **weighted}
    seconds = (time.perf_counter() - start) / len(subjects)
    made = []
    for subject, best in zip(subjects, ranks, strict=True):
        found = hits(best, test_labels, len(np.unique(labels)))
        more = _figures(found, subject)
        made.append(_of_features(protocol, subject, float(found.first.mean()), settings, seconds, more))
    return made


def _linear(
    protocol: str,
    key: Array | None,
    subject: Subject,
    *,
    l2: Sequence[float],
    held_out: float = 0.1,
    standardize: bool = True,
    tolerance: float = 1e-5,
    iterations: int = 500,
    views: Views | None = None,
    progress: Progress | None = None,
) -> Result:
    """`linear_probe`: "l2", "l2_path", "held_out_accuracies" and whether the fits converged come with the result.

    "transfer" is as in SimCLR's appendix B.8: features as they are, no augmentation, 45 values of l2 from 1e-6 to 1e5.
    l2 is chosen on held-out training images, then the classifier is fitted to all of them. l2 counts against the mean
    cross-entropy (ours: the paper does not say whether against mean or sum). Images keep their size or are resized when
    they are loaded. The paper reports "mean_class_accuracy" for some data sets.
    """
    how: dict[str, Any] = {
        "held_out": held_out,
        "standardize": standardize,
        "tolerance": tolerance,
        "iterations": iterations,
    }
    return _linear_each(protocol, [subject], l2=l2, progress=progress, **how)[0]


def _linear_each(
    protocol: str,
    subjects: Sequence[Subject],
    *,
    l2: Sequence[float],
    held_out: float = 0.1,
    standardize: bool = True,
    tolerance: float = 1e-5,
    iterations: int = 500,
    progress: Progress | None = None,
) -> list[Result]:
    """ "linear" of subjects that differ in the encoder alone: several by one minimizer."""
    labels, test_labels = check_sets(protocol, subjects[0].train, subjects[0].test)
    train_features = [subject.train_features(progress) for subject in subjects]
    test_features = [subject.test_features(progress) for subject in subjects]
    stage(progress, "fitting")(0.0)
    start = time.perf_counter()
    settings: dict[str, Any] = {
        "held_out": held_out,
        "standardize": standardize,
        "tolerance": tolerance,
        "iterations": iterations,
    }
    if len(subjects) == 1:
        given = train_features[0], labels, test_features[0], test_labels
        probes = [linear_probe(*given, l2=l2, progress=progress, **settings)]
    else:
        stacked = np.stack(train_features), labels, np.stack(test_features), test_labels
        probes = linear_probe_each(*stacked, l2=l2, **settings)
    seconds = (time.perf_counter() - start) / len(subjects)
    settings = {"optimizer": "L-BFGS", **settings}
    return [
        _of_features(
            protocol,
            subject,
            probe.accuracy,
            settings,
            seconds,
            dict(probe.details) | _of_linear(probe, subject),
        )
        for subject, probe in zip(subjects, probes, strict=True)
    ]


def _linear_sgd(
    protocol: str,
    key: Array,
    subject: Subject,
    *,
    views: Views | None = None,
    epochs: int = 100,
    batch_size: int = 512,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    nesterov: bool = True,
    weight_decay: float = 0.0,
    schedule: str = "cosine",
    drops: Sequence[float] = (0.6, 0.8),
    drop_factor: float = 0.1,
    start_std: float = 0.0,
    augmentation: str = "recipe",
    progress: Progress | None = None,
) -> Result:
    """`linear_sgd`. The augmentation is that of the recipe ("recipe": its `probe_views`), crop and flip by
    "tensorflow" (SimCLR's) or by "torchvision" (MoCo's), or "none": features of the images as they are.

    "linear_moco" is the protocol of MoCo's code (main_lincls.py), by which LooC and feature transformation are
    evaluated as well: 100 epochs (LooC on ImageNet-100: 200), batches of 256, learning rate 30, times 0.1 at 3/5 and
    4/5 of the epochs, momentum 0.9 without Nesterov, no weight decay, weights from N(0, 0.01^2). Its accuracy is that
    after the last epoch. (The code also keeps the best over test accuracies of all epochs.)
    """
    check_sets(protocol, subject.train, subject.test)
    start = time.perf_counter()
    views = _chosen(augmentation, views, subject)
    settings: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": min(batch_size, len(subject.train.images)),
        "learning_rate": learning_rate,
        "momentum": momentum,
        "nesterov": nesterov,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "drops": [float(drop) for drop in drops],
        "drop_factor": drop_factor,
        "start_std": start_std,
    }
    probe = linear_sgd(key, subject, views=views, progress=stage(progress, "training"), **settings)
    settings = {
        "optimizer": "SGD",
        "augmentation": augmentation,
        "augmented": views is not None,
        **_of_schedule(settings),
    }
    seconds = time.perf_counter() - start
    return {
        **_result(protocol, subject, probe.accuracy, settings, seconds),
        "features": len(probe.weights),
        **_of_linear(probe, subject),
        **probe.details,
    }


def _mlp(
    key: Array,
    subject: Subject,
    *,
    views: Views | None = None,
    hidden: int = 1024,
    dropout: float = 0.2,
    epochs: int = 120,
    batch_size: int = 256,
    learning_rate: float = 2e-4,
    drops: Sequence[float] = (80 / 120, 110 / 120),
    weight_decay: float = 1e-5,
    progress: Progress | None = None,
) -> Result:
    """`mlp_probe`; a training set of fewer images than the batch is one batch."""
    check_sets("mlp", subject.train, subject.test)
    start = time.perf_counter()
    settings: dict[str, Any] = {
        "hidden": hidden,
        "dropout": dropout,
        "epochs": epochs,
        "batch_size": min(batch_size, len(subject.train.images)),
        "learning_rate": learning_rate,
        "drops": list(drops),
        "weight_decay": weight_decay,
    }
    probe = mlp_probe(key, subject, views=views, progress=stage(progress, "training"), **settings)
    settings = {"optimizer": "Adam, b1 = 0.8", "augmented": views is not None, "seed": _seed(key), **settings}
    seconds = time.perf_counter() - start
    return {
        **_result("mlp", subject, probe.accuracy, settings, seconds),
        "features": len(probe.params["hidden"]),
        **_figures(probe.hits, subject),
        **probe.details,
    }


def _few_shot(
    protocol: str,
    key: Array,
    subject: Subject,
    *,
    shots: int,
    views: Views | None = None,
    draws: int = 10,
    steps: int = 250,
    learning_rate: float = 0.03,
    standardize: bool = True,
    progress: Progress | None = None,
) -> Result:
    """`few_shot`: "accuracy" is the mean over draws, "interval" half the width of its 95 % confidence
    interval, both in percent."""
    labels, test_labels = check_sets(protocol, subject.train, subject.test)
    settings: dict[str, Any] = {
        "shots": shots,
        "draws": draws,
        "steps": steps,
        "learning_rate": learning_rate,
        "standardize": standardize,
    }
    train_features, test_features = subject.train_features(progress), subject.test_features(progress)
    stage(progress, "fitting")(0.0)
    start = time.perf_counter()
    names = subject.train.classes
    score = few_shot(key, train_features, labels, test_features, test_labels, names=names, **settings)
    settings = {"optimizer": "Adam", "seed": _seed(key), **settings}
    seconds = time.perf_counter() - start + subject.embed_seconds
    return {
        **_result(f"fewshot{shots}", subject, score.mean, settings, seconds),
        "interval": None if draws == 1 else 100 * score.interval,
        "accuracies": [100 * float(accuracy) for accuracy in score.accuracies],
        "features": int(train_features.shape[1]),
        **_figures(score.hits, subject),
    }


def _finetune(
    percent: int,
    key: Array,
    subject: Subject,
    *,
    views: Views | None = None,
    epochs: int | None = None,
    batch_size: int = 128,
    learning_rate: float = 0.05,
    momentum: float = 0.9,
    nesterov: bool = True,
    schedule: str = "cosine",
    drops: Sequence[float] = (0.6, 0.8),
    drop_factor: float = 0.1,
    weight_decay: float = 0.0,
    augmentation: str = "recipe",
    progress: Progress | None = None,
) -> Result:
    """`finetune` on so many percent of the labels: 60 epochs for 1 %, 30 for more. The augmentation as for
    "linear_sgd", and crop and flip where the recipe has none."""
    protocol = f"finetune{percent}"
    check_sets(protocol, subject.train, subject.test)
    start = time.perf_counter()
    settings: dict[str, Any] = {
        "fraction": percent / 100,
        "epochs": (60 if percent == 1 else 30) if epochs is None else epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "momentum": momentum,
        "nesterov": nesterov,
        "schedule": schedule,
        "drops": [float(drop) for drop in drops],
        "drop_factor": drop_factor,
        "weight_decay": weight_decay,
    }
    augmentation, views = _for_finetuning(augmentation, views, subject)
    tuned = finetune(key, subject, views=views, progress=progress, **settings)
    return _of_finetuned(protocol, key, subject, tuned, _of_schedule(settings), augmentation, start)


def _finetune_grid(
    key: Array,
    subject: Subject,
    *,
    views: Views | None = None,
    learning_rates: Sequence[float] = RATES,
    weight_decays: Sequence[float] = DECAYS,
    steps: int = 20_000,
    batch_size: int = 256,
    held_out: float = 0.1,
    momentum: float = 0.9,
    nesterov: bool = True,
    schedule: str = "cosine",
    augmentation: str = "recipe",
    progress: Progress | None = None,
) -> Result:
    """`finetune_grid`: SimCLR's transfer by fine-tuning, 57 trainings unless fewer rates and decays are named. The
    chosen ones and "held_out_accuracies" come with the result. The augmentation as for "finetune100"."""
    check_sets("finetune_grid", subject.train, subject.test)
    start = time.perf_counter()
    settings: dict[str, Any] = {
        "steps": steps,
        "batch_size": batch_size,
        "held_out": held_out,
        "momentum": momentum,
        "nesterov": nesterov,
        "schedule": schedule,
    }
    augmentation, views = _for_finetuning(augmentation, views, subject)
    grid: dict[str, Any] = {"learning_rates": learning_rates, "weight_decays": weight_decays}
    tuned = finetune_grid(key, subject, views=views, progress=progress, **grid, **settings)
    settings |= {name: tuned.details[name] for name in ("learning_rate", "weight_decay")}
    return _of_finetuned("finetune_grid", key, subject, tuned, settings, augmentation, start)


def _for_finetuning(augmentation: str, views: Views | None, subject: Subject) -> tuple[str, Views | None]:
    """Its name and the views, which fine-tuning cannot do without."""
    if augmentation == "recipe" and views is None:
        augmentation = "tensorflow"
    return augmentation, _as_they_are if augmentation == "none" else _chosen(augmentation, views, subject)


def _of_finetuned(protocol, key, subject: Subject, tuned: FineTuned, settings, augmentation, start) -> Result:
    """What the protocols that fine-tune return; `start` is when they began."""
    told = {"optimizer": "SGD", "augmentation": augmentation, "batch_statistics": "of pretraining"}
    seconds = time.perf_counter() - start
    return {
        **_result(protocol, subject, tuned.accuracy, {**told, "seed": _seed(key), **settings}, seconds),
        "labelled_images": len(tuned.rows),
        "features": len(tuned.weights),
        **_figures(tuned.hits, subject),
        **tuned.details,
    }


def _transform(
    protocol: str,
    probe_of: Callable[..., transforms.TransformProbe],
    names: tuple[int, ...],
    key: Array,
    subject: Subject,
    *,
    views: Views | None = None,
    most: int = 10000,
    l2: Sequence[float] = L2,
    held_out: float = 0.1,
    standardize: bool = True,
    tolerance: float = 1e-5,
    iterations: int = 500,
    progress: Progress | None = None,
) -> Result:
    """`rotation_probe` or `hue_probe`; the labels of the images are not used."""
    start = time.perf_counter()
    given: dict[str, Any] = {"most": most, "held_out": held_out, "standardize": standardize}
    given |= {"tolerance": tolerance, "iterations": iterations}
    score = probe_of(key, subject, l2=l2, progress=progress, **given)
    settings = {"degrees": list(names), "optimizer": "L-BFGS", "seed": _seed(key), **given}
    seconds = time.perf_counter() - start
    return {
        **_result(protocol, subject, score.accuracy, settings, seconds),
        "train_images": score.train_images,
        "standard_error": 100 * score.standard_error,
        "by_degrees": {str(name): 100 * float(a) for name, a in zip(names, score.by_transform, strict=True)},
        "features": len(score.probe.weights),
        **score.probe.details,
    }


def _corruption(
    key: Array,
    subject: Subject,
    *,
    views: Views | None = None,
    images: int | None = None,
    names: Sequence[str] = tuple(CORRUPTIONS),
    l2: Sequence[float] = L2,
    held_out: float = 0.1,
    standardize: bool = True,
    tolerance: float = 1e-5,
    iterations: int = 500,
    progress: Progress | None = None,
) -> Result:
    """`robustness`: "accuracy" is the mean over 15 corruptions and 5 severities; "groups", "severe" (severities 3 to
    5), "clean_accuracy" and "corruptions" (five severities each) beside it, all in percent."""
    check_sets("corruption", subject.train, subject.test)
    start = time.perf_counter()
    given: dict[str, Any] = {"held_out": held_out, "standardize": standardize}
    given |= {"tolerance": tolerance, "iterations": iterations}
    score = robustness(key, subject, images=images, names=names, l2=l2, progress=progress, **given)
    most = len(subject.test.images)
    shown = most if images is None else min(images, most)
    settings = {"names": list(names), "severities": 5, "images": images, "seed": _seed(key)}
    settings |= {"classifier": "linear, fitted to clean images", **given}
    seconds = time.perf_counter() - start
    return {
        **_result("corruption", subject, score.mean, settings, seconds),
        "test_images": shown,
        "standard_error": 100 * score.standard_error,
        "clean_accuracy": 100 * score.clean,
        "severe": 100 * score.severe,
        "groups": {group: 100 * mean for group, mean in score.groups.items()},
        "corruptions": {name: [100 * float(a) for a in five] for name, five in score.accuracies.items()},
        "features": len(score.probe.weights),
        **figures(score.hits, score.labels, names=subject.test.classes),
        **score.probe.details,
    }


def _of_linear(probe: LinearProbe, subject: Subject) -> Result:
    """The figures of a linear classifier on the test images."""
    features = subject.test_features().astype(probe.weights.dtype, copy=False)
    best = ranked(features @ probe.weights + probe.bias, probe.classes)
    return _figures(hits(best, np.asarray(subject.test.labels), len(probe.classes)), subject)


def _figures(found: Hits, subject: Subject) -> Result:
    return figures(found, np.asarray(subject.test.labels), names=subject.test.classes)


def _chosen(augmentation: str, views: Views | None, subject: Subject) -> Views | None:
    """The views that a classifier is trained on; None where it sees the images as they are."""
    choices = {"recipe": views, "none": None}
    if augmentation not in (*choices, "tensorflow", "torchvision"):
        raise ValueError(
            f'augmentation must be "recipe", "tensorflow", "torchvision" or "none"; got {augmentation!r}.'
        )
    if augmentation in choices:
        return choices[augmentation]
    subject.encoder_for("A probe on augmented images")
    return _probe_views(subject.train.images.shape[1], augmentation)


# The same object at every call, so that the step is compiled once.
@functools.cache
def _probe_views(size: int, library: str) -> Views:
    return augment.probe_views(size, library=library)


def _as_they_are(key: Array, batch: Batch) -> tuple[Array, ...]:
    return (as_float(batch["image"]),)


def _of_schedule(settings: dict[str, Any]) -> dict[str, Any]:
    """Without what a schedule that does not fall in steps has no use for."""
    unused = () if settings["schedule"] == "steps" else ("drops", "drop_factor")
    return {name: value for name, value in settings.items() if name not in unused}


def _seed(key: Array) -> list[int]:
    """The key that all draws are a function of, as numbers."""
    return np.asarray(jax.random.key_data(key)).tolist()


def _of_features(protocol, subject: Subject, accuracy, settings, seconds: float, more: Mapping) -> Result:
    """What the protocols that read features return; `seconds` are those of the fit."""
    return {
        **_result(protocol, subject, accuracy, settings, seconds + subject.embed_seconds),
        "features": int(subject.train_features().shape[1]),
        **more,
        "embed_seconds": subject.embed_seconds,
    }


def _result(protocol: str, subject: Subject, accuracy: float, settings, seconds: float) -> Result:
    test_images = len(subject.test.images)
    return {
        "protocol": protocol,
        "accuracy": 100 * accuracy,
        "standard_error": 100 * float(np.sqrt(accuracy * (1 - accuracy) / test_images)),
        "train_images": len(subject.train.images),
        "test_images": test_images,
        "settings": settings,
        "seconds": seconds,
    }


MOCO: dict[str, Any] = {
    "epochs": 100,
    "batch_size": 256,
    "learning_rate": 30.0,
    "nesterov": False,
    "schedule": "steps",
    "start_std": 0.01,
    "augmentation": "torchvision",
}

# name -> (key, subject, *, settings of its own, views=None, progress=None) -> Result. `views` matters to "linear_sgd",
# "mlp" and the "finetune"s alone; the key to what draws: not to "knn", "linear" and their kin.
PROTOCOLS: dict[str, Callable[..., Result]] = {
    "knn": functools.partial(_knn, "knn", k=10, vote="majority"),
    "knn200": functools.partial(_knn, "knn200", k=200, vote="weighted"),
    "linear": functools.partial(_linear, "linear", l2=L2),
    "transfer": functools.partial(_linear, "transfer", l2=TRANSFER_L2, standardize=False),
    "linear_sgd": functools.partial(_linear_sgd, "linear_sgd"),
    "linear_moco": functools.partial(_linear_sgd, "linear_moco", **MOCO),
    "mlp": _mlp,
    "fewshot5": functools.partial(_few_shot, "fewshot5", shots=5),
    "fewshot10": functools.partial(_few_shot, "fewshot10", shots=10),
    "finetune1": functools.partial(_finetune, 1),
    "finetune10": functools.partial(_finetune, 10),
    "finetune100": functools.partial(_finetune, 100),
    "finetune_grid": _finetune_grid,
    "rotation": functools.partial(_transform, "rotation", transforms.rotation_probe, transforms.ANGLES),
    "hue": functools.partial(_transform, "hue", transforms.hue_probe, transforms.SHIFTS),
    "corruption": _corruption,
}

# Those that can ask several subjects at once, which differ in the encoder alone: (subjects, *, settings, progress=None)
# -> a Result each, as PROTOCOLS has them one by one up to rounding. "seconds" is a subject's share.
EACH: dict[str, Callable[..., list[Result]]] = {
    "knn": functools.partial(_knn_each, "knn", k=10, vote="majority"),
    "knn200": functools.partial(_knn_each, "knn200", k=200, vote="weighted"),
    "linear": functools.partial(_linear_each, "linear", l2=L2),
    "transfer": functools.partial(_linear_each, "transfer", l2=TRANSFER_L2, standardize=False),
}
