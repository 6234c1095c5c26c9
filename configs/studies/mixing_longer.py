"""Mixing in longer runs: what do extrapolated positives cost MoCo after eight epochs?

Feature transformation (Zhu et al. 2021, arXiv:2108.02982) pulls positives apart, with a factor from Beta(2, 2), and
mixes the queue's negatives: MoCo v2 gains 2.1 points of linear accuracy by both (ImageNet, 200 epochs; the table of the
authors' README). The study `mixing` measures what each does to a small encoder in three epochs of CIFAR-10:
extrapolation is what costs accuracy for certain.

Here the same encoder sees eight, without extrapolation or with the authors'; 7 minutes of one core a run, 6 runs.
"""

from jaxcl.study import Compare, Study

STUDY = Study(
    config="moco_cifar10_cpu",
    grid={"extrapolate": [0.0, 2.0]},
    seeds=range(3),
    fixed={
        "head": "projection",
        "features": (16, 32, 64, 128),
        "batch_size": 256,
        "epochs": 8,
        "input": "resident",
    },
    protocols=("knn", "linear"),
    compare=(Compare("extrapolate"),),
    picture={"knob": "extrapolate", "lines": "protocol"},
)
