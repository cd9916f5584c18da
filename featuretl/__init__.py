"""Transfer learning that composes with scikit-learn.

This package exports the most common names; its subpackages export further ones, such as
`featuretl.report.label_errors` or `featuretl.media.Sound`. All names are imported on first use, so
that ``import featuretl`` imports neither torch nor timm nor scikit-learn.
"""

from __future__ import annotations

from featuretl._core.lazy import exports

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "_learning.metrics": ["metrics_report"],
        "adaptation": ["DomainAdapter"],
        "backbones": ["Backbone", "list_backbones", "load_backbone"],
        "exceptions": ["FeatureTLError", "FeatureTLWarning"],
        "explanation": ["explain"],
        "export": ["export_model"],
        "extraction": ["Extraction", "ImageEmbedder", "MediaEmbedder", "extract"],
        "finetune": ["FineTuneClassifier", "FineTuneRegressor"],
        "heads": [
            "LinearProbeClassifier",
            "LinearProbeRegressor",
            "MultiTaskHead",
            "NearestMeanClassifier",
            "SVMProbeClassifier",
            "SemiSupervisedProbeClassifier",
        ],
        "images": ["load_image_folder"],
        "labelling": ["forecast_accuracy", "suggest_labels"],
        "models": ["load_model", "read_card", "save_model"],
        "novelty": ["NoveltyDetector"],
        "prediction": ["evaluate_model", "predict_to_file"],
        "ranking": ["rank_backbones"],
        "report": ["write_report"],
        "scaleout": ["extract_shards", "load_shards", "save_shards"],
        "store": ["EmbeddingStore"],
        "transfer": ["TransferClassifier", "TransferMultiTask", "TransferRegressor"],
    },
)
__all__ += ["__version__"]
