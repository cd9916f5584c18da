"""
A walk for biologists: round and elongated cells
================================================

You have photographs of two kinds of cells from several slides, and want to know which kind a new slide
shows. This walk draws such photographs, trains a classifier, and shows the error that most first attempts
make: a score from slides that the model has already seen.
"""

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from featuretl import ImageEmbedder, LinearProbeClassifier, evaluate_model

# %%
# The photographs
# ---------------
# Every slide has its own stain and focus, and on most slides one kind is more frequent than the other.


def photograph(rng, kind, slide):
    """Draw one cell: RGB, 96 x 96 pixels."""
    look = np.random.default_rng(slide)
    background, stain = look.integers(170, 240, 3), look.integers(60, 150, 3)
    image = Image.new("RGB", (96, 96), tuple(background))
    draw = ImageDraw.Draw(image)
    a, b = (26, 22) if kind == "round" else (30, 18)
    a, b = a + rng.normal(0, 2.5), b + rng.normal(0, 2.5)
    draw.ellipse((48 - a, 48 - b, 48 + a, 48 + b), fill=tuple(stain))
    draw.ellipse((42, 42, 54, 54), fill=tuple(stain // 2))
    image = image.rotate(rng.uniform(0, 360), fillcolor=tuple(background))
    image = image.filter(ImageFilter.GaussianBlur(look.uniform(0.5, 2)))
    return np.uint8(np.clip(image + rng.normal(0, 12, (96, 96, 3)), 0, 255))


rng = np.random.default_rng(0)
slides = np.repeat(np.arange(12), 20)
mostly = np.where(np.arange(12) % 2, 0.9, 0.1)[slides]
kinds = np.where(rng.random(len(slides)) < mostly, "round", "elongated")
cells = np.stack([photograph(rng, *which) for which in zip(kinds, slides, strict=True)])

_, axes = plt.subplots(2, 6, figsize=(8, 3), layout="constrained")
for ax, i in zip(axes.flat, range(0, 240, 20), strict=True):
    ax.imshow(cells[i])
    ax.set_title(f"slide {slides[i]}: {kinds[i]}", fontsize=8)
    ax.set_axis_off()

# %%
# Two scores
# ----------
# Random folds put cells of one slide on both sides: the model recognises the slide and guesses its
# frequent kind. Only folds of whole slides tell how it will do on the next slide.

model = make_pipeline(ImageEmbedder(), LinearProbeClassifier())
folds = StratifiedKFold(5, shuffle=True, random_state=0)
seen = cross_val_score(model, cells, kinds, cv=folds)
unseen = cross_val_score(model, cells, kinds, cv=GroupKFold(6), groups=slides)
print(f"accuracy, random folds: {seen.mean():.3f}")
print(f"accuracy, folds of whole slides: {unseen.mean():.3f}")

# %%
# A score with its interval
# -------------------------
# The interval knows that cells of one slide resemble each other, if it is given the slides.

train, test = slides < 8, slides >= 8
model.fit(cells[train], kinds[train])
report = evaluate_model(model, cells[test], kinds[test], groups=slides[test])
low, high = report.intervals["accuracy"]
print(f"on four new slides, 95% interval {low:.2f} to {high:.2f}: {report.scores['accuracy']:.3f}")
