"""How good a representation is: features of a frozen encoder, read by neighbors and by linear classifiers; and what
becomes of it with few labels, on corrupted images, on other data.

Two kinds of functions. On features, arrays [n, d] that were computed once: `knn`, `linear_probe`, `few_shot`. On a
`Subject`, an encoder with its images, whose features are computed once for all of them: `linear_sgd`, `mlp_probe`,
`deep_probe`, `finetune`, `finetune_grid`, `robustness`, `rotation_probe`, `hue_probe`, and PROTOCOLS, the table of them
all. What answers come to, by class and by the best five: `figures`. Which regions of images are alike: `regions`.
"""

from jaxcl.evaluate.corruptions import CORRUPTIONS, Corruption, corrupt
from jaxcl.evaluate.deep import DeepProbe, deep_probe
from jaxcl.evaluate.features import embed, embed_each, raw_pixels
from jaxcl.evaluate.fewshot import FewShot, balanced_subset, few_shot
from jaxcl.evaluate.figures import Hits, figures, hits, ranked
from jaxcl.evaluate.finetune import FineTuned, finetune
from jaxcl.evaluate.grid import finetune_grid
from jaxcl.evaluate.knn import knn, knn_accuracy, knn_ranked, knn_ranked_each, nearest
from jaxcl.evaluate.mlp import MLPProbe, mlp_probe
from jaxcl.evaluate.online import online_knn
from jaxcl.evaluate.probe import (
    LinearPath,
    LinearProbe,
    hold_out,
    linear_path,
    linear_path_each,
    linear_probe,
    linear_probe_each,
)
from jaxcl.evaluate.protocols import EACH, PROTOCOLS
from jaxcl.evaluate.regions import Clusters, k_means, regions
from jaxcl.evaluate.robustness import Robustness, robustness
from jaxcl.evaluate.sgd import linear_sgd
from jaxcl.evaluate.subject import Subject, embed_together, subjects
from jaxcl.evaluate.transforms import TransformProbe, hue_probe, rotation_probe

__all__ = [
    "CORRUPTIONS",
    "EACH",
    "PROTOCOLS",
    "Clusters",
    "Corruption",
    "DeepProbe",
    "FewShot",
    "FineTuned",
    "Hits",
    "LinearPath",
    "LinearProbe",
    "MLPProbe",
    "Robustness",
    "Subject",
    "TransformProbe",
    "balanced_subset",
    "corrupt",
    "deep_probe",
    "embed",
    "embed_each",
    "embed_together",
    "few_shot",
    "figures",
    "finetune",
    "finetune_grid",
    "hits",
    "hold_out",
    "hue_probe",
    "k_means",
    "knn",
    "knn_accuracy",
    "knn_ranked",
    "knn_ranked_each",
    "linear_path",
    "linear_path_each",
    "linear_probe",
    "linear_probe_each",
    "linear_sgd",
    "mlp_probe",
    "nearest",
    "online_knn",
    "ranked",
    "regions",
    "raw_pixels",
    "robustness",
    "rotation_probe",
    "subjects",
]
