"""
Regression: by how many degrees is a digit rotated?
===================================================

The error stands beside that of always predicting the mean.
"""

import matplotlib.pyplot as plt
import numpy as np
from example_data import turned
from sklearn.metrics import mean_absolute_error
from sklearn.pipeline import make_pipeline

from featuretl import ImageEmbedder, LinearProbeRegressor

X_train, X_test, y_train, y_test = turned()
# What turns is seen by an early block: the last was trained to look past it.
model = make_pipeline(ImageEmbedder(layers=3), LinearProbeRegressor()).fit(X_train, y_train)

print(f"R2 on held-out images: {model.score(X_test, y_test):.3f}")
print(f"mean error in degrees: {mean_absolute_error(y_test, model.predict(X_test)):.3f}")
always = np.full(len(y_test), y_train.mean())
print(f"mean error in degrees of the mean angle: {mean_absolute_error(y_test, always):.3f}")

plt.figure(figsize=(4, 4), layout="constrained")
plt.scatter(y_test, model.predict(X_test), s=12)
plt.axline((0, 0), slope=1, color="grey")
plt.xlabel("angle")
plt.ylabel("predicted angle")
