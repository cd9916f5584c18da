"""
Fine-tuning in two stages
=========================

A linear probe on frozen features first, then the last block together with the head.
"""

import matplotlib.pyplot as plt
from example_data import digits

from featuretl import FineTuneClassifier, ImageEmbedder, LinearProbeClassifier

X_train, X_test, y_train, y_test = digits()

embedder = ImageEmbedder()
probe = LinearProbeClassifier("cv", random_state=0).fit(embedder.transform(X_train), y_train)
accuracy = probe.score(embedder.transform(X_test), y_test)
print(f"held-out accuracy, linear probe: {accuracy:.3f}")

# Few epochs of one block at a given rate: without `learning_rate` it tries several, and keeps the probe
# if none beats it on images that it holds out of X_train.
model = FineTuneClassifier(n_blocks=1, epochs=6, learning_rate=0.01, augment="none", random_state=0)
model.fit(X_train, y_train)
print(f"held-out accuracy, last block fine-tuned: {model.score(X_test, y_test):.3f}")
print(f"({len(y_test)} held-out images: one is worth {1 / len(y_test):.2f})")

model.plot_history(ax=plt.figure(figsize=(5, 3.5), layout="constrained").gca())
