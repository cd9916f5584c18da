"""Transfer learning that composes with scikit-learn.

This module is the index of public names. Each is imported on first use (PEP 562), so that
``import featuretl`` imports neither torch nor timm nor scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME_OF = {
    "AccuracyForecast": "featuretl.labelling.forecast",
    "AttentionPoolingClassifier": "featuretl.heads.attention",
    "Backbone": "featuretl.backbones.backbone",
    "ClassScoresDisplay": "featuretl.report.displays",
    "DomainAdapter": "featuretl.adaptation.adapter",
    "EmbeddingMapDisplay": "featuretl.report.displays",
    "EmbeddingStore": "featuretl.store.store",
    "Explanation": "featuretl.explanation.explanation",
    "Extraction": "featuretl.extraction.extraction",
    "FeatureTLError": "featuretl.exceptions",
    "FeatureTLWarning": "featuretl.exceptions",
    "FineTuneClassifier": "featuretl.finetune.classifier",
    "FineTuneRegressor": "featuretl.finetune.regressor",
    "ImageEmbedder": "featuretl.extraction.embedder",
    "ImageGridDisplay": "featuretl.report.displays",
    "LinearProbeClassifier": "featuretl.heads.linear",
    "LinearProbeRegressor": "featuretl.heads.ridge",
    "MediaEmbedder": "featuretl.extraction.media_embedder",
    "MultiTaskHead": "featuretl.heads.multi_task",
    "NearestMeanClassifier": "featuretl.heads.nearest_mean",
    "NoveltyDetector": "featuretl.novelty.detector",
    "SVMProbeClassifier": "featuretl.heads.svm",
    "SelfTrainingProbeClassifier": "featuretl.heads.self_training",
    "SemiSupervisedProbeClassifier": "featuretl.heads.semi_supervised",
    "ShardedMatrix": "featuretl._learning.sharded",
    "SharedStore": "featuretl.store.shared",
    "Sound": "featuretl.media.sound",
    "Text": "featuretl.media.text",
    "TransferClassifier": "featuretl.transfer.classifier",
    "TransferMultiTask": "featuretl.transfer.multi_task",
    "TransferRegressor": "featuretl.transfer.regressor",
    "Video": "featuretl.media.video",
    "ViewPooling": "featuretl.heads.views",
    "ViewsClassifier": "featuretl.heads.views",
    "class_scores": "featuretl.report.findings",
    "confident_mistakes": "featuretl.report.findings",
    "domain_gap": "featuretl.adaptation.gap",
    "evaluate_model": "featuretl.prediction.predict",
    "explain": "featuretl.explanation.explaining",
    "export_model": "featuretl.export.exporting",
    "extract": "featuretl.extraction.extraction",
    "extract_shards": "featuretl.scaleout.extraction",
    "forecast_accuracy": "featuretl.labelling.forecast",
    "label_errors": "featuretl.report.findings",
    "list_backbones": "featuretl.backbones.catalog",
    "load_backbone": "featuretl.backbones.backbone",
    "load_image_folder": "featuretl.images.sources",
    "load_shards": "featuretl.scaleout.output",
    "load_model": "featuretl.models.persistence",
    "log_me": "featuretl.ranking.scores",
    "metrics_report": "featuretl._learning.metrics",
    "near_duplicates": "featuretl.report.findings",
    "predict_to_file": "featuretl.prediction.files",
    "rank_backbones": "featuretl.ranking.rank",
    "read_card": "featuretl.models.persistence",
    "save_model": "featuretl.models.persistence",
    "save_shards": "featuretl.scaleout.output",
    "suggest_labels": "featuretl.labelling.suggest",
    "task_models": "featuretl.prediction.predict",
    "time_backbone": "featuretl.ranking.speed",
    "write_report": "featuretl.report.page",
}

__all__ = [*sorted(_HOME_OF), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'featuretl' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
