"""Augmentations left out: is one of SimCLR's augmentations enough, and which two are needed?

SimCLR (arXiv:2002.05709, section 3.1, figure 5) trains with each augmentation alone and with each pair, on one of two
branches: no single one suffices to learn good representations, and random crops with color distortion stand out. The
comparisons ask what crop and color lose where either is left out ("second crop - color at first crop" is crops alone)
or replaced by another. The figure's values are not quoted here: it shows a ResNet-50 on ImageNet.

Here a small encoder sees four epochs of CIFAR-10: 3 minutes of one core a run, 147 runs, not run (--small: four
augmentations, two epochs at 16 pixels, 48 runs of less than a minute: benchmarks/results/augmentations-small.md). At 16
pixels the published blur, of a tenth of the height, leaves an image as it is, so noise stands in its place.
"""

from jaxcl.study import Compare, Study

ALL = ("crop", "cutout", "color", "sobel", "noise", "blur", "rotate")

STUDY = Study(
    config="simclr_augmentations",
    grid={"first": ALL, "second": ALL},
    seeds=range(3),
    fixed={"input": "resident"},
    protocols=("linear",),
    compare=(
        Compare("second", minus="color", where={"first": "crop"}),
        Compare("first", minus="crop", where={"second": "color"}),
    ),
    picture={"knob": "second", "lines": "first"},
)

FEW = ("crop", "color", "noise", "rotate")

SMALL = STUDY._replace(
    grid={"first": FEW, "second": FEW},
    fixed={"input": "resident", "epochs": 2, "size": 16, "features": (16, 32, 64)},
)
