"""jaxcl: contrastive self-supervised learning in JAX. Every part of every method is a pure function.

The names that a notebook or a config needs. Each is imported at its first use, so the command line starts, and reacts
to Ctrl-C, before jax is loaded. No subpackage (`jaxcl.augment`, `jaxcl.nets`, ...) imports TensorFlow or matplotlib
before it needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcl import (
        augment,
        collectives,
        config,
        data,
        devices,
        encoder,
        evaluate,
        extract,
        feature_transform,
        features,
        five_parts,
        keys,
        losses,
        memory,
        methods,
        monitor,
        nets,
        plot,
        report,
        runs,
        shuffle,
        similarity,
        study,
        sweep,
        testing,
        train,
        typing,
        weights,
    )
    from jaxcl.config import (
        CommonKnobs,
        ImageNetKnobs,
        Recipe,
        basics,
        load_config,
        nonzero,
        steps_across,
        steps_of,
    )
    from jaxcl.encoder import Encoder, load_encoder
    from jaxcl.losses import compare_losses
    from jaxcl.train import optim
    from jaxcl.typing import About, Images, Method, Net

__version__ = "0.1.0"

# A name -> the module that is imported, or that has it, when it is asked for.
_LATER = {
    **dict.fromkeys(
        "augment collectives config data devices encoder evaluate extract feature_transform features five_parts keys"
        " losses memory methods monitor nets plot report runs shuffle similarity study sweep testing train typing"
        " weights".split(),
        None,
    ),
    **dict.fromkeys(
        "CommonKnobs ImageNetKnobs Recipe basics load_config nonzero steps_across steps_of".split(), "config"
    ),
    **dict.fromkeys(["Encoder", "load_encoder"], "encoder"),
    "compare_losses": "losses",
    "optim": "train",
    **dict.fromkeys("About Images Method Net".split(), "typing"),
}

__all__ = [
    "About",
    "CommonKnobs",
    "Encoder",
    "ImageNetKnobs",
    "Images",
    "Method",
    "Net",
    "Recipe",
    "augment",
    "basics",
    "collectives",
    "compare_losses",
    "config",
    "data",
    "devices",
    "encoder",
    "evaluate",
    "extract",
    "feature_transform",
    "features",
    "five_parts",
    "keys",
    "load_config",
    "load_encoder",
    "losses",
    "memory",
    "methods",
    "monitor",
    "nets",
    "nonzero",
    "optim",
    "plot",
    "report",
    "runs",
    "shuffle",
    "similarity",
    "steps_across",
    "steps_of",
    "study",
    "sweep",
    "testing",
    "train",
    "typing",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'jaxcl' has no attribute {name!r}")
    home = _LATER[name]
    return import_module(f"jaxcl.{name}") if home is None else getattr(import_module(f"jaxcl.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
