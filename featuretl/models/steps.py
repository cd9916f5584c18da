"""The classes of scikit-learn that a model file may hold, and which of their attributes."""

from __future__ import annotations

from featuretl.models.checks import check_svm
from featuretl.models.kept import COLUMNS, LINEAR, Kept

# LIBSVM, in C, believes the numbers that it is given: `check_svm` looks at them, too.
_SVM = {
    **COLUMNS,
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
STEPS: dict[str, Kept] = {
    "Pipeline": Kept("sklearn.pipeline", {"_sklearn_output_config?": "plain"}),
    "StandardScaler": Kept(
        "sklearn.preprocessing",
        {
            **COLUMNS,
            "mean_": "none|float[d]",
            "var_": "none|float[d]",
            "scale_": "none|float[d]",
            "n_samples_seen_": "int|float",
        },
    ),
    "Normalizer": Kept("sklearn.preprocessing", COLUMNS),
    "PCA": Kept(
        "sklearn.decomposition",
        {
            **COLUMNS,
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
    "LogisticRegression": Kept("sklearn.linear_model", {**LINEAR, "n_iter_": "int[i]"}),
    "LinearSVC": Kept("sklearn.svm", {**LINEAR, "n_iter_": "int"}),
    "Ridge": Kept(
        "sklearn.linear_model",
        {
            **COLUMNS,
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
        check=check_svm,
    ),
    "SVR": Kept(
        "sklearn.svm",
        {**_SVM, "support_vectors_": "float[s,d]", "n_iter_": "int"},
        check=check_svm,
    ),
    "Nystroem": Kept(
        "sklearn.kernel_approximation",
        {
            **COLUMNS,
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
