"""Heads: classifiers and regressors on arrays of embeddings.

They take any float array (float16, float32, float64, memory maps) and do not depend on images,
torch or the store. scikit-learn's own estimators are heads, too, such as
``make_pipeline(Normalizer(), KNeighborsClassifier())`` for neighbours in cosine distance, or
`MLPClassifier` for a hidden layer, as in Flatten + Dense(256, relu) + softmax on VGG16::

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
