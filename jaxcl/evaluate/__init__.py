"""How good a representation is: features of a frozen encoder, read by neighbors and by linear classifiers; and what
becomes of it with few labels, on corrupted images, on other data.

Two kinds of functions. On features, arrays [n, d] that were computed once: `knn`, `linear_probe`, `few_shot`. On a
`Subject`, an encoder with its images, whose features are computed once for all of them: `linear_sgd`, `mlp_probe`,
`finetune`, `finetune_grid`, `robustness`, `rotation_probe`, `hue_probe`, and PROTOCOLS, the table of them all. What
answers come to, by class and by the best five: `figures`. Which regions of images are alike: `regions`.
"""

from jaxcl.evaluate.corruptions import CORRUPTIONS, Corruption, corrupt
from jaxcl.evaluate.features import embed, raw_pixels
from jaxcl.evaluate.fewshot import FewShot, balanced_subset, few_shot
from jaxcl.evaluate.figures import Hits, figures, hits, ranked
from jaxcl.evaluate.finetune import FineTuned, finetune
from jaxcl.evaluate.grid import finetune_grid
from jaxcl.evaluate.knn import knn, knn_accuracy, knn_ranked, nearest
from jaxcl.evaluate.mlp import MLPProbe, mlp_probe
from jaxcl.evaluate.online import online_knn
from jaxcl.evaluate.probe import LinearPath, LinearProbe, hold_out, linear_path, linear_probe
from jaxcl.evaluate.protocols import PROTOCOLS
from jaxcl.evaluate.regions import Clusters, k_means, regions
from jaxcl.evaluate.robustness import Robustness, robustness
from jaxcl.evaluate.sgd import linear_sgd
from jaxcl.evaluate.subject import Subject, subjects
from jaxcl.evaluate.transforms import TransformProbe, hue_probe, rotation_probe

__all__ = [
    "CORRUPTIONS",
    "PROTOCOLS",
    "Clusters",
    "Corruption",
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
    "embed",
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
    "linear_path",
    "linear_probe",
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
