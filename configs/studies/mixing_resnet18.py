"""Mixing, with a ResNet-18: does feature transformation help MoCo v2, and must it begin with the first step?

Feature transformation (Zhu et al. 2021, arXiv:2108.02982): positives are extrapolated with a factor from Beta(2, 2),
the queue's negatives interpolated with one from Beta(1.6, 1.6); in the authors' code from the first step on. MoCo v2
gains 2.1 points of linear accuracy by it (ImageNet, 200 epochs; the table of the authors' README, the published
column).

The recipe is that of the MoCo authors' demo on CIFAR-10, with MoCo v2's head and temperature; runs differ in the
transformation alone: none, from the first step on, or after five epochs. For one GPU: 9 runs of 40 epochs.
"""

from jaxcl.study import Compare, Published, Study

STUDY = Study(
    config="moco_cifar10",
    grid=[{"extrapolate": [0.0]}, {"extrapolate": [2.0], "interpolate": [1.6], "start_epoch": [0.0, 5.0]}],
    seeds=range(3),
    fixed={"head": "mlp", "temperature": 0.2, "epochs": 40, "input": "resident", "save_every": 5000},
    protocols=("knn200", "linear"),
    compare=(Compare("extrapolate"), Compare("start_epoch", minus=0.0)),
    published=Published(
        "authors, linear (ImageNet)",
        [({"extrapolate": 0.0}, 67.5), ({"extrapolate": 2.0, "start_epoch": 0.0}, 69.6)],
    ),
    picture={"knob": "start_epoch", "lines": "protocol", "where": {"extrapolate": "2.0"}},
)
