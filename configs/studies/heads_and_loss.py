"""Heads and loss: do the generalized contrastive losses differ less under a deeper head?

"Intriguing Properties of Contrastive Losses" (arXiv:2011.02803, figure 1) finds that the losses of the family, tuned,
reach nearly the same linear accuracy: what differences there are with a 2-layer head shrink with longer training, and
vanish with a 3-layer head. The published column is that of a ResNet-50 after 100 epochs of ImageNet, one run each, read
off the figure to 0.15 points. A difference of differences, "layers 3 - 2", is negative where a loss falls behind NT-
Xent with the third layer, and 0 if the head changes nothing: the finding is that those of losses which are behind at 2
layers are positive.

Here a small encoder sees three epochs of CIFAR-10; about 4 minutes of one core a run, 50 runs, not run in this form
(three seeds of it: benchmarks/results/losses-cifar10.md; --small: one epoch at 16 pixels, three losses, 18 runs of half
a minute: benchmarks/results/heads-and-loss-small.md, with five seeds).
"""

from jaxcl.study import Compare, Published, Study

LOSSES = ("nt_xent", "decoupled", "swd_sphere", "swd_normal", "swd_cube")
# Linear accuracy with a 2-layer and a 3-layer head.
FIGURE_1 = ((65.5, 66.7), (66.0, 66.5), (65.8, 66.5), (64.9, 66.6), (64.1, 66.2))

STUDY = Study(
    config="losses_cifar10",
    grid={"head_layers": [2, 3], "loss": LOSSES},
    seeds=range(5),
    fixed={"epochs": 3, "input": "resident"},
    protocols=("linear", "knn"),
    compare=(Compare("loss"), Compare("loss", across="head_layers")),
    published=Published(
        "paper, linear (ImageNet; figure 1)",
        [
            ({"loss": loss, "head_layers": layers}, figure)
            for loss, figures in zip(LOSSES, FIGURE_1, strict=True)
            for layers, figure in zip((2, 3), figures, strict=True)
        ],
    ),
    picture={"knob": "head_layers", "lines": "loss", "where": {"protocol": "linear"}},
)

SMALL = STUDY._replace(
    grid={"head_layers": [2, 3], "loss": ["nt_xent", "swd_sphere", "swd_cube"]},
    seeds=range(3),
    fixed={"epochs": 1, "input": "resident", "size": 16, "features": (16, 32, 64)},
)
