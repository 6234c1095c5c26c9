"""RandBits on MNIST: a few random bits beside a digit keep a contrastive loss from learning the digit.

    jaxcl train configs/randbits_mnist.py --bits 10 --data-dir DATA_DIR
    jaxcl evaluate runs/randbits_mnist --protocol linear
    jaxcl sweep configs/randbits_mnist.py --bits 0 5 10 15 20 --loss nt_xent swd --seed 0 1 2 --protocol linear

The recipe of `randbits_mnist.ipynb` beside "Intriguing Properties of Contrastive Losses" (Chen, Luo and Li, 2021,
arXiv:2011.02803, figure 5a). Its numbers are the accuracy of the online linear classifier, on test images with their
bits after the last step ("joint" in the results), a single run each, at temperature 0.1: 89.2, 61.2, 18.7, 9.8 and 10.3
% with 0, 5, 10, 15 and 20 bits (at 0.05 and 0.2: `jaxcl study randbits`). What differs from the notebook: the hash
behind the bits (see data.rand_bits), images are shuffled, batch norm sees both views together, the classifier is
trained on a third crop of each image (with --input host on the first view), and the head's kernels are drawn with
variance 1 / (fan in).
"linear" is a linear probe after training.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import optax

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets
from jaxcl.data import Data, load, rand_bits


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    data: str = "tfds:mnist"
    epochs: float = 10
    batch_size: int = 1000
    log_every: int = 60
    save_every: int = 100
    bits: int = 10  # how many random bits every image has; those of an image are always the same
    loss: Literal["nt_xent", "swd"] = "nt_xent"  # contrast across views; alignment and distance to the sphere
    temperature: float = 0.1  # of nt_xent
    weight: float = 5.0  # of swd's distribution term
    learning_rate: float = 1e-3  # Adam's first learning rate; it falls linearly to 0
    weight_decay: float = 2e-4  # times half the sum of squares of the method's kernels, added to the loss


def data(knobs: Knobs) -> Data:
    def coded(split: str):
        images = load(knobs.data, split, data_dir=knobs.data_dir, size=knobs.size)
        return rand_bits(images, bits=knobs.bits, seed=0)

    name = f"{knobs.data} with {knobs.bits} bits"
    return Data(name, train=lambda: coded("train"), test=lambda: coded(knobs.evaluate_on))


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    # Keras's 0.99, twice: the notebook updates the running averages with each view, here both views do it in one go.
    norm = nets.batch_norm(momentum=0.99**2, epsilon=1e-3, axis_name=axis)
    crops = {"distribution": augment.uniform_height, "method": "bilinear"}
    crop = augment.random_resized_crop(size, area=(0.5, 1.0), **crops)
    crop = augment.first_channels(crop, about.shape[2] - knobs.bits)  # the bits are not resized
    views, encoder = augment.two_views(crop), nets.conv_n(norm=norm, dtype=dtype)
    head = nets.mlp_head(norm=norm, hidden=(256,), out=64, bias=False)
    nt_xent = losses.keyless(losses.cross_view_nt_xent, temperature=knobs.temperature)
    loss = {"nt_xent": nt_xent, "swd": losses.family("swd_sphere", weight=knobs.weight)}[knobs.loss]
    method = methods.simclr(views=views, encoder=lean(encoder), head=head, loss=loss, axis_name=axis)

    def represent(params, state, x):
        # In the notebook the classifier is trained on what the batch's own statistics make of the images.
        return encoder.apply(params["encoder"], state["encoder"], x, train=True)[0][-1]

    crops = (
        views if knobs.input == "host" else augment.n_views(crop, 1)
    )  # the host makes the method's views alone
    probe = {"classes": len(about.classes), "views": crops, "represent": represent}
    method, classify = methods.with_probe(method, **probe, axis_name=axis)
    rate = optax.linear_schedule(knobs.learning_rate, 0.0, steps)
    penalty = optax.add_decayed_weights(knobs.weight_decay, mask=kernels_of_the_method)  # through Adam
    optimizer = optax.chain(penalty, optax.adam(rate, eps=1e-7))
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, classify=classify)


def kernels_of_the_method(params):
    """True for the parameters that the penalty is on."""
    kernels = jax.tree.map(lambda w: w.ndim > 1, params["method"])
    return {"method": kernels, "probe": jax.tree.map(lambda w: False, params["probe"])}
