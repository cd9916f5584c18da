"""Heads: from an array of embeddings to a classifier or a regressor.

They take any float array (float16, float32, float64, memory maps included) and know nothing of
images, torch or the store. Beside them, use scikit-learn's own estimators where they are already
right: ``make_pipeline(Normalizer(), KNeighborsClassifier())`` for neighbours in cosine distance,
and `MLPClassifier` for a hidden layer, as in Flatten + Dense(256, relu) + softmax on VGG16::

    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    embedder = ImageEmbedder(backbone="vgg16", pooling="flatten")  # n x 25,088
    head = MLPClassifier((256,), activation="relu", early_stopping=True, random_state=0)
    model = make_pipeline(embedder, StandardScaler(), head).fit(photos.data, photos.target)
"""

from featuretl._core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "attention": ["AttentionPoolingClassifier"],
        "linear": ["LinearProbeClassifier"],
        "multi_task": ["MultiTaskHead"],
        "nearest_mean": ["NearestMeanClassifier"],
        "ridge": ["LinearProbeRegressor"],
        "semi_supervised": ["SemiSupervisedProbeClassifier"],
        "svm": ["SVMProbeClassifier"],
        "views": ["ViewPooling", "ViewsClassifier"],
    },
)
