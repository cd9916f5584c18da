"""The classes that a model file may hold, and which of their attributes.

What is not listed here is neither written nor made. Parameters of a constructor need no listing:
they are plain values, and checked by their owners when they are used.
"""

from __future__ import annotations

from typing import Any

from featuretl.models.checks import (
    check_attention,
    check_novelty,
    check_tasks,
    check_tuned,
    check_views,
)
from featuretl.models.kept import COLUMNS, LINEAR, Kept
from featuretl.models.steps import STEPS

_IMAGES = {"n_features_in_": "int", "_sklearn_output_config?": "plain"}
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
# Of `Training`; earlier files hold them as parameters of the estimator.
_SETTINGS = (
    "average",
    "batch_norm",
    "decay_rate",
    "head_epochs",
    "layer_decay",
    "optimizer",
    "precision",
    "schedule",
    "unfrozen_rate",
    "validation_fraction",
    "warmup",
    "weight_decay",
)
_CHOSEN = {
    **_IMAGES,
    "decision_": "Decision",
    "strategy_": "str",
    "backbone_": "str",
    "novelty_?": "Pipeline",
}
_MACHINE = {"_tol": "float", "gamma": "float", "_mean": "float[d]", "_scale": "float[d]"}

CLASSES: dict[str, Kept] = {
    "ImageEmbedder": Kept(
        "featuretl.extraction.embedder",
        {
            "n_features_in_?": "int",
            "feature_names_in_?": "labels[n]",
            "_sklearn_output_config?": "plain",
        },
    ),
    "LinearProbeClassifier": Kept(
        "featuretl.heads.linear",
        {
            **LINEAR,
            "_multilabel": "bool",
            "_multinomial": "bool",
            "C_": "float",
            "n_iter_": "int",
            "path_?": "Bunch",
            "calibration_?": "Bunch",
        },
        left_out=("_stream",),
    ),
    "LinearProbeRegressor": Kept(
        "featuretl.heads.ridge",
        {
            **COLUMNS,
            "coef_": "float[d]|float[k,d]",
            "intercept_": "float|float[k]",
            "alpha_": "float",
            "path_?": "Bunch",
        },
    ),
    "AttentionPoolingClassifier": Kept(
        "featuretl.heads.attention",
        {
            **COLUMNS,
            "classes_": "labels[c]",
            "coef_": "float[c,e]",
            "intercept_": "float[c]",
            "attention_coef_": "float[e]",
            "mean_": "float[e]",
            "scale_": "float[e]",
            "n_iter_": "int",
        },
        check=check_attention,
    ),
    "ViewPooling": Kept("featuretl.heads.views", COLUMNS),
    "ViewsClassifier": Kept(
        "featuretl.heads.views",
        {**COLUMNS, "classes_": "labels[c]", "estimator_": "plain"},
        check=check_views,
    ),
    "MultiTaskHead": Kept(
        "featuretl.heads.multi_task",
        {
            **COLUMNS,
            "tasks_": "plain",
            "estimators_": "plain",
            "decision_": "str",
            "ranges_": "plain",
        },
        check=check_tasks,
    ),
    "NearestMeanClassifier": Kept(
        "featuretl.heads.nearest_mean",
        {
            **COLUMNS,
            "classes_": "labels[c]",
            "means_": "float[c,d]",
            "_sums": "float[c,d]",
            "class_weight_": "float[c]",
            "center_": "float[d]",
        },
    ),
    "SemiSupervisedProbeClassifier": Kept(
        "featuretl.heads.semi_supervised",
        {
            **COLUMNS,
            "classes_": "labels[c]",
            "probe_": "LinearProbeClassifier",
            "decision_?": "str",
        },
        left_out=("transduction_",),
        former=("precision", "rounds", "threshold_"),
    ),
    "SVMProbeClassifier": Kept(
        "featuretl.heads.svm",
        {
            **COLUMNS,
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
        former=("approximate", "n_components"),
    ),
    "Linear": Kept(
        "featuretl.heads._solver.machines",
        {"_tol": "float", "coef": "float[k,d]", "intercept": "float[k]"},
    ),
    "Nystrom": Kept(
        "featuretl.heads._solver.machines",
        {
            **_MACHINE,
            "coef": "float[k,f]",
            "intercept": "float[k]",
            "_map": "Nystroem",
            "_n_components": "int",
            "_seed": "int",
        },
    ),
    "Exact": Kept(
        "featuretl.heads._solver.machines", {**_MACHINE, "_svc": "SVC", "_rows": "float[n,d]"}
    ),
    "NoveltyDetector": Kept(
        "featuretl.novelty.detector",
        {
            **COLUMNS,
            "references_": "float[m,d]",
            "calibration_": "float[c]",
            "calibration_worth_": "float",
            "offset_": "float",
        },
        check=check_novelty,
    ),
    "FineTuneClassifier": Kept(
        "featuretl.finetune.classifier",
        {**_TUNED, "classes_": "labels[c]", "_multilabel": "bool"},
        former=("label_smoothing", *_SETTINGS),
    ),
    "FineTuneRegressor": Kept(
        "featuretl.finetune.regressor",
        {**_TUNED, "_scaling": "plain", "_flat": "bool"},
        former=_SETTINGS,
    ),
    "Training": Kept("featuretl.finetune.training", dict.fromkeys(_SETTINGS, "plain")),
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
        check=check_tuned,
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
            "views?": "int|str",
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
    "TransferMultiTask": Kept(
        "featuretl.transfer.multi_task",
        {
            **_CHOSEN,
            "decision_": "str",
            "decisions_": "plain",
            "tasks_": "plain",
            "estimator_": "Pipeline",
        },
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
            "outcome?": "none|str",
            "rival?": "str",
            "gain?": "plain",
            "loss_gain?": "plain",
            "better?": "str",
            "verdict": "str",
            "rows": "int[n]",
            "scores": "float[n]",
            "losses": "float[n]",
            "seconds": "float",
            "bytes": "int",
            "settings": "plain",
        },
    ),
    **STEPS,
}

# What a class of earlier versions is now, and the parameters that make it the same.
FORMER: dict[str, tuple[str, dict[str, Any]]] = {
    "SelfTrainingProbeClassifier": ("SemiSupervisedProbeClassifier", {"method": "self-training"}),
}

INSTEAD = (
    "use a head of featuretl, or LogisticRegression, LinearSVC, SVC, Ridge or SVR, after "
    "StandardScaler, Normalizer or PCA; skops.io.dump keeps most others, and asks on loading which "
    "types you trust"
)
