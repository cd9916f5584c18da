"""
A few images per class
======================

Nearest class means beside a linear probe on the same images.
"""

import matplotlib.pyplot as plt
import numpy as np
from example_data import digits

from featuretl import ImageEmbedder, LinearProbeClassifier, NearestMeanClassifier

paths, held_out, y, y_test = digits()
embedder = ImageEmbedder(normalize=True)
X, X_test, y = embedder.transform(paths), embedder.transform(held_out), np.array(y)

curves = {"nearest mean": [], "linear probe": []}
for shots in (1, 3, 10):
    scores = {"nearest mean": [], "linear probe": []}
    for draw in range(5):  # a few images are a matter of luck: five draws of them
        order = np.random.default_rng(draw).permutation(len(y))
        few = np.concatenate([order[y[order] == digit][:shots] for digit in np.unique(y)])
        means = NearestMeanClassifier().fit(X[few], y[few])
        probe = LinearProbeClassifier().fit(X[few], y[few])
        scores["nearest mean"].append(means.score(X_test, y_test))
        scores["linear probe"].append(probe.score(X_test, y_test))
    for name, found in scores.items():
        curves[name].append(np.mean(found))
        print(f"{shots} per class, {name}, mean of 5 draws: {np.mean(found):.3f}")

plt.figure(figsize=(5, 3.5), layout="constrained")
for name, means in curves.items():
    plt.plot((1, 3, 10), means, "o-", label=name)
plt.xlabel("labelled images per class")
plt.ylabel("held-out accuracy")
plt.legend()
