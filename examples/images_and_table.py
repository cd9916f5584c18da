"""
Images beside a table of measurements
=====================================

One pipeline for a data frame with a column of images and columns of measurements: `ImageEmbedder` embeds the
images, and skrub's ``TableVectorizer`` encodes the rest. Here the target depends on how far a digit is
rotated, which only the image shows, and on who wrote it with which pressure, which only the table says.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from example_data import turned
from sklearn.compose import make_column_transformer
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from skrub import TableVectorizer

from featuretl import ImageEmbedder, LinearProbeRegressor

images, _, angle, _ = turned()
rng = np.random.default_rng(0)
table = pd.DataFrame(
    {
        "image": images,
        "writer": rng.choice(["Ada", "Grace", "Mary"], len(images)),
        "pressure": rng.normal(size=len(images)),
    }
)
y = angle + 30 * (table["writer"] == "Ada") + 15 * table["pressure"]

image, rest = (ImageEmbedder(layers=3), "image"), (TableVectorizer(), ["writer", "pressure"])
for name, parts in {"both": [image, rest], "images": [image], "table": [rest]}.items():
    model = make_pipeline(make_column_transformer(*parts), LinearProbeRegressor())
    print(f"R2 in cross-validation, {name}: {cross_val_score(model, table, y, cv=3).mean():.3f}")

_, axes = plt.subplots(1, 5, figsize=(8, 2.2), layout="constrained")
for ax, (_, row), value in zip(axes, table.iterrows(), y, strict=False):
    ax.imshow(row["image"], cmap="gray")
    ax.set_title(f"{row['writer']}, {row['pressure']:.1f}\ntarget {value:.0f}", fontsize=9)
    ax.set_axis_off()
