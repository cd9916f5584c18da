"""
Video: which digit moves through a clip?
========================================

Frames pooled over time, beside a single frame. The clips are generated: scikit-learn's handwritten
digits jump about behind noise.
"""

import io

import av
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from featuretl import LinearProbeClassifier, MediaEmbedder, media


def clip(digit: np.ndarray, seed: int) -> bytes:
    """Return an MP4 of 12 frames of 64 x 64 pixels, the digit (8, 8) at another place in each."""
    rng = np.random.default_rng(seed)
    drawn = Image.fromarray(np.uint8(digit * 15)).resize((40, 40), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=12, width=64, height=64)
        for _ in range(12):
            pixels = rng.normal(90, 60, (64, 64, 1)).repeat(3, axis=2)
            top, left = rng.integers(0, 25, 2)
            pixels[top : top + 40, left : left + 40] += 0.8 * np.array(drawn)[..., None]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.uint8(pixels.clip(0, 255)))))
        container.mux(stream.encode())
    return file.getvalue()


images, target = load_digits(n_class=4, return_X_y=True)
clips = [clip(image.reshape(8, 8), seed) for seed, image in enumerate(images[:72])]
X, X_test, y, y_test = train_test_split(clips, target[:72], test_size=0.5, random_state=0)
for frames in (1, 4):
    embedder = MediaEmbedder(media.Video(frames=frames))
    model = make_pipeline(embedder, LinearProbeClassifier()).fit(X, y)
    print(f"accuracy on held-out clips, frames={frames}: {model.score(X_test, y_test):.3f}")

_, axes = plt.subplots(1, 4, figsize=(7, 2), layout="constrained")
with av.open(io.BytesIO(clips[0])) as container:
    for ax, frame in zip(axes, container.decode(video=0), strict=False):
        ax.imshow(frame.to_ndarray(format="rgb24"))
        ax.set_axis_off()
