"""
Embeddings and any scikit-learn head in one pipeline
====================================================

Each image is embedded once, whatever the number of folds.
"""

from example_data import digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featuretl import ImageEmbedder

X_train, X_test, y_train, y_test = digits()
pipe = make_pipeline(ImageEmbedder(), StandardScaler(), LogisticRegression(max_iter=1000))

folds = cross_val_score(pipe, X_train, y_train, cv=5)
print(f"accuracy in cross-validation: {folds.mean():.3f}")
print(f"accuracy on held-out images: {pipe.fit(X_train, y_train).score(X_test, y_test):.3f}")
ConfusionMatrixDisplay.from_predictions(y_test, pipe.predict(X_test), colorbar=False)
