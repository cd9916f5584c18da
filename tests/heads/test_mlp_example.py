"""The example of `featuretl.heads`: Flatten + Dense(256, relu) + softmax on VGG16."""

import numpy as np
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featuretl import ImageEmbedder


def test_a_hidden_layer_on_flattened_maps_of_vgg(photos):
    labels = [path.split("/")[-2] for path in photos]
    embedder = ImageEmbedder(backbone="vgg11", weights="random", pooling="flatten")
    head = MLPClassifier((256,), activation="relu", max_iter=20, random_state=0)
    model = make_pipeline(embedder, StandardScaler(), head).fit(photos[::2], labels[::2])
    assert head.coefs_[0].shape == (512 * 7 * 7, 256)
    proba = model.predict_proba(photos[1::2])
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert model.score(photos[::2], labels[::2]) >= 0.9
    assert model.score(photos[1::2], labels[1::2]) > 0.5  # of a network at random
