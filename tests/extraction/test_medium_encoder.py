"""Any medium goes through the engine as images do."""

from __future__ import annotations

import hashlib
import os
import pickle
import string
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from featuretl import EmbeddingStore, ImageEmbedder, MediaEmbedder, extract, load_backbone
from featuretl.exceptions import FeatureTLWarning, InputError, ItemError, ParameterError
from featuretl.images.decode import DECODE_POLICY, golden_pixels
from featuretl.images.inputs import read
from featuretl.media.items import digest_of
from featuretl.store.keys import canonical_json

TEXTS = ["Anna", "Bob", "Anna", "", "Zoë"]


class Letters:
    """How often each letter occurs in a text."""

    golden = "Sphinx of black quartz, judge my vow"
    files = False

    def __init__(self, letters: str = string.ascii_lowercase) -> None:
        self.letters = letters

    @property
    def recipe(self) -> dict[str, Any]:
        return {"letters": self.letters}

    def digest(self, item: Any) -> bytes:
        if not isinstance(item, str):
            raise ValueError(f"a {type(item).__name__}; expected a str")
        return hashlib.sha256(item.encode()).digest()

    def prepare(self, item: str) -> list[int]:
        if "!" in item:
            raise OSError("it shouts")
        return [item.lower().count(letter) for letter in self.letters]

    def forward(self, inputs: list[Any]) -> np.ndarray:
        return np.array(inputs, np.float32)


class Bytes(Letters):
    """How often each letter occurs in a file."""

    golden = __file__
    files = True

    def digest(self, item: Any) -> bytes:
        return digest_of(item)

    def prepare(self, item: Any) -> list[int]:
        return super().prepare(Path(item).read_text().replace("!", ""))


class Images:
    """What the house's own images are, as a medium."""

    files = True

    def __init__(self, backbone: Any) -> None:
        self.backbone = backbone
        self.recipe = {"decode": DECODE_POLICY, **backbone.recipe}
        self.golden = golden_pixels()

    def digest(self, item: Any) -> bytes:
        return read(item).key

    def prepare(self, item: Any) -> Any:
        return self.backbone.prepare(read(item).pixels())

    def forward(self, inputs: list[Any]) -> np.ndarray:
        return self.backbone.embed(inputs)


def test_each_content_is_embedded_once_and_rows_are_in_order(store, forwards, counts):
    expected = [[text.lower().count(letter) for letter in "abo"] for text in TEXTS]
    fresh = extract(TEXTS, Letters("abo"), store=store)
    again = extract(TEXTS[::-1], Letters("abo"), store=store)
    assert counts(fresh) == (4, 1, 0)
    assert counts(again) == (0, 5, 0)
    assert len(forwards) == 4
    np.testing.assert_array_equal(fresh.to_numpy(), expected)
    np.testing.assert_array_equal(again.to_numpy(), expected[::-1])
    np.testing.assert_array_equal(fresh.memmap(), expected)


def test_another_recipe_or_another_medium_is_another_space(store):
    class Others(Letters):
        pass

    spaces = {
        extract(TEXTS, m, store=store)._space.id for m in (Letters(), Letters("ab"), Others())
    }
    assert len(spaces) == 3
    assert len(EmbeddingStore(store.path).info()) == 3


def test_batches_and_threads_change_nothing():
    expected = extract(TEXTS, Letters(), batch_size=1, n_jobs=1).to_numpy()
    np.testing.assert_array_equal(
        extract(TEXTS, Letters(), batch_size=3, n_jobs=2).to_numpy(), expected
    )


def test_bad_items_are_named_rows_of_nan(store):
    items = ["a", None, "b!", "b"]
    extraction = extract(items, Letters("ab"), store=store, on_error="nan")
    assert [(f.name, f.message) for f in extraction.failures] == [
        ("item 1 (NoneType)", "a NoneType; expected a str"),
        ("item 2 (str)", "it shouts"),
    ]
    np.testing.assert_array_equal(
        extraction.to_numpy(), [[1, 0], [np.nan] * 2, [np.nan] * 2, [0, 1]]
    )
    with pytest.raises(ItemError, match=r"2 of 4 items have no embedding .*it shouts"):
        extract(items, Letters("ab"), store=store)


def test_an_error_of_the_medium_itself_ends_the_run_after_a_commit(store, monkeypatch):
    monkeypatch.setattr(Letters, "prepare", lambda self, item: len(item) * None)
    with pytest.raises(TypeError):
        extract(["a"], Letters(), store=store, on_error="nan")


def test_an_interrupted_run_goes_on_where_it_was(store, monkeypatch, counts):
    texts = [f"text {i}" for i in range(40)]
    forward, calls = Letters.forward, threading.Semaphore(4)  # the golden one, and three batches

    def interrupted(self, inputs):
        if not calls.acquire(blocking=False):
            raise KeyboardInterrupt
        return forward(self, inputs)

    monkeypatch.setattr(Letters, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(texts, Letters(), store=store, batch_size=4, n_jobs=1)
    monkeypatch.setattr(Letters, "forward", forward)
    resumed = extract(texts, Letters(), store=store)
    assert counts(resumed) == (28, 12, 0)
    np.testing.assert_array_equal(resumed.to_numpy(), extract(texts, Letters()).to_numpy())


def test_images_as_a_medium_find_what_image_embedder_kept(photos, store, forwards, counts):
    embedder = ImageEmbedder("resnet18", weights="random", cache=store)
    expected = embedder.transform(photos[:6])
    medium = Images(load_backbone("resnet18", weights="random"))
    extraction = extract(photos[:8], medium, store=store)
    assert canonical_json(extraction.recipe) == canonical_json(embedder.recipe())
    assert counts(extraction) == (2, 6, 0)
    assert len(forwards) == 8
    np.testing.assert_array_equal(extraction.to_numpy()[:6], expected)


def test_unchanged_files_are_not_hashed_again(tmp_path, store, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("aab")
    os.utime(path, (1, 1))
    later = path.stat().st_ctime_ns + 10**10
    monkeypatch.setattr("time.time_ns", lambda: later)  # the file has settled
    expected = extract([path], Bytes("ab"), store=store).to_numpy()
    monkeypatch.setattr(Bytes, "digest", lambda *args: pytest.fail("hashed"))
    monkeypatch.setattr(Bytes, "forward", lambda *args: pytest.fail("computed"))
    again = extract([str(path)], Bytes("ab"), store=store)
    np.testing.assert_array_equal(again.to_numpy(), expected)
    # Where a str is no file, one that is called like it does not matter.
    named = extract([str(path)], Letters("/"), store=store).to_numpy()
    assert named.tolist() == [[str(path).count("/")]]


def test_a_file_that_changes_while_it_is_read_is_a_failed_row(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("a")

    def changing(self, item):
        path.write_text("bbb")
        return Letters.prepare(self, "a")

    monkeypatch.setattr(Bytes, "prepare", changing)
    (failure,) = extract([path], Bytes("ab"), on_error="nan").failures
    assert failure.name == str(path)
    assert "changed while it was read" in failure.message


@pytest.mark.parametrize(
    ("name", "result", "match"),
    [
        ("digest", b"short", "'digest' of Letters must return 32 bytes; got b'short'"),
        ("prepare", None, "'prepare' of Letters must return something"),
        ("forward", np.zeros(3), r"a row per item, \(1, d\); got shape \(3,\)"),
    ],
)
def test_a_medium_that_breaks_the_contract_is_told_so(name, result, match, monkeypatch):
    monkeypatch.setattr(Letters, name, lambda *args: result)
    with pytest.raises(InputError, match=match):
        extract(["a"], Letters())


@pytest.mark.parametrize("given", [{"device": "cpu"}, {"runtime": "onnx"}, {"decode_timeout": 1.0}])
def test_what_has_no_meaning_for_a_medium_is_refused(given):
    (name,) = given
    with pytest.raises(ParameterError, match=f"'{name}' parameter of extract .* with a medium"):
        extract(["a"], Letters(), **given)


@pytest.mark.parametrize("X", ["a", b"a", None, np.zeros((2, 3)), {"a": 1}])
def test_what_is_no_collection_of_items_is_refused(X):
    with pytest.raises(InputError, match="X of MediaEmbedder must be a list"):
        MediaEmbedder(Letters(), cache=None).transform(X)


class TestMediaEmbedder:
    def test_it_is_a_transformer(self):
        pipe = make_pipeline(MediaEmbedder(Letters("ab")), LogisticRegression())
        pipe = clone(pipe).fit(["aa", "bb", "aab", "abb"], [0, 1, 0, 1])
        assert pipe.predict(["aaa", "bbb"]).tolist() == [0, 1]
        names = pipe[0].get_feature_names_out()
        assert names.tolist() == ["mediaembedder0", "mediaembedder1"]

    def test_it_travels_as_a_pickle_and_keeps_the_cache(self, store, forwards):
        embedder = MediaEmbedder(Letters(), cache=store)
        expected = embedder.fit_transform(np.array(TEXTS))
        travelled = pickle.loads(pickle.dumps(embedder))
        np.testing.assert_array_equal(travelled.transform(np.array(TEXTS)[:, None]), expected)
        assert len(forwards) == 4

    def test_a_bad_item_is_a_row_of_nan_and_a_warning(self):
        embedder = MediaEmbedder(Letters(), on_error="nan")
        with pytest.warns(FeatureTLWarning, match="1 of 2 items have no embedding"):
            assert np.isnan(embedder.transform(["a", "b!"])).any(axis=1).tolist() == [False, True]
        assert len(MediaEmbedder(Letters()).extract(["a", "b!"]).failures) == 1

    def test_what_is_no_medium_is_refused(self):
        with pytest.raises(ParameterError, match="'medium' parameter of MediaEmbedder"):
            MediaEmbedder("resnet18").fit(["a"])

    def test_progress(self, capsys):
        MediaEmbedder(Letters(), verbose=1).transform(["a", "b"])
        assert "items/s" in capsys.readouterr().err
