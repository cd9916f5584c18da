"""
Finding label errors
====================

Out-of-fold probabilities of a linear probe show which labels are probably wrong. Here 12 of 160 labels
were changed on purpose, so that the ranking can be checked.
"""

import matplotlib.pyplot as plt
import numpy as np
from example_data import digits
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline

from featuretl import ImageEmbedder, LinearProbeClassifier
from featuretl.report import label_errors

paths, _, y, _ = digits()
rng = np.random.default_rng(0)
wrong = rng.choice(len(y), 12, replace=False)
labels = np.array(y)
labels[wrong] = [rng.choice([digit for digit in "0123456789" if digit != y[i]]) for i in wrong]

model = make_pipeline(ImageEmbedder(layers=3), LinearProbeClassifier())
proba = cross_val_predict(model, paths, labels, cv=5, method="predict_proba")
table = label_errors(labels, proba, np.unique(labels))
print(table.head())

first = table["index"].to_numpy()[:12]
print(f"changed labels among the first suspects: {np.isin(first, wrong).mean():.3f}")
print(f"changed labels among all images: {len(wrong) / len(y):.3f}")

_, axes = plt.subplots(2, 6, figsize=(7, 2.8), layout="constrained")
for ax, row in zip(axes.flat, first, strict=False):
    ax.imshow(plt.imread(paths[row]), cmap="gray")
    ax.set_title(f"labelled {labels[row]}", fontsize=9)
    ax.set_axis_off()
