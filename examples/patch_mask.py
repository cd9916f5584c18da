"""
A classifier of patches paints a mask
=====================================

With ``pooling="grid"`` an image gives one embedding for each position of the backbone's map. A linear head
on these embeddings classifies patches: here it learns from the left half of a photograph which patches
belong to a flower, and paints the whole of it.
"""

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from featuretl import ImageEmbedder, LinearProbeClassifier

# %%
# Embeddings of positions
# -----------------------
# An early layer has small patches; a larger input has more of them. ``crop_pct=1`` keeps the whole height.

photograph = load_sample_image("flower.jpg")[:, 96:523]  # a square
embedder = ImageEmbedder(layers=3, pooling="grid", image_size=448, crop_pct=1.0, cache=None)
(grid,) = embedder.transform([photograph])
h, w, d = grid.shape
print(f"{h} x {w} positions with {d} features each")

# %%
# Labels of patches
# -----------------
# The pixels of the flower have more red than green. A patch belongs to it if most of its pixels do.

is_flower = np.uint8(255 * (photograph[..., 0] > photograph[..., 1]))
truth = np.asarray(Image.fromarray(is_flower).resize((w, h), Image.Resampling.BOX)) > 127

# %%
# The mask
# --------
# The head sees the left half only; its accuracy on the right half is that on patches it has not seen.

left, right = np.s_[:, : w // 2], np.s_[:, w // 2 :]
head = LinearProbeClassifier().fit(grid[left].reshape(-1, d), truth[left].ravel())
mask = head.predict_proba(grid.reshape(-1, d))[:, 1].reshape(h, w)
accuracy = np.mean((mask[right] > 0.5) == truth[right])
print(f"accuracy on the patches of the right half: {accuracy:.3f}")
print(f"share of the flower in them: {truth[right].mean():.3f}")

_, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
extent = (0, photograph.shape[1], photograph.shape[0], 0)
for ax, (title, shown) in zip(
    axes, {"photograph": photograph, "labels": truth, "mask": mask}.items(), strict=True
):
    ax.imshow(shown, extent=extent)
    ax.set_title(title)
    ax.set_axis_off()
axes[2].axvline(photograph.shape[1] / 2, color="white", linestyle=":")
plt.show()
