"""How good a representation is: features of a frozen encoder, read by neighbors and by linear classifiers; and what
becomes of it with few labels, on corrupted images, on other data."""

from jaxcl.evaluate.corruption import CORRUPTIONS, Corruption, Robustness, corrupt, robustness
from jaxcl.evaluate.embed import embed, raw_pixels
from jaxcl.evaluate.fewshot import FewShot, balanced_subset, few_shot
from jaxcl.evaluate.finetune import FineTuned, finetune
from jaxcl.evaluate.knn import knn, knn_accuracy, nearest
from jaxcl.evaluate.linear import LinearPath, LinearProbe, hold_out, linear_path, linear_probe, linear_sgd
from jaxcl.evaluate.protocols import FEATURE_PROTOCOLS, PROTOCOLS, evaluate_features
from jaxcl.evaluate.transforms import TransformProbe, hue_probe, rotation_probe

__all__ = [
    "CORRUPTIONS",
    "FEATURE_PROTOCOLS",
    "PROTOCOLS",
    "Corruption",
    "FewShot",
    "FineTuned",
    "LinearPath",
    "LinearProbe",
    "Robustness",
    "TransformProbe",
    "balanced_subset",
    "corrupt",
    "embed",
    "evaluate_features",
    "few_shot",
    "finetune",
    "hold_out",
    "hue_probe",
    "knn",
    "knn_accuracy",
    "linear_path",
    "linear_probe",
    "linear_sgd",
    "nearest",
    "raw_pixels",
    "robustness",
    "rotation_probe",
]
