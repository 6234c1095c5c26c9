"""Mixing: do extrapolated positives and interpolated negatives help MoCo, and at which alpha?

Feature transformation (Zhu et al. 2021, arXiv:2108.02982) pulls positives apart, with a factor from Beta(alpha,
alpha), and mixes the queue's negatives: MoCo v2 gains 2.1 points of linear accuracy by both, at alpha 2.0 and 1.6
(ImageNet, 200 epochs; the table of the authors' README, the published column). The claim is that each helps, and both
together more.

Here a small encoder sees three epochs of CIFAR-10, with SimCLR's head: the published alphas, and half of each by
itself; 2.6 minutes of one core a run, 30 runs (--small: one epoch at 16 pixels, the published alphas, 12 runs).
"""

from jaxcl.study import Compare, Published, Study

STUDY = Study(
    config="moco_cifar10_cpu",
    grid=[
        {"extrapolate": [0.0, 2.0], "interpolate": [0.0, 1.6]},
        {"extrapolate": [1.0], "interpolate": [0.0]},
        {"extrapolate": [0.0], "interpolate": [0.8]},
    ],
    seeds=range(5),
    fixed={
        "head": "projection",
        "features": (16, 32, 64, 128),
        "batch_size": 256,
        "epochs": 3,
        "input": "resident",
    },
    protocols=("knn", "linear"),
    compare=(
        Compare("extrapolate"),
        Compare("interpolate"),
        Compare("extrapolate", values=(2.0,), across="interpolate"),
    ),
    published=Published(
        "authors, linear (ImageNet)",
        [({"extrapolate": 0.0, "interpolate": 0.0}, 67.5), ({"extrapolate": 2.0, "interpolate": 1.6}, 69.6)],
    ),
    picture={"knob": "extrapolate", "lines": "interpolate", "where": {"protocol": "knn"}},
)

SMALL = STUDY._replace(
    grid={"extrapolate": [0.0, 2.0], "interpolate": [0.0, 1.6]},
    seeds=range(3),
    fixed={**STUDY.fixed, "epochs": 1, "size": 16, "features": (16, 32, 64)},
)
