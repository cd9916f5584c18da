"""
Self-training on unlabelled images
==================================

A classifier learns its own errors when it is confident of them, so self-training may gain nothing; on
these digits it does not. Print the baseline, as here, before you trust it with your images.
"""

import matplotlib.pyplot as plt
import numpy as np
from example_data import digits
from sklearn.semi_supervised import SelfTrainingClassifier

from featuretl import ImageEmbedder, LinearProbeClassifier

paths, held_out, y, y_test = digits(480)
embedder = ImageEmbedder(layers=3)
X, X_test = embedder.transform(paths), embedder.transform(held_out)
y, y_test = np.array(y, int), np.array(y_test, int)

scores = []
for draw in range(10):  # which images have a label is a matter of luck: ten draws of them
    order = np.random.default_rng(draw).permutation(len(y))
    labelled = np.concatenate([order[y[order] == digit][:5] for digit in range(10)])
    known = np.full(len(y), -1)  # -1: no label
    known[labelled] = y[labelled]
    alone = LinearProbeClassifier(1.0).fit(X[labelled], y[labelled])
    trained = SelfTrainingClassifier(LinearProbeClassifier(1.0), threshold=0.8).fit(X, known)
    scores.append((alone.score(X_test, y_test), trained.score(X_test, y_test)))

alone, trained = np.mean(scores, axis=0)
print(f"held-out accuracy, self-training, mean of 10 draws: {trained:.3f}")
print(f"held-out accuracy, 5 labelled images per digit alone: {alone:.3f}")

plt.figure(figsize=(4, 4), layout="constrained")
plt.scatter(*np.transpose(scores))
plt.axline((alone, alone), slope=1, color="grey")
plt.xlabel("labelled images alone")
plt.ylabel("self-training")
