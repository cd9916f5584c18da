"""
Text: which subpackage does a sentence describe?
================================================

Sentences through a sentence encoder, beside TF-IDF of their words. The sentences are the first lines of
the docstrings of scikit-learn's classes and functions; the target is the subpackage; a third of the
sentences is held out.
"""

import inspect

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.utils.discovery import all_estimators, all_functions

from featuretl import MediaEmbedder
from featuretl.media import Text

ROOMS = {"cluster", "datasets", "linear_model", "metrics", "preprocessing", "utils"}
lines = {}
for _, thing in [*all_estimators(), *all_functions()]:
    room = thing.__module__.split(".")[1]
    if room in ROOMS and thing.__doc__:
        lines[inspect.getdoc(thing).splitlines()[0]] = room

sentences, rooms = list(lines), list(lines.values())
X, X_test, y, y_test = train_test_split(sentences, rooms, test_size=1 / 3, random_state=0)
print(f"{len(X)} sentences to learn from, {len(X_test)} held out")
for name, step in {
    "sentence encoder": MediaEmbedder(Text()),
    "TF-IDF of words": TfidfVectorizer(),
}.items():
    model = make_pipeline(step, LogisticRegression(C=10, max_iter=1000)).fit(X, y)
    print(f"accuracy on held-out sentences, {name}: {model.score(X_test, y_test):.3f}")
print(f"always the most frequent: {max(map(y_test.count, y_test)) / len(y_test):.3f}")
