"""The protocols by name: of one subject, and of several at once."""

from __future__ import annotations

import functools
from collections.abc import Callable

from jaxcl.evaluate import transforms
from jaxcl.evaluate.probe import L2
from jaxcl.evaluate.protocols.corruption import corruption_result
from jaxcl.evaluate.protocols.deep import deep_result
from jaxcl.evaluate.protocols.fewshot import few_shot_result
from jaxcl.evaluate.protocols.finetuning import finetune_result, grid_result
from jaxcl.evaluate.protocols.linear import MOCO, TRANSFER_L2, linear_result, linear_results, sgd_result
from jaxcl.evaluate.protocols.mlp import mlp_result
from jaxcl.evaluate.protocols.neighbors import knn_result, knn_results
from jaxcl.evaluate.protocols.results import Result
from jaxcl.evaluate.protocols.transforms import transform_result

# name -> (key, subject, *, settings of its own, views=None, progress=None) -> Result. `views` matters to "linear_sgd",
# "mlp", "deep" and the "finetune"s alone; the key to what draws: not to "knn", "linear" and their kin.
PROTOCOLS: dict[str, Callable[..., Result]] = {
    "knn": functools.partial(knn_result, "knn", k=10, vote="majority"),
    "knn200": functools.partial(knn_result, "knn200", k=200, vote="weighted"),
    "linear": functools.partial(linear_result, "linear", l2=L2),
    "transfer": functools.partial(linear_result, "transfer", l2=TRANSFER_L2, standardize=False),
    "linear_sgd": functools.partial(sgd_result, "linear_sgd"),
    "linear_moco": functools.partial(sgd_result, "linear_moco", **MOCO),
    "mlp": mlp_result,
    "deep": deep_result,
    "fewshot5": functools.partial(few_shot_result, "fewshot5", shots=5),
    "fewshot10": functools.partial(few_shot_result, "fewshot10", shots=10),
    "finetune1": functools.partial(finetune_result, 1),
    "finetune10": functools.partial(finetune_result, 10),
    "finetune100": functools.partial(finetune_result, 100),
    "finetune_grid": grid_result,
    "rotation": functools.partial(transform_result, "rotation", transforms.rotation_probe, transforms.ANGLES),
    "hue": functools.partial(transform_result, "hue", transforms.hue_probe, transforms.SHIFTS),
    "corruption": corruption_result,
}

# Those that can ask several subjects at once, which differ in the encoder alone: (subjects, *, settings, progress=None)
# -> a Result each, as PROTOCOLS has them one by one up to rounding. "seconds" is a subject's share.
EACH: dict[str, Callable[..., list[Result]]] = {
    "knn": functools.partial(knn_results, "knn", k=10, vote="majority"),
    "knn200": functools.partial(knn_results, "knn200", k=200, vote="weighted"),
    "linear": functools.partial(linear_results, "linear", l2=L2),
    "transfer": functools.partial(linear_results, "transfer", l2=TRANSFER_L2, standardize=False),
}
