"""RandBits, temperature and loss: does another temperature or another loss rescue what a few random bits suppress?

"Intriguing Properties of Contrastive Losses" (arXiv:2011.02803, figure 5) gives every image a random number, whose
bits are further channels that augmentation leaves alone: a handful of them makes linear accuracy fall, and neither
another temperature nor another loss of the family prevents it. The published column is what the authors' notebook
prints (`randbits_mnist.ipynb`, MNIST, one run each): the accuracy of the classifier that is trained along, "joint"
here. "swd" is alignment with the sliced Wasserstein distance to the uniform sphere, which has no temperature.

MNIST, ten epochs, 36 runs of 6 minutes of one core (--small: 16 pixels, two epochs). More bits are left out: with 15 or
20 both losses are at chance already (benchmarks/results/randbits-mnist.md: temperature 0.1).
"""

from jaxcl.study import Compare, Published, Study

BITS = (0, 5, 10)
NOTEBOOK = {0.05: (89.9, 70.6, 33.0), 0.1: (89.2, 61.2, 18.7), 0.2: (90.0, 33.0, 10.4)}

STUDY = Study(
    config="randbits_mnist",
    grid=[
        {"loss": ["nt_xent"], "temperature": [0.05, 0.1, 0.2], "bits": BITS},
        {"loss": ["swd"], "bits": BITS},
    ],
    seeds=range(3),
    protocols=("linear",),
    compare=(
        *(Compare("temperature", minus=0.1, where={"bits": bits}) for bits in (5, 10)),
        *(Compare("loss", where={"bits": bits, "temperature": 0.1}) for bits in (5, 10)),
        Compare("loss", values=("swd",), where={"temperature": 0.1, "bits": 0}),
    ),
    published=Published(
        "notebook, joint",
        [
            ({"loss": "nt_xent", "temperature": temperature, "bits": bits}, accuracy)
            for temperature, printed in NOTEBOOK.items()
            for bits, accuracy in zip(BITS, printed, strict=True)
        ],
    ),
    picture={"knob": "bits", "lines": ("loss", "temperature"), "where": {"protocol": "joint"}, "chance": 10},
)

SMALL = STUDY._replace(fixed={"size": 16, "epochs": 2})
