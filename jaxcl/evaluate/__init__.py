"""How good a representation is: features of a frozen encoder, read by neighbors and by linear classifiers."""

from jaxcl.evaluate.embed import embed, raw_pixels
from jaxcl.evaluate.knn import knn, knn_accuracy, nearest
from jaxcl.evaluate.linear import LinearPath, LinearProbe, hold_out, linear_path, linear_probe, linear_sgd
from jaxcl.evaluate.protocols import FEATURE_PROTOCOLS, PROTOCOLS, evaluate_features

__all__ = [
    "FEATURE_PROTOCOLS",
    "PROTOCOLS",
    "LinearPath",
    "LinearProbe",
    "embed",
    "evaluate_features",
    "hold_out",
    "knn",
    "knn_accuracy",
    "linear_path",
    "linear_probe",
    "linear_sgd",
    "nearest",
    "raw_pixels",
]
