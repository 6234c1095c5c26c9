"""Mixing in longer runs: does what it costs MoCo shrink with the length of a run?

Feature transformation (Zhu et al. 2021, arXiv:2108.02982) extrapolates positives with a factor from Beta(2, 2) and
interpolates the queue's negatives with one from Beta(1.6, 1.6). MoCo v2 gains 2.1 points of linear accuracy by it
(ImageNet, 200 epochs; the table of the authors' README, the published column). `mixing` measures that it costs a small
encoder accuracy in three epochs of CIFAR-10.

Here the same encoder sees three epochs or ten, each with a schedule of its own, with both or none; 9 minutes of one
core a run of ten epochs, 12 runs.
"""

from jaxcl.study import Compare, Published, Study

STUDY = Study(
    config="moco_cifar10_cpu",
    grid=[
        {"extrapolate": [0.0], "epochs": [3, 10]},
        {"extrapolate": [2.0], "interpolate": [1.6], "epochs": [3, 10]},
    ],
    seeds=range(3),
    fixed={"head": "projection", "features": (16, 32, 64, 128), "batch_size": 256, "input": "resident"},
    protocols=("knn", "linear"),
    compare=(Compare("extrapolate"), Compare("extrapolate", across="epochs")),
    published=Published(
        "authors, linear (ImageNet)", [({"extrapolate": 0.0}, 67.5), ({"extrapolate": 2.0}, 69.6)]
    ),
    picture={"knob": "epochs", "lines": "extrapolate", "where": {"protocol": "linear"}},
)
