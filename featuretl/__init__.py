"""Transfer learning that composes with scikit-learn.

This package exports the most common names; its subpackages export further ones, such as
`featuretl.report.label_errors` or `featuretl.media.Sound`. All names are imported on first use, so
that ``import featuretl`` imports neither torch nor timm nor scikit-learn.
"""

from __future__ import annotations

from featuretl._core.lazy import exports

__version__ = "0.1.0"

# The groups of the API reference, in its order: title, package, names.
PUBLIC = {
    "Embed images": {
        "extraction": ["ImageEmbedder", "MediaEmbedder", "extract", "Extraction"],
        "images": ["load_image_folder"],
        "store": ["EmbeddingStore"],
    },
    "Backbones": {
        "backbones": ["list_backbones", "load_backbone", "Backbone"],
        "ranking": ["rank_backbones"],
    },
    "Heads": {
        "heads": [
            "LinearProbeClassifier",
            "LinearProbeRegressor",
            "SVMProbeClassifier",
            "NearestMeanClassifier",
            "SemiSupervisedProbeClassifier",
            "MultiTaskHead",
        ]
    },
    "Fine-tune": {"finetune": ["FineTuneClassifier", "FineTuneRegressor"]},
    "Choose between heads and fine-tuning": {
        "transfer": ["TransferClassifier", "TransferRegressor", "TransferMultiTask"]
    },
    "Few labels": {"labelling": ["suggest_labels", "forecast_accuracy"]},
    "Shifted domains and novel images": {
        "adaptation": ["DomainAdaptedClassifier"],
        "novelty": ["NoveltyDetector"],
    },
    "Predict, evaluate, explain": {
        "prediction": ["predict_to_file", "evaluate_model"],
        "_learning.metrics": ["metrics_report"],
        "explanation": ["explain"],
        "report": ["write_report"],
    },
    "Model files and deployment": {
        "models": ["save_model", "load_model", "read_card"],
        "export": ["export_model"],
    },
    "Scale out": {"scaleout": ["extract_shards", "save_shards", "load_shards"]},
    "Errors and warnings": {"exceptions": ["FeatureTLError", "FeatureTLWarning"]},
}

__getattr__, __dir__, __all__ = exports(
    __name__, {package: names for group in PUBLIC.values() for package, names in group.items()}
)
__all__ += ["__version__"]
