"""export_model: the graph agrees with Python for any n, or is not written."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline

import featuretl
from featuretl import (
    FineTuneRegressor,
    ImageEmbedder,
    LinearProbeClassifier,
    LinearProbeRegressor,
    export_model,
)
from featuretl.exceptions import ImageError, InputError, ModelError, ParameterError
from featuretl.export import exporting as module
from featuretl.networks.network import network_of

SERVE = Path(__file__).resolve().parents[2] / "examples" / "serve_onnx.py"
pytestmark = pytest.mark.usefixtures("exported_once")

SMALL = {"weights": "random", "cache": None}


@pytest.fixture(scope="module")
def labels(photos):
    return [path.split("/")[-2] for path in photos]


@pytest.fixture(scope="module")
def default(photos, labels, shared_cache, tmp_path_factory, exported_once):
    """A calibrated probe on packaged weights, and its graph."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    head = LinearProbeClassifier(calibrate=True, random_state=0)
    model = make_pipeline(ImageEmbedder(cache=shared_cache), head).fit(photos, labels)
    return model, path, export_model(model, path, check=photos[:2])


def small(head, photos, y, **parameters):
    embedder = ImageEmbedder(**{"backbone": "test_resnet", **SMALL, **parameters})
    return make_pipeline(embedder, head).fit(photos, y)


@pytest.fixture(scope="module")
def probe(photos, labels):
    return small(LinearProbeClassifier(), photos, labels)


def session_of(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_the_graph_says_what_python_says(default, photos):
    model, path, exported = default
    assert exported.checked == 6 and exported.difference < 1e-4
    assert exported.bytes == path.stat().st_size
    session = session_of(path)
    network = network_of(model, "cpu")
    for images in (photos[:1], photos[:5]):
        decision, probabilities, label = session.run(
            list(exported.outputs), {"images": network.batch(images).numpy()}
        )
        np.testing.assert_allclose(decision, model.decision_function(images), rtol=1e-4)
        np.testing.assert_allclose(probabilities, model.predict_proba(images), atol=1e-5)
        assert model.classes_[label].tolist() == model.predict(images).tolist()


def test_the_example_serves_it_without_featuretl_and_torch(default, pixels, tmp_path):
    """The example serves photographs with EXIF rotation and of any size."""
    model, path, _ = default
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(pixels[:301, :200]).save(tmp_path / "upright.png")
    images = [str(tmp_path / name) for name in ("turned.jpg", "upright.png")]
    code = (
        "import runpy, sys; sys.modules.update(torch=None, featuretl=None, timm=None, sklearn=None)\n"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, str(SERVE), str(path), *images]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert [row["path"] for row in rows] == images
    assert [row["class"] for row in rows] == model.predict(images).tolist()
    served = [row["probabilities"] for row in rows]
    np.testing.assert_allclose(served, model.predict_proba(images), atol=2e-3)


def test_a_fine_tuned_vision_transformer(photos, tmp_path):
    model = FineTuneRegressor(
        "test_vit", **SMALL, n_blocks="all", epochs=1, learning_rate=0.003, cache_trunk=False
    ).fit(photos, np.arange(24.0))
    exported = export_model(model, tmp_path / "m.onnx")
    assert exported.outputs == ("prediction",) and exported.difference < 1e-4
    (found,) = session_of(tmp_path / "m.onnx").run(
        None, {"images": network_of(model, "cpu").batch(photos[:3]).numpy()}
    )
    np.testing.assert_allclose(found, model.predict(photos[:3]), rtol=1e-3, atol=1e-3)


def test_a_graph_that_does_not_agree_is_not_written(probe, photos, monkeypatch, tmp_path):
    right = module.network_of

    def wrong(model, device):
        network = right(model, device)
        network.head.layers[0].bias += 0.01
        return network

    monkeypatch.setattr(module, "network_of", wrong)
    with pytest.raises(ModelError, match="'decision' differs on 4 images by more"):
        export_model(probe, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_int8_says_what_it_costs(probe, photos, labels, tmp_path):
    path = tmp_path / "m.onnx"
    exported = export_model(
        probe, path, precision="int8", calibrate=photos[::2], evaluate=photos[1::2], y=labels[1::2]
    )
    loss = exported.loss
    float32 = np.mean(probe.predict(photos[1::2]) == np.array(labels[1::2]))
    assert (loss.images, loss.score_name, loss.float32) == (12, "accuracy", float32)
    session = session_of(path)
    assert session.get_modelmeta().custom_metadata_map["precision"] == "int8"
    names = [output.name for output in session.get_outputs()]
    batch = network_of(probe, "cpu").batch(photos[1::2]).numpy()
    label = np.concatenate(
        [session.run(names, {"images": batch[i : i + 1]})[-1] for i in range(12)]
    )
    predicted = probe.classes_[label]
    assert loss.int8 == np.mean(predicted == np.array(labels[1::2]))
    assert loss.changed == np.sum(predicted != probe.predict(photos[1::2]))
    import onnx

    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(path).graph.node)


def test_int8_of_several_labels_counts_labels(photos, labels, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PHOTOGRAPH_CROPS", 4)
    tags = [[label, "left"] if i % 2 else [label] for i, label in enumerate(labels)]
    model = small(LinearProbeClassifier(), photos, tags)
    loss = export_model(model, tmp_path / "m.onnx", precision="int8", evaluate=photos, y=tags).loss
    truth = [[name in row for name in model.classes_] for row in tags]
    assert loss.score_name == "label_accuracy"
    assert loss.float32 == pytest.approx(np.mean(model.predict(photos) == truth))
    assert 0.5 < loss.int8 <= 1
    assert 0 <= loss.changed <= 24
    assert np.isfinite(loss.standard_error)


def test_int8_of_numbers_with_the_default_calibration(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PHOTOGRAPH_CROPS", 4)
    y = np.arange(24.0)
    model = small(LinearProbeRegressor(), photos, y)
    loss = export_model(model, tmp_path / "m.onnx", precision="int8", evaluate=photos, y=y).loss
    assert loss.score_name == "r2"
    assert loss.float32 == pytest.approx(r2_score(y, model.predict(photos)), abs=1e-4)
    assert loss.int8 != loss.float32 and loss.int8 == pytest.approx(loss.float32, abs=0.1)
    assert np.isnan(loss.standard_error)


def test_mistakes_are_one_sentence(probe, photos, labels, tmp_path):
    path = tmp_path / "m.onnx"
    bad = tmp_path / "bad.jpg"
    bad.write_text("<html>")
    int8 = {"precision": "int8"}
    cases = [
        (ParameterError, "must end in .onnx", "m.pb", {}),
        (ParameterError, "does not exist; create it first", tmp_path / "no" / "m.onnx", {}),
        (ParameterError, "did you mean 'int8'", path, {"precision": "int4"}),
        (InputError, "for precision='int8' only", path, {"calibrate": photos}),
        (InputError, "needs labelled images", path, int8),
        (InputError, "one entry per image", path, {**int8, "evaluate": photos, "y": labels[:3]}),
        (InputError, "such as 'wasp'", path, {**int8, "evaluate": photos[:1], "y": ["wasp"]}),
        (InputError, "2 images are both in", path, {**int8, "calibrate": photos[:4], "evaluate": photos[2:], "y": labels[2:]}),
        (ImageError, "Cannot export with .*bad.jpg", path, {"check": [str(bad)]}),
    ]  # fmt: skip
    for kind, message, target, parameters in cases:
        with pytest.raises(kind, match=message) as error:
            export_model(probe, target, **parameters)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="must predict from images"):
        export_model(probe[1:], path)
    assert not path.exists()


def test_the_file_says_how_to_prepare_images_and_what_it_is(default):
    model, path, _ = default
    about = session_of(path).get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == ["flower", "temple"]
    preprocessing = json.loads(about["preprocessing"])
    assert preprocessing["input_size"] == [3, 224, 224]
    assert preprocessing.keys() == {"input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std"}  # fmt: skip
    recipe = model[0].recipe()["backbone"]
    assert about["weights"] == recipe["tensors"] and about["backbone"] == recipe["name"]
    assert about["featuretl_version"] == featuretl.__version__
    assert about["task"] == "classification" and about["precision"] == "float32"
    assert json.loads(about["card"])["model"] == "Pipeline"
