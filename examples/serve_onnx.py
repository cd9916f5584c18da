"""
Serve an exported model
=======================

onnxruntime, Pillow and NumPy are enough to serve what ``featuretl export`` wrote::

    python examples/serve_onnx.py model.onnx image.jpg ..
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
classes, p = json.loads(about["classes"]), json.loads(about["preprocessing"])
names = [output.name for output in session.get_outputs()]


def prepare(path):
    """Resize, crop and normalise: float32 (3, height, width)."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    height, width = p["input_size"][1:]
    assert p["crop_mode"] in ("center", "squash") and height == width, "other crops: see timm"
    side, short, long = int(height / p["crop_pct"]), min(image.size), max(image.size)
    size = [side if edge == short else int(side * long / short) for edge in image.size]
    size = [side, side] if p["crop_mode"] == "squash" else size
    image = image.resize(size, Image.Resampling[p["interpolation"].upper()])
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    pixels = np.float32(image.crop((left, top, left + width, top + height))) / 255
    return ((pixels - np.float32(p["mean"])) / np.float32(p["std"])).transpose(2, 0, 1)


for path in sys.argv[2:]:
    found = dict(zip(names, session.run(None, {"images": prepare(path)[None]}), strict=True))
    said = {name: values[0].tolist() for name, values in found.items()}
    if about["task"] == "classification":
        said["class"] = classes[said["label"]]
    print(json.dumps({"path": path, **said}))
