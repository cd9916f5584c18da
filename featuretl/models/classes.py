"""Allowlist of the classes that a model file may contain, and of the attributes that `fit` sets.

Constructor parameters need no listing: their classes validate them when they use them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featuretl.exceptions import ParameterError
from featuretl.models.fitted import Fitted
from featuretl.models.schema import ClassSchema

_OUTPUT = "_sklearn_output_config?=plain "
_IMAGES = f"n_features_in_=int {_OUTPUT} "
_COLUMNS = f"n_features_in_=int:d feature_names_in_?=labels[d] {_OUTPUT} "
_CLASSES = f"{_COLUMNS} classes_=labels[c] "
_LINEAR = f"classes_=labels[c] coef_=float[k,d] intercept_=float[k] {_COLUMNS} "
_RIDGE = f"{_COLUMNS} coef_=float[d]|float[k,d] intercept_=float|float[k] "
# LIBSVM, a C library, does not validate its arrays: `_svm_fits` does.
_SVM = f"""{_COLUMNS} _sparse=bool _gamma=float _effective_probability?=bool epsilon?=float
    nu?=float probability?=bool|str class_weight?=plain random_state?=plain support_=int32[s]
    _n_support=int32[m] dual_coef_=float[r,s] _dual_coef_=float[r,s] intercept_=float[p]
    _intercept_=float[p] _probA=float[q] _probB=float[q] fit_status_=int shape_fit_=plain
    _num_iter=int32[i] """
_MACHINES = "featuretl.heads._solver.machines"
_MACHINE = "_tol=float gamma=float _mean=float[d] _scale=float[d] "
_TUNED = f"""{_IMAGES} _tuned=Tuned _width=int _cached=bool _records=plain cache_trunk_=Plan
    decision_=str fine_tuned_=bool learning_rate_=float n_blocks_=int stopped_=str """
# Attributes of `Training`; in earlier files they are parameters of the estimator.
_SETTINGS = (
    "average batch_norm decay_rate head_epochs layer_decay optimizer precision schedule "
    "unfrozen_rate validation_fraction warmup weight_decay"
).split()
_CHOSEN = f"{_IMAGES} strategy_=str backbone_=str novelty_?=Pipeline "


def _settings_fit(settings: Any) -> bool:
    """Return whether the constructor of a dataclass accepts its values."""
    try:
        type(settings)(**vars(settings))
    except ParameterError:
        return False
    return True


def _svm_fits(svm: Any) -> bool:
    """Return whether the arrays of an SVC or SVR are consistent; LIBSVM does not check them."""
    s, classes = len(svm.support_), len(svm._n_support)
    rows, columns = (int(size) for size in svm.shape_fit_)
    is_classifier = type(svm).__name__ == "SVC"
    machines = classes * (classes - 1) // 2 if is_classifier else 1
    has_rows = svm.kernel != "precomputed"
    return bool(
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


def _tuned_fits(tuned: Any) -> bool:
    """Return whether the width of a fine-tuned head is that of its tensors, before it is built."""
    head = tuned._head
    if isinstance(head, (list, tuple)):
        return list(head) == ["mlp", len(tuned.state["head.0.weight"])]
    return head in ("probe", "linear")


def _novelty_fits(detector: Any) -> bool:
    """Return whether a detector's scores ascend and `fit` would accept its parameters."""
    scores, references = detector.calibration_, detector.references_
    k, level = detector.n_neighbors, detector.level
    return bool(
        isinstance(k, int)
        and 1 <= k <= len(references)
        and isinstance(level, float)
        and 0 < level <= 0.5
        and len(scores) > 0
        and np.isfinite(references).all()
        and np.isfinite(scores).all()
        and (np.diff(scores) >= 0).all()
        and 1 <= detector.calibration_worth_ <= len(scores)
        and not np.isnan(detector.offset_)
    )


def _head_fits(model: Any, n_views: int = 1) -> bool:
    """Return whether the head of a meta-estimator has its classes and takes one view's columns."""
    head = Fitted.of(model.estimator_)
    return bool(
        head.head is not None
        and type(head.model) is not type(model)
        and getattr(head.model, "n_features_in_", None) == model.n_features_in_ / n_views
        and np.array_equal(head.classes, model.classes_)
    )


def _views_fit(model: Any) -> bool:
    """Return whether the head of a `ViewsClassifier` classifies the columns of one view."""
    n_views = model.n_views
    is_count = isinstance(n_views, (int, np.integer)) and n_views >= 1
    return bool(is_count) and _head_fits(model, n_views)


def _tasks_fit(model: Any) -> bool:
    """Return whether the tasks of a `MultiTaskHead` match its heads."""
    tasks, heads, ranges = model.tasks_, model.estimators_, model.ranges_
    return bool(
        isinstance(tasks, dict)
        and isinstance(heads, list)
        and isinstance(ranges, dict)
        and len(tasks) == len(heads) > 0
        and all(isinstance(name, str) for name in tasks)
        and all(
            head.head is not None
            and head.tasks is None
            and getattr(head.model, "n_features_in_", None) == model.n_features_in_
            and kind == ("regression" if head.classes is None else "classification")
            for kind, head in zip(tasks.values(), map(Fitted.of, heads), strict=True)
        )
        and list(ranges) == [name for name, kind in tasks.items() if kind == "regression"]
        and all(isinstance(pair, tuple) and len(pair) == 2 for pair in ranges.values())
        and all(isinstance(limit, float) for pair in ranges.values() for limit in pair)
    )


def _attention_fits(head: Any) -> bool:
    """Return whether the views of an `AttentionPoolingClassifier` match its columns."""
    is_int = isinstance(head.n_views, (int, np.integer))
    return is_int and len(head.mean_) * head.n_views == head.n_features_in_


CLASSES = {
    "ImageEmbedder": ClassSchema(
        "featuretl.extraction.embedder",
        f"n_features_in_?=int feature_names_in_?=labels[n] {_OUTPUT}",
    ),
    "BackboneSpec": ClassSchema(
        "featuretl.backbones.spec",
        """name=str weights=str layers=plain pooling=str normalize=bool precision=str
        views?=int|str image_size?=plain crop_pct?=float|none in_chans?=int
        decode?=str network?=none""",
    ),
    "NoveltyDetector": ClassSchema(
        "featuretl.novelty.detector",
        f"""{_COLUMNS} references_=float[m,d] calibration_=float[c] calibration_worth_=float
        offset_=float""",
        fits=_novelty_fits,
    ),
    # Heads
    "LinearProbeClassifier": ClassSchema(
        "featuretl.heads.linear",
        f"""{_LINEAR} _multilabel=bool _multinomial=bool C_=float n_iter_=int path_?=Bunch
        calibration_?=Bunch""",
        left_out=("_stream",),
    ),
    "LinearProbeRegressor": ClassSchema(
        "featuretl.heads.ridge", f"{_RIDGE} alpha_=float path_?=Bunch"
    ),
    "AttentionPoolingClassifier": ClassSchema(
        "featuretl.heads.attention",
        f"""{_CLASSES} coef_=float[c,e] intercept_=float[c] attention_coef_=float[e]
        mean_=float[e] scale_=float[e] n_iter_=int""",
        fits=_attention_fits,
    ),
    "ViewPooling": ClassSchema("featuretl.heads.views", _COLUMNS),
    "ViewsClassifier": ClassSchema(
        "featuretl.heads.views", f"{_CLASSES} estimator_=plain", fits=_views_fit
    ),
    "DomainAdaptedClassifier": ClassSchema(
        "featuretl.adaptation.classifier",
        f"{_CLASSES} estimator_=plain method_=str",
        left_out=("decision_",),
        fits=_head_fits,
    ),
    "MultiTaskHead": ClassSchema(
        "featuretl.heads.multi_task",
        f"{_COLUMNS} tasks_=plain estimators_=plain decision_=str ranges_=plain",
        fits=_tasks_fit,
    ),
    "NearestMeanClassifier": ClassSchema(
        "featuretl.heads.nearest_mean",
        f"{_CLASSES} means_=float[c,d] _sums=float[c,d] class_weight_=float[c] center_=float[d]",
    ),
    "SemiSupervisedProbeClassifier": ClassSchema(
        "featuretl.heads.semi_supervised",
        f"{_CLASSES} probe_=LinearProbeClassifier decision_?=str",
        left_out=("transduction_",),
        former=("precision", "rounds", "threshold_"),
    ),
    "SVMProbeClassifier": ClassSchema(
        "featuretl.heads.svm",
        f"""{_CLASSES} C_=float gamma_?=float approximated_=bool coef_?=float[k,d]
        intercept_?=float[k] path_?=Bunch calibration_?=Bunch _machine=Linear|Nystrom|Exact""",
        former=("approximate", "n_components"),
    ),
    "Linear": ClassSchema(_MACHINES, "_tol=float coef=float[k,d] intercept=float[k]"),
    "Nystrom": ClassSchema(
        _MACHINES,
        f"{_MACHINE} coef=float[k,f] intercept=float[k] _map=Nystroem _n_components=int _seed=int",
    ),
    "Exact": ClassSchema(_MACHINES, f"{_MACHINE} _svc=SVC _rows=float[n,d]"),
    # Fine-tuning
    "FineTuneClassifier": ClassSchema(
        "featuretl.finetune.classifier",
        f"{_TUNED} classes_=labels[c] _multilabel=bool",
        former=("label_smoothing", *_SETTINGS),
    ),
    "FineTuneRegressor": ClassSchema(
        "featuretl.finetune.regressor",
        f"{_TUNED} _scaling=plain _flat=bool",
        former=tuple(_SETTINGS),
    ),
    "Training": ClassSchema(
        "featuretl.finetune.training",
        " ".join(f"{name}=plain" for name in _SETTINGS),
        fits=_settings_fit,
    ),
    "Tuned": ClassSchema(
        "featuretl.finetune.network",
        "spec=BackboneSpec tensors=str n_blocks=int|str _head=plain state=tensors",
        fresh={"_live": None},
        fits=_tuned_fits,
    ),
    "Plan": ClassSchema("featuretl.finetune.planning", "cached=bool views=int bytes=int why=str"),
    # Transfer estimators
    "TransferClassifier": ClassSchema(
        "featuretl.transfer.classifier",
        f"{_CHOSEN} decision_=Decision estimator_=Pipeline|FineTuneClassifier",
    ),
    "TransferRegressor": ClassSchema(
        "featuretl.transfer.regressor",
        f"{_CHOSEN} decision_=Decision estimator_=Pipeline|FineTuneRegressor",
    ),
    "TransferMultiTask": ClassSchema(
        "featuretl.transfer.multi_task",
        f"{_CHOSEN} decision_=str decisions_=plain tasks_=plain estimator_=Pipeline",
    ),
    "Decision": ClassSchema(
        "featuretl.transfer.decision",
        """strategy=str backbone=str outer=Outer seconds=float trials=plain n_images=int
        per_class=int folds=str score_name=str proportion=bool groups=none|labels[n]""",
    ),
    "Outer": ClassSchema(
        "featuretl.transfer.decision", "score=float low=float high=float images=int how=str"
    ),
    "Trial": ClassSchema(
        "featuretl.transfer.search",
        """strategy=str backbone=str why=str outcome?=none|str rival?=str gain?=plain
        loss_gain?=plain better?=str verdict=str rows=int[n] scores=float[n] losses=float[n]
        seconds=float bytes=int settings=plain""",
    ),
    # scikit-learn
    "Pipeline": ClassSchema("sklearn.pipeline", _OUTPUT),
    "StandardScaler": ClassSchema(
        "sklearn.preprocessing",
        f"""{_COLUMNS} mean_=none|float[d] var_=none|float[d] scale_=none|float[d]
        n_samples_seen_=int|float""",
    ),
    "Normalizer": ClassSchema("sklearn.preprocessing", _COLUMNS),
    "PCA": ClassSchema(
        "sklearn.decomposition",
        f"""{_COLUMNS} components_=float[k,d] mean_=float[d] explained_variance_=float[k]
        explained_variance_ratio_=float[k] singular_values_=float[k] noise_variance_=float
        n_components_=int:k n_samples_=int _fit_svd_solver=str""",
    ),
    "Nystroem": ClassSchema(
        "sklearn.kernel_approximation",
        f"""{_COLUMNS} components_=float[m,d] component_indices_=int[m]
        normalization_=float[m,m] _n_features_out?=int""",
    ),
    "LogisticRegression": ClassSchema("sklearn.linear_model", f"{_LINEAR} n_iter_=int[i]"),
    "LinearSVC": ClassSchema("sklearn.svm", f"{_LINEAR} n_iter_=int"),
    "Ridge": ClassSchema("sklearn.linear_model", f"{_RIDGE} n_iter_=plain solver_?=str"),
    "SVC": ClassSchema(
        "sklearn.svm",
        f"""{_SVM} classes_=labels[m] class_weight_=float[m]
        support_vectors_=float[0,0]|float[s,d] n_iter_=int[i]""",
        fits=_svm_fits,
    ),
    "SVR": ClassSchema(
        "sklearn.svm", f"{_SVM} support_vectors_=float[s,d] n_iter_=int", fits=_svm_fits
    ),
    "TransformedTargetRegressor": ClassSchema(
        "sklearn.compose",
        "n_features_in_?=int _training_dim=int regressor_=plain transformer_=StandardScaler",
    ),
}

# Classes of earlier versions: the class that replaces each, and its equivalent parameters.
FORMER: dict[str, tuple[str, dict[str, Any]]] = {
    "SelfTrainingProbeClassifier": ("SemiSupervisedProbeClassifier", {"method": "self-training"})
}

INSTEAD = (
    "use a head of featuretl, or LogisticRegression, LinearSVC, SVC, Ridge or SVR, after "
    "StandardScaler, Normalizer or PCA; or save it with skops.io.dump"
)
