"""Crops: the pixels of a box, its key, one decoding per file, and boxes that break the rules."""

import hashlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from featuretl import FineTuneClassifier, ImageEmbedder, TransferClassifier, extract, load_backbone
from featuretl.exceptions import ImageError, InputError
from featuretl.extraction import extraction as extraction_module
from featuretl.images import Crop, decode, inputs
from featuretl.images.crops import or_files
from featuretl.images.inputs import read

BOXES = [(0, 0, 97, 120), (300, 200, 97, 120), (543, 307, 97, 120)]


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("test_resnet", weights="random")


@pytest.fixture
def photo(tmp_path):
    """The path of a photograph of 640 x 427 pixels, whose state identifies it."""
    path = tmp_path / "temple.jpg"
    Image.fromarray(load_sample_images().images[0]).save(path, quality=92)
    return str(path)


@pytest.fixture
def settled(monkeypatch):
    """Trust the states of files that are younger than two seconds."""
    monkeypatch.setattr(decode, "RACY_NS", -(10**18))


@pytest.fixture
def decodings(monkeypatch):
    """The lengths of all files that `extract` decodes."""
    lengths = []

    def counted(data):
        lengths.append(len(data))
        return decode.decode(data)

    monkeypatch.setattr(extraction_module, "decode", counted)
    return lengths


def seen(path, box):
    """Return what Pillow cuts out of the image as it is seen."""
    x, y, w, h = box
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB").crop((x, y, x + w, y + h)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_box_is_in_the_image_as_it_is_seen(photo, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.jpg"
    Image.open(photo).save(path, exif=exif, quality=95)
    box = (350, 20, 70, 55)
    assert np.array_equal(read(Crop(path, *box)).pixels(), seen(path, box))


def test_the_embedding_is_that_of_the_crop_in_memory(photo, backbone):
    found = extract([Crop(photo, *box) for box in BOXES], backbone)
    expected = extract([seen(photo, box) for box in BOXES], backbone)
    assert np.array_equal(found.to_numpy(), expected.to_numpy())


def test_the_key_is_the_content_of_the_file_and_the_box(photo, tmp_path):
    copy = shutil.copy(photo, tmp_path / "copy.jpg")
    crop = Crop(photo, 10, 20, 30, 40, "row 1 of a.csv")
    assert read(crop).key == read(Crop(copy, 10.2, 19.9, 30, 40.1)).key
    others = [Crop(photo, 11, 20, 30, 40), Crop(photo, 10, 20, 30, 41), photo]
    assert len({read(one).key for one in (crop, *others)}) == 4
    assert read(photo).key == hashlib.sha256(Path(photo).read_bytes()).digest()


def test_a_crop_is_computed_once_and_its_file_is_remembered(
    photo, backbone, store, settled, forwards, monkeypatch
):
    crops = [Crop(photo, *box) for box in BOXES]
    first = extract([*crops, photo], backbone, store=store)
    assert first.statistics.embedded == 4

    def unread(path):
        raise AssertionError(path)

    monkeypatch.setattr(inputs, "read_file", unread)
    again = extract([photo, *reversed(crops)], backbone, store=store)
    assert again.statistics.cached == 4
    assert np.array_equal(again.to_numpy(), first.to_numpy()[::-1])
    assert len(forwards) == 4


def test_crops_of_one_file_share_one_decoding_wherever_they_are(photo, photos, backbone, decodings):
    crops = [
        Crop(path, i, i, 64, 64) for i in range(25) for path in (photo, photos[0], Path(photo))
    ]
    assert extract(crops, backbone, n_jobs=2).statistics.embedded == 50
    assert len(decodings) == 2


def test_a_file_that_changes_is_read_again(photo):
    crop = Crop(photo, *BOXES[1])
    before, content = read(crop).pixels(), read(crop)
    Image.fromarray(load_sample_images().images[1]).save(photo, quality=92)
    after = read(crop)
    assert after.key != content.key
    assert np.array_equal(content.pixels(), before)
    assert np.array_equal(after.pixels(), seen(photo, BOXES[1]))


def test_pixels_of_a_crop_are_its_own(photo):
    read(Crop(photo, 0, 0, 640, 427)).pixels()[:] = 0
    assert np.array_equal(read(Crop(photo, *BOXES[0])).pixels(), seen(photo, BOXES[0]))


@pytest.mark.parametrize(
    ("box", "edges"),
    [
        ((0.5, 1.49, 10, 10), (1, 1, 11, 11)),
        ((-0.6, -1.4, 100, 20), (-1, -1, 99, 19)),
        ((600, 400, 40.6, 27.9), (600, 400, 641, 428)),
        ((np.int16(3), np.float32(2), 0.7, True), (3, 2, 4, 3)),
    ],
)
def test_edges_are_rounded_and_may_leave_the_image_by_one_pixel(photo, box, edges):
    crop = Crop(photo, *box)
    assert crop.edges == edges
    left, top, right, bottom = max(edges[0], 0), max(edges[1], 0), *edges[2:]
    expected = seen(photo, (left, top, min(right, 640) - left, min(bottom, 427) - top))
    assert np.array_equal(read(crop).pixels(), expected)


BAD = {
    "text": ("ten", 0, 5, 5),
    "empty": (0, None, 5, 5),
    "not a number": (0, 0, float("nan"), 5),
    "infinite": (0, 0, float("inf"), 5),
    "huge": (0, 0, 1e300, 5),
    "huge int": (10**5000, 0, 5, 5),
    "zero": (0, 0, 5, 0),
    "negative": (10, 10, -5, 5),
    "below half a pixel": (0, 0, 0.4, 5),
    "left": (-2, 0, 10, 10),
    "above": (0, -2, 10, 10),
    "right": (632, 0, 10, 10),
    "below": (0, 419, 10, 10),
    "far away": (10_000, 10_000, 10, 10),
    "the pixel outside": (640, 0, 1, 1),
}


def test_each_bad_box_is_one_failure_and_no_row_is_shifted(photo, backbone, store):
    crops = [Crop(photo, *box, f"row {i} of a.csv") for i, box in enumerate(BAD.values())]
    good = Crop(photo, *BOXES[0])
    found = extract([good, *crops, good], backbone, store=store, on_error="nan")
    assert [failure.index for failure in found.failures] == list(range(1, len(BAD) + 1))
    for i, failure in enumerate(found.failures):
        assert f"row {i} of a.csv: " in failure.message
        assert failure.name.startswith(photo)
    X = found.to_numpy()
    assert np.isnan(X[1:-1]).all()
    assert np.array_equal(X[0], X[-1])


def test_a_damaged_file_fails_once_and_costs_each_of_its_crops(
    photo, tmp_path, backbone, decodings
):
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(Path(photo).read_bytes()[:5000])
    crops = [Crop(damaged, *box) for box in BOXES]
    found = extract([*crops, Crop("/missing.jpg", *BOXES[0])], backbone, on_error="nan", n_jobs=1)
    assert len(found.failures) == 4
    assert len(decodings) == 1


def test_a_crop_of_anything_but_a_path_fails(pixels):
    with pytest.raises(ImageError, match="path"):
        read(Crop(pixels, *BOXES[0]))
    with pytest.raises(InputError, match="list"):
        extract(Crop("a.jpg", *BOXES[0]))


def test_crops_are_decoded_in_child_processes_too(photo, backbone):
    crops = [Crop(photo, *box) for box in BOXES]
    apart = extract(crops, backbone, decode_timeout=60, n_jobs=1)
    assert np.array_equal(apart.to_numpy(), extract(crops, backbone).to_numpy())


def test_crops_travel_through_collections_pickles_and_scikit_learn(photo, tmp_path):
    flower = str(tmp_path / "flower.jpg")
    Image.fromarray(load_sample_images().images[1]).save(flower, quality=92)
    crops = [Crop(path, 60 * i, 40 * i, 90, 90) for i in range(6) for path in (photo, flower)]
    assert pickle.loads(pickle.dumps(crops)) == crops
    assert len(set(crops)) == 12
    embedder = ImageEmbedder("test_resnet", weights="random")
    X = embedder.transform(crops)
    frame = pd.DataFrame({"image": crops})
    for form in (tuple(crops), np.array(crops, object), frame["image"], frame):
        assert np.array_equal(embedder.transform(form), X)
    pipe = make_pipeline(embedder, LogisticRegression())
    y, groups = ["temple", "flower"] * 6, np.arange(12) // 4
    for form in (crops, frame):
        scores = cross_val_score(pipe, form, y, groups=groups, cv=GroupKFold(3))
        assert scores.shape == (3,)


def test_without_groups_the_file_is_the_group(photo):
    again = f"{Path(photo).parent}/../{Path(photo).parent.name}/{Path(photo).name}"
    crops = [b"bytes", Crop(photo, *BOXES[0]), Crop(again, *BOXES[1]), "other.jpg"]
    groups = or_files(None, crops)
    assert groups[1] == groups[2]
    assert len(set(groups)) == 3
    assert or_files([1, 2, 3, 4], crops) == [1, 2, 3, 4]
    assert or_files(None, ["a.jpg", "b.jpg"]) is None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "estimator",
    [
        TransferClassifier(
            "linear", backbone="test_resnet", weights="random", test_size=None, random_state=0
        ),
        FineTuneClassifier("test_resnet", weights="random", epochs=1, random_state=0),
    ],
    ids=["transfer", "fine-tune"],
)
def test_estimators_take_crops(photos, estimator):
    crops = [Crop(path, x, 10, 50, 80) for path in photos[::2] for x in (5, 60)]
    y = [path.split("/")[-2] for path in photos[::2] for _ in range(2)]
    model = estimator.fit(crops, y)
    assert set(model.predict(crops[:4])) <= {"flower", "temple"}
    halves = estimator.fit(crops, y, groups=[crop.path for crop in crops])
    assert np.array_equal(model.predict(crops), halves.predict(crops))
