"""Which backbone, and which strength of the head? One grid; every image is embedded once per backbone."""

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
