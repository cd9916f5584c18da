"""
Several labels per image
========================

Which two digits does an image show? The scores stand beside those of a random guess.
"""

import matplotlib.pyplot as plt
from example_data import pairs
from sklearn.dummy import DummyClassifier
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer

from featuretl import ImageEmbedder, LinearProbeClassifier, evaluate_model

X_train, X_test, tags, tags_test = pairs()
model = make_pipeline(ImageEmbedder(), LinearProbeClassifier()).fit(X_train, tags)

report = evaluate_model(model, X_test, tags_test, n_bootstrap=50)
low, high = report.intervals["f1_micro"]
print(
    f"F1 on held-out images (95% interval {low:.2f} to {high:.2f}): {report.scores['f1_micro']:.3f}"
)

names = MultiLabelBinarizer().fit(tags)
guess = DummyClassifier(strategy="stratified", random_state=0)
guess.fit([[0]] * len(tags), names.transform(tags))
guessed = guess.predict([[0]] * len(tags_test))
f1 = f1_score(names.transform(tags_test), guessed, average="micro")
print(f"F1 of a guess by frequency: {f1:.3f}")

_, axes = plt.subplots(2, 4, figsize=(7, 2.8), layout="constrained")
for ax, image, found in zip(axes.flat, X_test, model.predict(X_test[:8]), strict=False):
    ax.imshow(image, cmap="gray")
    ax.set_title(", ".join(names.classes_[found == 1]) or "none", fontsize=9)
    ax.set_axis_off()
