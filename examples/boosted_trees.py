"""
Embeddings in a gradient-boosted tree
=====================================

Any scikit-learn estimator can be the head. Trees split single features, so a few principal components of
the embeddings serve them better than all 1,280 columns; a linear probe stands beside them.
"""

import matplotlib.pyplot as plt
from example_data import digits
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline

from featuretl import ImageEmbedder, LinearProbeClassifier

scores = {}
X_train, X_test, y_train, y_test = digits(480)
trees = HistGradientBoostingClassifier(max_iter=30, min_samples_leaf=5, random_state=0)
for name, steps in {
    "boosted trees on 40 components": [PCA(40, whiten=True, random_state=0), trees],
    "linear probe": [LinearProbeClassifier()],
}.items():
    model = make_pipeline(ImageEmbedder(), *steps).fit(X_train, y_train)
    scores[name] = model.score(X_test, y_test)
    print(f"accuracy on held-out images, {name}: {scores[name]:.3f}")

plt.figure(figsize=(5, 2), layout="constrained")
plt.barh(list(scores), list(scores.values()))
plt.xlabel("held-out accuracy")
