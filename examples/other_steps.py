"""
Steps that model files do not hold
==================================

A pipeline with a random forest, saved with skops: ``pip install skops``.
"""

import skops.io
from example_data import digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline

from featuretl import ImageEmbedder, save_model
from featuretl.exceptions import ModelError

X_train, X_test, y_train, y_test = digits()
model = make_pipeline(ImageEmbedder(), RandomForestClassifier(random_state=0)).fit(X_train, y_train)
try:
    save_model(model, "forest.featuretl")
except ModelError as error:
    print(error)

skops.io.dump(model, "forest.skops")
# A file may name any type: look at what it asks for, and list what you trust. That a backbone's weights
# are the same when it is loaded, skops does not check; save_model does.
print("it asks to trust", skops.io.get_untrusted_types(file="forest.skops"))
trusted = ["featuretl.extraction.embedder.ImageEmbedder", "sklearn.tree._tree.Tree"]
loaded = skops.io.load("forest.skops", trusted=trusted)

print(f"accuracy on held-out images: {model.score(X_test, y_test):.3f}")
print(f"accuracy of the loaded model: {loaded.score(X_test, y_test):.3f}")
