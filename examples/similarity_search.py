"""
Retrieval: which images look like this one?
===========================================

Nearest neighbours in cosine distance, and the same with faiss where it is installed.
"""

import matplotlib.pyplot as plt
import numpy as np
from example_data import digits
from sklearn.neighbors import NearestNeighbors

from featuretl import ImageEmbedder

catalogue, queries, y, y_queries = digits()
embedder = ImageEmbedder(normalize=True)  # rows of length 1: their dot product is the cosine
X, Q = embedder.transform(catalogue), embedder.transform(queries)
y, y_queries = np.array(y), np.array(y_queries)

_, found = NearestNeighbors(n_neighbors=5, metric="cosine").fit(X).kneighbors(Q)
print(f"of the 5 nearest show the same digit: {(y[found] == y_queries[:, None]).mean():.3f}")
print(f"of any 5 would: {(y[:, None] == y_queries).mean():.3f}")

_, axes = plt.subplots(3, 6, figsize=(7, 3.8), layout="constrained")
for row, query, nearest in zip(axes, queries, found, strict=False):
    for ax, path in zip(row, [query, *(catalogue[i] for i in nearest)], strict=True):
        ax.imshow(plt.imread(path), cmap="gray")
        ax.set_axis_off()
    row[0].set_title("query", fontsize=9)

try:
    import faiss  # pip install faiss-cpu: for millions of images
except ImportError:
    print("faiss is not installed")
else:
    index = faiss.IndexFlatIP(X.shape[1])
    index.add(X)
    _, same = index.search(Q, 5)
    print(f"nearest images on which faiss agrees: {(same[:, 0] == found[:, 0]).mean():.3f}")
