"""The classes that a model file may hold, and which of their attributes.

What is not listed here is neither written nor made. Parameters of a constructor need no listing:
they are plain values, and checked by their owners when they are used.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Of the machine, not of the model: where things are kept, what computes, what is shown.
OF_THE_MACHINE = ("cache", "checkpoint", "device", "memory", "n_jobs", "verbose")
# They had their effect in `fit`; one that a file cannot hold is left out with a warning.
OF_TRAINING = ("augment", "cv", "random_state")
# scikit-learn's own notes on an estimator: what set_fit_request leaves is of training.
_NOTES = ("_metadata_request",)


@dataclass(frozen=True)
class Kept:
    """A class that may be kept.

    Attributes
    ----------
    module : str
        Where it lives.
    attributes : dict of str to str
        Name, with ``?`` where it may be missing, to kind; see `featuretl.models.kinds`.
    fresh : dict
        Attributes that are not kept, and what they are after loading.
    """

    module: str
    attributes: dict[str, str]
    fresh: dict[str, Any] = field(default_factory=dict)

    def load(self, name: str) -> type:
        """Import the class."""
        found: type = getattr(importlib.import_module(self.module), name)
        return found

    def kinds(self, cls: type) -> dict[str, tuple[str, bool]]:
        """Return kind and whether it may be missing of all attributes, parameters included."""
        kinds = dict.fromkeys(parameters(cls), ("plain", True))
        for name, kind in self.attributes.items():
            kinds[name.removesuffix("?")] = (kind, name.endswith("?"))
        return kinds


def parameters(cls: type) -> dict[str, Any]:
    """Return the parameters of an estimator's constructor and their defaults."""
    if not hasattr(cls, "get_params"):
        return {}
    signature = inspect.signature(cls)
    return {name: parameter.default for name, parameter in signature.parameters.items()}


_COLUMNS = {
    "n_features_in_": "int:d",
    "feature_names_in_?": "labels[d]",
    "_sklearn_output_config?": "plain",
}
_IMAGES = {"n_features_in_": "int", "_sklearn_output_config?": "plain"}
_LINEAR = {"classes_": "labels[c]", "coef_": "float[k,d]", "intercept_": "float[k]", **_COLUMNS}
_TUNED = {
    **_IMAGES,
    "_tuned": "Tuned",
    "_width": "int",
    "_cached": "bool",
    "_records": "plain",
    "cache_trunk_": "Plan",
    "decision_": "str",
    "fine_tuned_": "bool",
    "learning_rate_": "float",
    "n_blocks_": "int",
    "stopped_": "str",
}
_CHOSEN = {
    **_IMAGES,
    "decision_": "Decision",
    "strategy_": "str",
    "backbone_": "str",
}
_MACHINE = {"_tol": "float", "gamma": "float", "_mean": "float[d]", "_scale": "float[d]"}
# LIBSVM, in C, believes the numbers that it is given: `check_svm` looks at them, too.
_SVM = {
    **_COLUMNS,
    "_sparse": "bool",
    "_gamma": "float",
    "_effective_probability?": "bool",
    "epsilon?": "float",
    "nu?": "float",
    "probability?": "bool|str",
    "class_weight?": "plain",
    "random_state?": "plain",
    "support_": "int32[s]",
    "_n_support": "int32[m]",
    "dual_coef_": "float[r,s]",
    "_dual_coef_": "float[r,s]",
    "intercept_": "float[p]",
    "_intercept_": "float[p]",
    "_probA": "float[q]",
    "_probB": "float[q]",
    "fit_status_": "int",
    "shape_fit_": "plain",
    "_num_iter": "int32[i]",
}

CLASSES: dict[str, Kept] = {
    "ImageEmbedder": Kept(
        "featuretl.embedder",
        {
            "n_features_in_?": "int",
            "feature_names_in_?": "labels[n]",
            "_sklearn_output_config?": "plain",
        },
    ),
    "LinearProbeClassifier": Kept(
        "featuretl.heads.linear",
        {
            **_LINEAR,
            "_multilabel": "bool",
            "_multinomial": "bool",
            "C_": "float",
            "n_iter_": "int",
            "path_?": "Bunch",
            "calibration_?": "Bunch",
        },
    ),
    "LinearProbeRegressor": Kept(
        "featuretl.heads.ridge",
        {
            **_COLUMNS,
            "coef_": "float[d]|float[k,d]",
            "intercept_": "float|float[k]",
            "alpha_": "float",
            "path_?": "Bunch",
        },
    ),
    "NearestMeanClassifier": Kept(
        "featuretl.heads.nearest_mean",
        {
            **_COLUMNS,
            "classes_": "labels[c]",
            "means_": "float[c,d]",
            "_sums": "float[c,d]",
            "class_weight_": "float[c]",
            "center_": "float[d]",
        },
    ),
    "SVMProbeClassifier": Kept(
        "featuretl.heads.svm",
        {
            **_COLUMNS,
            "classes_": "labels[c]",
            "C_": "float",
            "gamma_?": "float",
            "approximated_": "bool",
            "coef_?": "float[k,d]",
            "intercept_?": "float[k]",
            "path_?": "Bunch",
            "calibration_?": "Bunch",
            "_machine": "Linear|Nystrom|Exact",
        },
    ),
    "Linear": Kept(
        "featuretl.heads._machines",
        {"_tol": "float", "coef": "float[k,d]", "intercept": "float[k]"},
    ),
    "Nystrom": Kept(
        "featuretl.heads._machines",
        {
            **_MACHINE,
            "coef": "float[k,f]",
            "intercept": "float[k]",
            "_map": "Nystroem",
            "_n_components": "int",
            "_seed": "int",
        },
    ),
    "Exact": Kept("featuretl.heads._machines", {**_MACHINE, "_svc": "SVC", "_rows": "float[n,d]"}),
    "FineTuneClassifier": Kept(
        "featuretl.finetune.classifier", {**_TUNED, "classes_": "labels[c]", "_multilabel": "bool"}
    ),
    "FineTuneRegressor": Kept(
        "featuretl.finetune.regressor", {**_TUNED, "_scaling": "plain", "_flat": "bool"}
    ),
    "Tuned": Kept(
        "featuretl.finetune.network",
        {
            "spec": "BackboneSpec",
            "tensors": "str",
            "n_blocks": "int|str",
            "_head": "plain",
            "state": "tensors",
        },
        fresh={"_live": None},
    ),
    "BackboneSpec": Kept(
        "featuretl.backbones.spec",
        {
            "name": "str",
            "weights": "str",
            "layers": "plain",
            "pooling": "str",
            "normalize": "bool",
            "precision": "str",
        },
    ),
    "Plan": Kept(
        "featuretl.finetune.planning",
        {"cached": "bool", "views": "int", "bytes": "int", "why": "str"},
    ),
    "TransferClassifier": Kept(
        "featuretl.transfer.classifier", {**_CHOSEN, "estimator_": "Pipeline|FineTuneClassifier"}
    ),
    "TransferRegressor": Kept(
        "featuretl.transfer.regressor", {**_CHOSEN, "estimator_": "Pipeline|FineTuneRegressor"}
    ),
    "Decision": Kept(
        "featuretl.transfer.decision",
        {
            "strategy": "str",
            "backbone": "str",
            "outer": "Outer",
            "seconds": "float",
            "trials": "plain",
            "n_images": "int",
            "per_class": "int",
            "folds": "str",
            "score_name": "str",
            "proportion": "bool",
            "groups": "none|labels[n]",
        },
    ),
    "Outer": Kept(
        "featuretl.transfer.decision",
        {"score": "float", "low": "float", "high": "float", "images": "int", "how": "str"},
    ),
    "Trial": Kept(
        "featuretl.transfer.search",
        {
            "strategy": "str",
            "backbone": "str",
            "why": "str",
            "verdict": "str",
            "rows": "int[n]",
            "scores": "float[n]",
            "losses": "float[n]",
            "seconds": "float",
            "bytes": "int",
            "settings": "plain",
        },
    ),
    "Pipeline": Kept("sklearn.pipeline", {"_sklearn_output_config?": "plain"}),
    "StandardScaler": Kept(
        "sklearn.preprocessing",
        {
            **_COLUMNS,
            "mean_": "none|float[d]",
            "var_": "none|float[d]",
            "scale_": "none|float[d]",
            "n_samples_seen_": "int|float",
        },
    ),
    "Normalizer": Kept("sklearn.preprocessing", _COLUMNS),
    "PCA": Kept(
        "sklearn.decomposition",
        {
            **_COLUMNS,
            "components_": "float[k,d]",
            "mean_": "float[d]",
            "explained_variance_": "float[k]",
            "explained_variance_ratio_": "float[k]",
            "singular_values_": "float[k]",
            "noise_variance_": "float",
            "n_components_": "int:k",
            "n_samples_": "int",
            "_fit_svd_solver": "str",
        },
    ),
    "LogisticRegression": Kept("sklearn.linear_model", {**_LINEAR, "n_iter_": "int[i]"}),
    "LinearSVC": Kept("sklearn.svm", {**_LINEAR, "n_iter_": "int"}),
    "Ridge": Kept(
        "sklearn.linear_model",
        {
            **_COLUMNS,
            "coef_": "float[d]|float[k,d]",
            "intercept_": "float|float[k]",
            "n_iter_": "plain",
            "solver_?": "str",
        },
    ),
    "SVC": Kept(
        "sklearn.svm",
        {
            **_SVM,
            "classes_": "labels[m]",
            "class_weight_": "float[m]",
            "support_vectors_": "float[0,0]|float[s,d]",
            "n_iter_": "int[i]",
        },
    ),
    "SVR": Kept("sklearn.svm", {**_SVM, "support_vectors_": "float[s,d]", "n_iter_": "int"}),
    "Nystroem": Kept(
        "sklearn.kernel_approximation",
        {
            **_COLUMNS,
            "components_": "float[m,d]",
            "component_indices_": "int[m]",
            "normalization_": "float[m,m]",
            "_n_features_out?": "int",
        },
    ),
    "TransformedTargetRegressor": Kept(
        "sklearn.compose",
        {
            "n_features_in_?": "int",
            "_training_dim": "int",
            "regressor_": "plain",
            "transformer_": "StandardScaler",
        },
    ),
}

INSTEAD = (
    "use a head of featuretl, or LogisticRegression, LinearSVC, SVC, Ridge or SVR, after "
    "StandardScaler, Normalizer or PCA"
)


def check_svm(svm: Any) -> None:
    """Raise ValueError unless the arrays of an SVC or SVR fit together, as LIBSVM takes them to."""
    s, classes = len(svm.support_), len(svm._n_support)
    rows, columns = (int(size) for size in svm.shape_fit_)
    is_classifier = type(svm).__name__ == "SVC"
    machines = classes * (classes - 1) // 2 if is_classifier else 1
    has_rows = svm.kernel != "precomputed"
    fits = (
        isinstance(svm.kernel, str)
        and columns == svm.n_features_in_
        and (has_rows or rows == columns)
        and not svm._sparse
        and classes >= 2
        and svm.support_vectors_.shape == ((s, columns) if has_rows else (0, 0))
        and ((svm.support_ >= 0) & (svm.support_ < rows)).all()
        and (svm._n_support >= 0).all()
        and (not is_classifier or svm._n_support.astype(np.int64).sum() == s)
        and svm._dual_coef_.shape == (classes - 1 if is_classifier else 1, s)
        and len(svm._intercept_) == machines
        and len(svm._probA) in (0, machines)
        and all(a.dtype == np.float64 for a in (svm._dual_coef_, svm._intercept_, svm._probA))
    )
    if not fits:
        raise ValueError(f"the arrays of its {type(svm).__name__} do not fit together")


def ignored(attribute: str) -> bool:
    """Return whether an attribute is neither written nor read."""
    return attribute in OF_THE_MACHINE or attribute in _NOTES
