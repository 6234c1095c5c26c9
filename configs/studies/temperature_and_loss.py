"""Temperature and loss: is NT-Xent ahead of NT-Logistic at every temperature, and does each need its own?

SimCLR (arXiv:2002.05709, section 5.1) finds NT-Xent far ahead of NT-Logistic, each with its best temperature (table
4, without semi-hard mining), and says why: with the right temperature the cross entropy weighs negatives by how hard
they are, which the logistic loss does not. Table 5 shows how much the temperature matters for NT-Xent. Both are
ResNet-50s after 100 epochs of ImageNet, one run each. Here a small encoder sees the embedded digits, in
views that do not share the colors behind them (configs/quickstart.py says why), for 620 steps of 128 images: 50 runs of
a minute of one core, and far from where the paper measures.
"""

from jaxcl.study import Compare, Published, Study

STUDY = Study(
    config="losses_cifar10",
    grid={"loss": ["nt_xent", "nt_logistic"], "temperature": [0.05, 0.1, 0.2, 0.5, 1.0]},
    seeds=range(5),
    fixed={
        "data": "digits",
        "size": 24,
        "features": (16, 32, 64, 64),
        "batch_size": 128,
        "epochs": 10,
        "log_every": 124,
        "min_area": 0.6,
        "hue": 0.5,
        "grayscale": 0.8,
        "flip": False,
        "input": "resident",
    },
    protocols=("linear", "knn"),
    compare=(
        Compare("loss"),
        Compare("temperature", minus=0.1),
        Compare("loss", across="temperature"),
    ),
    published=Published(
        "SimCLR, linear (ImageNet; tables 5 and 4)",
        [
            ({"loss": "nt_xent", "temperature": 0.05}, "59.7"),
            ({"loss": "nt_xent", "temperature": 0.1}, "64.4"),
            ({"loss": "nt_xent", "temperature": 0.5}, "60.7"),
            ({"loss": "nt_xent", "temperature": 1.0}, "58.0"),
            ({"loss": "nt_logistic"}, "51.6 at its best"),
        ],
    ),
    picture={"knob": "temperature", "lines": "loss", "where": {"protocol": "linear"}, "chance": 10},
)
