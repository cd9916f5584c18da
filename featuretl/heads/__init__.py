"""Heads: from an array of embeddings to a classifier or a regressor.

They take any float array (float16, float32, float64, memory maps included) and know nothing of
images, torch or the store. Beside them, use scikit-learn's own estimators where they are already
right: ``make_pipeline(Normalizer(), KNeighborsClassifier())`` for neighbours in cosine distance.
"""
