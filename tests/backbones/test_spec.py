"""A spec resolves the parameters of a backbone without loading it."""

from pathlib import Path

import numpy as np
import pytest

from featuretl.backbones.spec import POOLINGS, PRECISIONS, BackboneSpec
from featuretl.exceptions import ParameterError


def test_defaults_are_resolved():
    spec = BackboneSpec.of("test", "no_such_model")  # the name is checked when it is loaded
    assert spec == BackboneSpec("no_such_model", precision="float32")
    assert hash(spec) == hash(BackboneSpec.of("test", "no_such_model", precision="auto"))


def test_equal_parameters_are_one_spec():
    spec = BackboneSpec.of("test", "a", layers=[np.int64(2), "pre_logits"], normalize=np.True_)
    assert spec == BackboneSpec.of("test", "a", layers=(2, "pre_logits"), normalize=True)
    assert type(spec.layers[0]) is int
    assert spec.normalize is True
    assert BackboneSpec.of("test", "a", layers=-1).layers == (-1,)
    assert BackboneSpec.of("test", "a", views="flip") == BackboneSpec.of("test", "a", views=2)


def test_weights_are_an_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "w.pth").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for weights in ("w.pth", Path("w.pth"), "~/w.pth", tmp_path / "w.pth"):
        assert BackboneSpec.of("test", "a", weights=weights).weights == str(tmp_path / "w.pth")
    (tmp_path / "auto").touch()
    assert BackboneSpec.of("test", "a", weights="auto").weights == "auto"
    assert BackboneSpec.of("test", "a", weights=Path("auto")).weights == str(tmp_path / "auto")
    with pytest.raises(ParameterError, match=f"existing file; got '{tmp_path}'"):
        BackboneSpec.of("test", "a", weights=tmp_path)


def test_every_pooling_and_precision_is_accepted():
    assert {BackboneSpec.of("test", "a", pooling=pooling).pooling for pooling in POOLINGS} == set(
        POOLINGS
    )
    found = {
        BackboneSpec.of("test", "a", precision=precision).precision for precision in PRECISIONS
    }
    assert found == set(PRECISIONS) - {"auto"}


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"backbone": ""}, "backbone"),
        ({"weights": None}, "weights"),
        ({"layers": ()}, "layers"),
        ({"layers": None}, "layers"),
        ({"layers": [0, np.bool_(True)]}, "layers"),
        ({"pooling": None}, "pooling"),
        ({"normalize": 1}, "normalize"),
        ({"precision": "float16"}, "precision"),
        ({"views": 0}, "views"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": (224, 224, 3)}, "image_size"),
        ({"image_size": 224.0}, "image_size"),
        ({"image_size": 10**6}, "image_size"),
        ({"crop_pct": 0}, "crop_pct"),
        ({"crop_pct": 1.1}, "crop_pct"),
        ({"crop_pct": "1"}, "crop_pct"),
    ],
)
def test_errors_name_the_parameter_and_its_owner(parameters, name):
    with pytest.raises(ParameterError, match=f"'{name}' parameter of test"):
        BackboneSpec.of("test", **{"backbone": "a", **parameters})


def test_parameters_other_than_the_defaults_replace_those_of_a_given_spec():
    own = BackboneSpec.of("test", "a", layers=1, pooling="max", image_size=96, crop_pct=1)
    assert (own.image_size, own.crop_pct) == ((96, 96), 1.0)
    defaults = {"layers": "pre_logits", "pooling": "auto", "image_size": None, "weights": "auto"}
    assert BackboneSpec.of("test", own, **defaults) == own
    changed = BackboneSpec.of("test", own, layers=["pre_logits"], image_size=(64, 32))
    assert (changed.layers, changed.pooling) == (("pre_logits",), "max")
    assert changed.image_size == (64, 32)
