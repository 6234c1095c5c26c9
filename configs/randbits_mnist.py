"""RandBits on MNIST: a few random bits beside a digit keep a contrastive loss from learning the digit.

    jaxcl train configs/randbits_mnist.py --bits 10 --data-dir DATA_DIR
    jaxcl evaluate runs/randbits_mnist --protocol linear
    jaxcl sweep configs/randbits_mnist.py --bits 0 5 10 15 20 --loss nt_xent swd --seed 0 1 2 --data-dir DATA_DIR
        --protocol linear

The recipe of `randbits_mnist.ipynb` beside "Intriguing Properties of Contrastive Losses" (Chen, Luo and Li, 2021,
arXiv:2011.02803, figure 5a). Its numbers are the accuracy of the linear classifier that is trained along, on test
images with their bits after the last step ("joint" in the results), a single run each, at temperature 0.1:

    bits        0       5       10      15      20
    accuracy    89.2    61.2    18.7    9.8     10.3

What differs from the notebook: the hash behind the bits (see data.rand_bits), images are shuffled, batch norm sees
both views together, the classifier is trained on a third crop of each image, and the head's kernels are drawn with
variance 1 / (fan in). "linear" in the results is an ordinary linear probe after training.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from jaxcl import augment, collectives, data, losses, nets
from jaxcl.experiment import Experiment, steps_of
from jaxcl.methods import simclr, with_probe
from jaxcl.similarity import normalize
from jaxcl.train import placement


@dataclass(frozen=True)
class Knobs:
    bits: int = 10
    """How many random bits every image has."""
    loss: Literal["nt_xent", "swd"] = "nt_xent"
    """Contrast across the views, or alignment with a sliced Wasserstein distance to the uniform sphere."""
    temperature: float = 0.1
    """Of nt_xent."""
    weight: float = 5.0
    """Of swd's distribution term."""
    epochs: float = 10
    """Passes over the training images."""
    batch_size: int = 1000
    """Images a step, two views each."""
    learning_rate: float = 1e-3
    """Adam's first learning rate; it falls linearly to 0."""
    l2: float = 1e-4
    """Times the sum of squares of all kernels but the classifier's, added to the loss."""
    data: str = "tfds:mnist"
    """Images: tfds:NAME, folder:PATH, npz:PATH or digits."""
    data_dir: str | None = None
    """Where TFDS prepared its data sets (its own default if not given)."""
    seed: int = 0
    """Initial weights, order of the images, augmentation. The bits of an image are always the same."""
    placement: Literal["jit", "shard_map", "pmap"] = "jit"
    """Where a step runs."""


def experiment(knobs: Knobs) -> Experiment:
    plain = [data.load(knobs.data, split, data_dir=knobs.data_dir) for split in ("train", "test")]
    train, test = (data.rand_bits(images, bits=knobs.bits, seed=0) for images in plain)
    size, channels = plain[0].images.shape[2:]
    steps = steps_of(knobs.epochs, train, knobs.batch_size)
    axis_name = placement.axis_name(knobs.placement)
    # Keras's 0.99, twice: the notebook updates the running averages with each view, here both views do it in one go.
    norm = nets.batch_norm(momentum=0.99**2, epsilon=1e-3, axis_name=axis_name)

    crop = augment.random_resized_crop(size, area=(0.5, 1.0), law=augment.uniform_height, method="bilinear")
    crop = augment.first_channels(crop, channels)
    encoder = nets.conv_n(norm=norm)
    method = simclr(
        views=augment.two_views(crop),
        encoder=encoder,
        head=nets.mlp_head(norm=norm, hidden=(256,), out=64, bias=False),
        loss=loss(knobs),
        axis_name=axis_name,
    )
    method, classify = with_probe(
        method,
        labels=train.labels,
        classes=int(train.labels.max()) + 1,
        views=augment.n_views(crop, 1),
        # In the notebook the classifier is trained on what the batch's own statistics make of the images.
        represent=lambda params, state, x: encoder.apply(params["encoder"], state["encoder"], x, train=True)[
            0
        ][-1],
        axis_name=axis_name,
    )
    learning_rate = optax.linear_schedule(knobs.learning_rate, 0.0, steps)
    return Experiment(
        method=method,
        # The gradient of l2 |w|^2 goes through Adam, as that of any other term of the loss.
        optimizer=optax.chain(
            optax.add_decayed_weights(2 * knobs.l2, mask=kernels_of_the_method),
            optax.adam(learning_rate, eps=1e-7),
        ),
        learning_rate=learning_rate,
        train=train,
        test=test,
        classify=classify,
        batch_size=knobs.batch_size,
        steps=steps,
        seed=knobs.seed,
        placement=knobs.placement,
        log_every=60,
        save_every=100,
    )


def loss(knobs: Knobs):
    if knobs.loss == "nt_xent":
        return losses.keyless(cross_view, temperature=knobs.temperature)
    distance = partial(losses.sliced_wasserstein, prior=losses.uniform_sphere)
    return partial(losses.generalized, distribution=distance, weight=knobs.weight)


def cross_view(z1, z2, *, temperature: float, axis_name: str | None = None):
    """The notebook's loss: each view among the other view's images alone, both directions, added (not averaged)."""
    z1, z2 = normalize(z1), normalize(z2)
    own = collectives.rows(len(z1), axis_name)

    def one_side(anchors, keys):
        logits = anchors @ collectives.gather(keys, axis_name).T / temperature
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, own))

    return collectives.mean(one_side(z1, z2) + one_side(z2, z1), axis_name)


cross_view.compares_with = "dot of normalized rows"  # printed by `jaxcl parts`


def kernels_of_the_method(params):
    """True for the parameters that the L2 penalty is on."""
    return {
        "method": jax.tree.map(lambda w: w.ndim > 1, params["method"]),
        "probe": jax.tree.map(lambda w: False, params["probe"]),
    }
