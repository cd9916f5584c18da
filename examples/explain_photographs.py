"""
Where the evidence lies
=======================

Which parts of a photograph speak for a temple, and which for a flower? ::

    python examples/explain_photographs.py docs/explain.png

The photographs are by danielbuechele and vultilion (CC BY 2.0; sklearn/datasets/images/README.txt).
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images
from sklearn.pipeline import make_pipeline

from featuretl import ImageEmbedder, LinearProbeClassifier, explain
from featuretl.explanation.explanation import save_overlays

output = sys.argv[1] if len(sys.argv) > 1 else "evidence.png"
temple, flower = load_sample_images().images
rng = np.random.default_rng(0)
crops, names = [], []
for name, photograph in (("temple", temple), ("flower", flower)):
    for _ in range(30):
        side = int(rng.integers(100, 260))
        top, left = (int(rng.integers(0, edge - side)) for edge in photograph.shape[:2])
        crops.append(photograph[top : top + side, left : left + side])
        names.append(name)

model = make_pipeline(ImageEmbedder(cache=None), LinearProbeClassifier(random_state=0))
model.fit(crops, names)
both = np.hstack([temple[60:360, 150:350], flower[60:360, 200:400]])
save_overlays(explain(model, [temple, flower, both]), output, height=160)
plt.figure(figsize=(9, 3), layout="constrained")
plt.imshow(plt.imread(output))
plt.axis("off")
