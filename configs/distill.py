"""Distillation: a student learns from images without labels what a teacher says of them (arXiv:2006.10029, section 2).

    jaxcl train configs/supervised.py --run-dir runs/teacher --data-dir DATA_DIR                       a teacher
    jaxcl train configs/distill.py --teacher runs/teacher --features 16 32 64 128 --data-dir DATA_DIR  a smaller student
    jaxcl train configs/distill.py --teacher runs/teacher --temperature 0.1 --data-dir DATA_DIR        self-distillation
    jaxcl evaluate runs/distill --protocol knn linear              ("joint" is the student's classifier)

The teacher is a run with a classifier: of supervised.py, from scratch or fine-tuned on few labels; or any run with
--probe. It must see images of the same size and classes, and stay until the student has learnt. SimCLRv2's recipe is a
teacher that was fine-tuned on 1 or 10 % of ImageNet's labels, all its images, 400 epochs, crop and flip, temperature 1
for a smaller student (0.1 for self-distillation), and otherwise the settings of pretraining: LARS with 0.1 sqrt(batch),
batch 4096, weight decay 1e-4, warm-up of 5 %:

    jaxcl train configs/distill.py --teacher runs/fine-tuned --data tfds:imagenet2012 --encoder resnet --depth 50
        --stem imagenet --size 224 --encoded --input host --optimizer lars --learning-rate 0.1 --rate-rule sqrt
        --batch-size 4096 --epochs 400 --weight-decay 1e-4 --dtype bfloat16 --data-dir DATA_DIR

The paper reports 73.9 and 77.5 % for a ResNet-50 that was taught by larger networks, which saw 1 and 10 % of the labels
(its abstract); fine-tuned itself, it has 57.9 and 68.4 %. Not run here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, methods, nets, optim, steps_across
from jaxcl.runs import open_run


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    teacher: str = "runs/teacher"  # the run directory of the teacher
    encoder: Literal["convnet", "resnet"] = "convnet"
    """Of the student: the one of simclr_cifar10_cpu.py, of these `features`; or a ResNet."""
    features: tuple[int, ...] = (32, 64, 128, 256)
    depth: int = 50
    width: int = 1
    stem: Literal["cifar", "imagenet"] = "cifar"
    sk: bool = False  # selective kernels (ratio 0.0625) and ResNet-D
    shortcuts: Literal["where_needed", "of_every_stage"] = "where_needed"  # as in supervised.py
    temperature: float = 1.0  # of both distributions: 1 for a smaller student, 0.1 for self-distillation
    scale: Literal["code", "equation"] = "code"  # of the loss: temperature^2 times the equation, or it
    distill_weight: float = 1.0  # below 1, the labels' cross-entropy has the rest; 1: no look at labels
    optimizer: Literal["adamw", "lars"] = "adamw"
    rate_rule: Literal["none", "linear", "sqrt"] = "none"  # how the rate grows with the batch


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm, rate = nets.batch_norm(axis_name=axis), knobs.learning_rate
    if knobs.rate_rule != "none":  # the recipes of SimCLR's code, whose batches run on from epoch to epoch
        steps = steps_across(knobs.epochs, about.count, knobs.batch_size) + 1
        rate = optim.scaled_learning_rate(rate, knobs.batch_size, rule=knobs.rate_rule)
    rate = optim.warmup_cosine(rate, steps=steps, warmup_steps=steps // 20)
    if knobs.teacher and not Path(knobs.teacher).is_dir():
        raise FileNotFoundError(
            f"--teacher {knobs.teacher} is not there. A student learns from its teacher's run directory, also when it"
            " goes on: put it back there."
        )
    taught_by = open_run(knobs.teacher)
    if taught_by.recipe.classify is None:
        raise ValueError(
            f"{knobs.teacher} has no classifier to learn from: train it with --probe, or fine-tune it."
        )
    encoder = nets.small_convnet(features=knobs.features, norm=norm, dtype=dtype)
    if knobs.encoder == "resnet":
        settings = {"stem": knobs.stem, "width": knobs.width, "selective": 0.0625 if knobs.sk else 0}
        encoder = nets.resnet(knobs.depth, norm=norm, dtype=dtype, shortcuts=knobs.shortcuts, **settings)
    views = augment.probe_views(size)
    parts = {"views": views, "encoder": lean(encoder), "head": nets.projection_head(norm=norm, mode="none")}
    method, classify = methods.distill(
        **parts,
        classes=len(taught_by.about.classes),
        teacher=methods.Teacher(taught_by.recipe.method.init, taught_by.recipe.classify),
        temperature=knobs.temperature,
        weight=knobs.distill_weight,
        factor=knobs.temperature**2 if knobs.scale == "code" else 1.0,
        start=0.01,
        axis_name=axis,
    )
    optimizer = optim.adamw(rate, weight_decay=knobs.weight_decay)
    if knobs.optimizer == "lars":
        # The classifier is decayed, and not adapted.
        apart = {"exclude": optim.is_norm_or_probe, "undecayed": optim.is_bias_or_norm}
        optimizer = optim.lars(rate, weight_decay=knobs.weight_decay, **apart)
    rest = {"probe_views": views, "classify": classify, "given": {"teacher": knobs.teacher}}
    rest["labelled"] = not (isinstance(knobs.distill_weight, int | float) and knobs.distill_weight == 1)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, **rest)
