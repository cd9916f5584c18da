"""
Sounds: kick, snare or hi-hat?
==============================

The sounds are 83 single strokes for live coding, from 18 folders of the package FoxDot
(``pip install FoxDot==0.9.0``; CC BY-SA 4.0; it is not imported). A folder holds one instrument or
machine, and cross-validation holds out whole folders.
"""

import importlib.util
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from featuretl import LinearProbeClassifier, MediaEmbedder
from featuretl.media import Sound

FOLDERS = {
    "kick": "x/lower x/upper a/upper v/lower v/upper w/upper",
    "snare": "o/lower o/upper i/lower i/upper d/upper u/lower",
    "hi-hat": "_/hyphen _/equals _/colon n/lower n/upper a/lower",
}
package = importlib.util.find_spec("FoxDot")
if package is None:
    raise SystemExit("This example needs the sounds of FoxDot: pip install FoxDot==0.9.0")
folder = Path(package.submodule_search_locations[0], "snd")
sounds = {}  # by their bytes: some lie in two folders
for kind, names in FOLDERS.items():
    for name in names.split():
        for path in sorted(folder.glob(f"{name}/*.wav")):
            sounds.setdefault(path.read_bytes(), (kind, name))
y, groups = zip(*sounds.values(), strict=True)

model = make_pipeline(MediaEmbedder(Sound(seconds=1)), LinearProbeClassifier())
predicted = cross_val_predict(model, list(sounds), y, groups=groups, cv=GroupKFold(6))
print(f"accuracy on folders that were held out: {accuracy_score(y, predicted):.3f}")
print(f"always the most frequent kind: {max(Counter(y).values()) / len(y):.3f}")
ConfusionMatrixDisplay.from_predictions(y, predicted, colorbar=False)
plt.gcf().set_size_inches(4, 4)
