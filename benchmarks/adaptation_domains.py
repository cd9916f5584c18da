"""The domains of adaptation.py: images, their changes, their embeddings, and the pairs."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from common import DATA, signers
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps
from sklearn.datasets import load_digits

import featuretl

_LEAST = 40  # images of a class; smaller classes are left out
_MOST = {"hymenoptera": 400, "signs": 700, "cells": 600, "emoji": 1200, "digits": 700}
_SIDE = 224
_FONTS = "DejaVuSans DejaVuSerif DejaVuSansMono cmr10 cmss10 cmtt10 cmb10 STIXGeneral"
_MARGIN = 20  # pixels around a blood cell
VENDORS = ("google", "twitter", "apple", "facebook")
Pixels = Any  # uint8 (height, width, 3)


class Domain(NamedTuple):
    """Embeddings (n, d), classes (n,), and the photograph (or person, or drawing) of each row."""

    X: Any
    y: Any
    groups: Any


class Pair(NamedTuple):
    """Names of a source and a target, their set of images, and the kinds of their difference."""

    source: str
    target: str
    images: str
    kinds: tuple[str, ...]


def _noise(image: Image.Image, amount: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 255 * amount, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def _blur(image: Image.Image, amount: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(amount * image.width))


def _contrast(image: Image.Image, amount: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(amount)


def _brightness(image: Image.Image, amount: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(amount)


def _jpeg(image: Image.Image, amount: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=amount)
    return Image.open(file).convert("RGB")


def _pixelate(image: Image.Image, amount: float) -> Image.Image:
    small = image.resize(
        [max(2, round(amount * side)) for side in image.size], Image.Resampling.BOX
    )
    return small.resize(image.size, Image.Resampling.NEAREST)


def _fog(image: Image.Image, amount: float) -> Image.Image:
    cloud = Image.fromarray(np.random.default_rng(0).integers(120, 256, (6, 6), dtype=np.uint8))
    cloud = cloud.resize(image.size, Image.Resampling.BICUBIC).convert("RGB")
    return Image.blend(image, cloud, amount)


def _edges(image: Image.Image, _: Any) -> Image.Image:
    return ImageOps.invert(image.convert("L").filter(ImageFilter.FIND_EDGES)).convert("RGB")


def _invert(image: Image.Image, _: Any) -> Image.Image:
    return ImageOps.invert(image)


def _hue(image: Image.Image, amount: int) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    hue = hue.point(lambda level: (level + amount) % 256)
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _grey(image: Image.Image, _: Any) -> Image.Image:
    return image.convert("L").convert("RGB")


# Each change with its strengths, the strongest last.
CHANGES: dict[str, tuple[Callable[[Image.Image, Any], Image.Image], tuple[Any, ...]]] = {
    "noise": (_noise, (0.1, 0.3)),
    "blur": (_blur, (0.015, 0.035)),
    "contrast": (_contrast, (0.4, 0.15)),
    "brightness": (_brightness, (0.5, 0.2)),
    "jpeg": (_jpeg, (12, 5)),
    "pixelate": (_pixelate, (0.3, 0.12)),
    "fog": (_fog, (0.5, 0.75)),
    "edges": (_edges, (1,)),
    "invert": (_invert, (1,)),
    "hue": (_hue, (85,)),
    "grey": (_grey, (1,)),
}


def pairs() -> Iterator[Pair]:
    """Yield all pairs of domains."""
    for images in ("hymenoptera", "signs", "cells"):
        yield Pair(images, images, images, ("same",))
        for kind, (_, strengths) in CHANGES.items():
            used = strengths[-1:] if images == "cells" else strengths
            for strength in used:
                yield Pair(images, f"{images} {kind} {strength}", images, (kind,))
            if images != "cells":
                yield Pair(f"{images} {kind} {strengths[-1]}", images, images, (kind,))
    for source in VENDORS:
        for target in VENDORS:
            if source != target:
                names = f"emoji {source}", f"emoji {target}"
                yield Pair(*names, "emoji", (source, target))
    yield Pair("digits", "digits of fonts", "digits", ("fonts",))
    yield Pair("digits of fonts", "digits", "digits", ("fonts",))


class Domains:
    """Domains by name; each is embedded once and then read from `store`, a folder."""

    def __init__(self, store: Path, emoji: Path | None) -> None:
        self.store, self.emoji = store, emoji
        self.known: dict[str, Domain] = {}

    def __getitem__(self, name: str) -> Domain:
        if name not in self.known:
            file = self.store / f"{name}.npz"
            if not file.exists():
                images, y, groups = self._images(*name.split(" ", 1))
                embedder = featuretl.ImageEmbedder(cache=self.store / "embeddings")
                self.store.mkdir(parents=True, exist_ok=True)
                np.savez(file, X=embedder.transform(images), y=y, groups=groups)
            with np.load(file) as saved:
                self.known[name] = Domain(saved["X"], saved["y"], saved["groups"])
        return self.known[name]

    def _images(self, images: str, change: str = "") -> tuple[list[Pixels], Any, Any]:
        if images == "digits":
            return _of_fonts() if change else _handwritten()
        if images == "emoji":
            paths, y, groups = _emoji(change, self.emoji)
        else:
            paths, y, groups = {"hymenoptera": _hymenoptera, "signs": _signs}.get(images, _cells)()
        rows = _some(y, groups, _MOST[images])
        pixels = [_read(paths[i]) for i in rows]
        if change and images != "emoji":
            kind, strength = change.split(" ")
            function, strengths = CHANGES[kind]
            amount = next(one for one in strengths if str(one) == strength)
            pixels = [np.asarray(function(Image.fromarray(image), amount)) for image in pixels]
        return pixels, y[rows], groups[rows]


def _some(y: Any, groups: Any, most: int) -> Any:
    """Return rows of random groups, about `most`, of the classes that have enough images."""
    classes, counts = np.unique(y, return_counts=True)
    rows = np.flatnonzero(np.isin(y, classes[counts >= _LEAST]))
    names = np.random.default_rng(0).permutation(np.unique(groups[rows]))
    order = {name: place for place, name in enumerate(names.tolist())}
    place = np.array([order[name] for name in groups[rows].tolist()])
    last = np.sort(place)[min(most, len(rows)) - 1]
    return rows[place <= last]


def _read(image: Any) -> Pixels:
    """Return the pixels of a path, or of (path, box), on white."""
    path, box = image if isinstance(image, tuple) else (image, None)
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGBA")
    white = Image.new("RGBA", upright.size, "white")
    pixels = Image.alpha_composite(white, upright).convert("RGB")
    return np.asarray(pixels.crop(box) if box else pixels)


def _hymenoptera() -> tuple[list[Any], Any, Any]:
    parts = [featuretl.load_image_folder(DATA / "hymenoptera" / part) for part in ("train", "val")]
    paths = [path for part in parts for path in part.data]
    return paths, np.concatenate([part.target for part in parts]), np.arange(len(paths))


def _signs() -> tuple[list[Any], Any, Any]:
    signs = featuretl.load_image_folder(DATA / "sign-digits")
    return list(signs.data), signs.target, signers(signs.data, signs.target)


def _cells() -> tuple[list[Any], Any, Any]:
    """Return as many red cells and platelets as there are white cells; a group is a photograph."""
    found: dict[str, list[Any]] = {"RBC": [], "WBC": [], "Platelets": []}
    for group, file in enumerate(sorted((DATA / "bccd" / "Annotations").glob("*.xml"))):
        photo = DATA / "bccd" / "JPEGImages" / f"{file.stem}.jpg"
        for cell in ElementTree.parse(file).iter("object"):
            x, y, right, low = (int(cell.find("bndbox")[i].text) for i in range(4))  # type: ignore
            box = (max(x - _MARGIN, 0), max(y - _MARGIN, 0), right + _MARGIN, low + _MARGIN)
            if right - x >= 8 and low - y >= 8:
                found[cell.findtext("name", "")].append((group, photo, box))
    rng, rows = np.random.default_rng(0), []
    for name, cells in found.items():
        chosen = np.sort(rng.permutation(len(cells))[: len(found["WBC"])])
        rows += [(name, *cells[i]) for i in chosen]
    names, groups, photos, boxes = zip(*rows, strict=True)
    return list(zip(photos, boxes, strict=True)), np.array(names), np.array(groups)


def _emoji(vendor: str, folder: Path | None) -> tuple[list[Any], Any, Any]:
    """Return the drawings of a vendor that all vendors have; a group is a drawing's name."""
    here = {f"{path.parent.name}/{path.name}" for path in (DATA / "emoji/google").glob("*/*.png")}
    places = {"google": DATA / "emoji/google", "twitter": DATA / "emoji/twitter"}
    if folder is not None:
        for other in ("apple", "facebook"):
            places[other] = folder / other / "package" / "img" / other / "64"
    for one, place in places.items():
        flat = one in ("apple", "facebook")
        here = {name for name in here if (place / (name.split("/")[1] if flat else name)).exists()}
    names = sorted(here)
    flat = vendor in ("apple", "facebook")
    paths = [places[vendor] / (name.split("/")[1] if flat else name) for name in names]
    return paths, np.array([name.split("/")[0] for name in names]), np.array(names)


def _handwritten() -> tuple[list[Pixels], Any, Any]:
    digits = load_digits()
    rows = np.random.default_rng(0).permutation(len(digits.target))[: _MOST["digits"]]
    images = []
    for drawn in digits.images[rows]:
        grey = Image.fromarray((drawn * (255 / 16)).astype(np.uint8))
        images.append(
            np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).convert("RGB"))
        )
    return images, digits.target[rows].astype(str), np.arange(len(rows))


def _of_fonts() -> tuple[list[Pixels], Any, Any]:
    """Draw digits with the fonts of matplotlib, of random size, place and angle."""
    import matplotlib

    rng, images, y = np.random.default_rng(0), [], []
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for i in range(_MOST["digits"]):
        font = ImageFont.truetype(
            folder / f"{rng.choice(_FONTS.split())}.ttf", float(rng.integers(120, 210))
        )
        image = Image.new("L", (_SIDE, _SIDE))
        place = tuple(_SIDE / 2 + rng.uniform(-15, 15, 2))
        ImageDraw.Draw(image).text(place, str(i % 10), 255, font, anchor="mm")
        images.append(np.asarray(image.rotate(rng.uniform(-15, 15)).convert("RGB")))
        y.append(str(i % 10))
    return images, np.array(y), np.arange(len(images))
