"""Learning from labels: the reference row beside a pretrained encoder, its fine-tuning, and its transfer.

    jaxcl train configs/supervised.py --data-dir DATA_DIR                                         the reference row
    jaxcl train configs/supervised.py --init runs/simclr_cifar10_cpu --from-layer 1 --data-dir DATA_DIR      fine-tuned
    jaxcl train configs/supervised.py --init runs/RUN --data tfds:oxford_flowers102 --size 32     on another data set
    jaxcl evaluate runs/simclr_cifar10_cpu --beside runs/supervised            kNN and linear accuracy of both encoders
    jaxcl evaluate runs/supervised --protocol knn                  ("joint" is the classifier that was trained itself)

The encoder of simclr_cifar10_cpu.py, or a ResNet. SimCLRv2's fine-tuning (section 3 and README of its code: LARS with
0.005 sqrt(batch), 0.002 with --sk or a larger width, no decay, no warm-up, batch 1024, 60 epochs for 1 %, 30 for 10 %
of the labels, from layer 1 of the head; 57.9 and 68.4 % with ResNet-50) on its fixed lists of images is

    jaxcl train configs/supervised.py --init runs/simclr_v2 --from-layer 1 --data tfds:imagenet2012_subset/1pct
        --encoder resnet --depth 50 --stem imagenet --head-layers 3 --head-width 0 --size 224 --encoded --input host
        --optimizer lars --learning-rate 0.005 --rate-rule sqrt --batch-size 1024 --epochs 60
        --no-warmup --weight-decay 0 --dtype bfloat16 --data-dir DATA_DIR

(/10pct with --epochs 30; all labels, `tfds:imagenet2012`, with --epochs 30 --from-layer 0.) Its reference networks
(76.6 % with ResNet-50) were trained as torchvision's, by SGD with 0.1 for 256 images and a decay of 1e-4, but with a
cosine (an author, issue 10 of its code; of CIFAR-10, issue 83: ResNet-18, 100 epochs of batches of 128, no warm-up):

    jaxcl train configs/supervised.py --data tfds:imagenet2012 --encoder resnet --depth 50 --stem imagenet --size 224
        --encoded --input host --optimizer sgd --learning-rate 0.1 --rate-rule linear --weight-decay 1e-4
        --batch-size 256 --epochs 90 --no-warmup --dtype bfloat16 --data-dir DATA_DIR

Not run here. A run that starts from another begins with its batch statistics, and trains all parameters; the classifier
starts at zero. A reference row has the encoder and start of the run beside it: ResNets of MoCo, LooC and
simclr_cifar10.py have --initialization torch --no-zero-init-last-gamma, BYOL's --initialization haiku (of depth 18 and
34 --no-zero-init-last-gamma too), and depths 18 and 34 of simclr_imagenet.py, simclr_v2.py, simclr_cifar10.py --details
simclr and byol.py's presets of ImageNet --shortcuts of_every_stage, also to be fine-tuned. amdim.py has --encoder amdim
--amdim 256 10 2048 --standardize cifar10, yadim.py the same with 320 10 1280. Encoders of CPC (of patches), CMC (of
channels) and LooC++ have no reference row here.

Fine-tuned from torchvision's or MoCo's weights, by --init resnet50.safetensors (or .pth):

    jaxcl train configs/supervised.py --init resnet50.safetensors --data folder:PATH --encoder resnet --stem imagenet
        --pool torch --standardize imagenet --size 224
"""

from dataclasses import dataclass
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, methods, nets, optim, steps_across


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    encoder: Literal["convnet", "resnet", "amdim"] = "convnet"
    """The one of simclr_cifar10_cpu.py, of these `features`; a ResNet of depth, width, stem and `sk`; or AMDIM's."""
    features: tuple[int, ...] = (32, 64, 128, 256)
    depth: int = 50
    width: int = 1
    stem: Literal["cifar", "imagenet"] = "cifar"
    pool: Literal["same", "torch"] = "same"  # how the stem's max pool is padded
    standardize: Literal["none", "cifar10", "cifar10_moco", "stl10", "imagenet"] = "none"  # by whose figures
    amdim: tuple[int, int, int] = (256, 10, 2048)  # --features, --depth and --out of amdim.py or yadim.py
    sk: bool = False  # selective kernels (ratio 0.0625) and ResNet-D
    shortcuts: Literal["where_needed", "of_every_stage"] = "where_needed"
    """of_every_stage: a convolution on the shortcut of each stage's first block, as in SimCLR's and BYOL's code."""
    initialization: Literal["lecun", "torch", "haiku"] = "lecun"  # torch: MoCo's; haiku: BYOL's
    zero_init_last_gamma: bool = True  # whether residual branches start at zero: SimCLR's do, MoCo's do not
    head_layers: int = 2  # of the projection head of the run that this one starts from
    head_width: int = 512  # of its hidden layers; 0: as wide as what goes in
    from_layer: int = 0  # how many of them are kept
    smoothing: float = 0.0  # of the labels
    optimizer: Literal["adamw", "sgd", "lars"] = "adamw"  # sgd: Nesterov's momentum
    rate_rule: Literal["none", "linear", "sqrt"] = "none"  # how the rate grows with the batch
    warmup: bool = True  # linear, for a twentieth of the steps, before the cosine


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm, rate = nets.batch_norm(axis_name=axis), knobs.learning_rate
    if knobs.rate_rule != "none":  # the recipes of SimCLR's code, whose batches run on from epoch to epoch
        steps = steps_across(knobs.epochs, about.count, knobs.batch_size) + 1
        rate = optim.scaled_learning_rate(rate, knobs.batch_size, rule=knobs.rate_rule)
    rate = optim.warmup_cosine(rate, steps=steps, warmup_steps=steps // 20 if knobs.warmup else 0)
    encoder = nets.small_convnet(features=knobs.features, norm=norm, dtype=dtype)
    if knobs.encoder == "resnet":
        settings = {"selective": 0.0625 if knobs.sk else 0, "initialization": knobs.initialization}
        settings |= {n: getattr(knobs, n) for n in ("stem", "width", "pool", "zero_init_last_gamma")}
        encoder = nets.resnet(knobs.depth, norm=norm, dtype=dtype, shortcuts=knobs.shortcuts, **settings)
    if knobs.encoder == "amdim":
        features, depth, out = knobs.amdim
        ends = {"out": out, "biases": "torch"}
        encoder = nets.amdim(features=features, depth=depth, norm=norm, dtype=dtype, **ends)
    if knobs.standardize != "none":
        encoder = nets.standardized(encoder, **nets.STATISTICS[knobs.standardize])
    head = {"layers": knobs.head_layers, "width": knobs.head_width or None, "until": knobs.from_layer}
    views = augment.probe_views(size)
    parts = {"views": views, "encoder": lean(encoder), "head": nets.projection_head(norm=norm, **head)}
    told = {"classes": len(about.classes), "smoothing": knobs.smoothing, "start": 0.0 if knobs.init else 0.01}
    method, classify = methods.supervised(**parts, **told, axis_name=axis)
    decay = {"weight_decay": knobs.weight_decay}
    # The classifier is decayed, and not adapted; by SGD its bias too, as in SimCLR's code.
    apart = {"exclude": optim.is_norm_or_probe, "undecayed": optim.is_bias_or_norm}
    optimizers = {
        "adamw": lambda: optim.adamw(rate, **decay),
        "sgd": lambda: optim.sgd(rate, nesterov=True, undecayed=optim.is_norm_of_encoder, **decay),
        "lars": lambda: optim.lars(rate, **apart, **decay),
    }
    carries = ("encoder", "head") if knobs.from_layer else ("encoder",)
    rest = {"probe_views": views, "classify": classify, "carries": carries}
    return Recipe(method, optimizers[knobs.optimizer](), rate, views, steps, knobs.batch_size, **rest)
