"""Training: one state, one training step, one loop for every method."""

from jaxcl.train import optim, placement
from jaxcl.train.callbacks import Callback
from jaxcl.train.loop import Interrupted, Preempted, train
from jaxcl.train.population import Trained, train_together
from jaxcl.train.state import TrainState, init_state
from jaxcl.train.step import make_step

__all__ = [
    "Callback",
    "Interrupted",
    "Preempted",
    "TrainState",
    "Trained",
    "init_state",
    "make_step",
    "optim",
    "placement",
    "train",
    "train_together",
]
