"""Networks of one's own: equal to the library's own features, layers, blocks, pickles, errors."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn

from featuretl import (
    FineTuneClassifier,
    ImageEmbedder,
    LinearProbeClassifier,
    explain,
    export_model,
    extract,
    load_image_folder,
    save_model,
)
from featuretl.backbones import Backbone, load_backbone
from featuretl.exceptions import BackboneError, FeatureTLWarning, ModelError, ParameterError
from featuretl.ranking import rank_backbones

RESNET = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
BLOCKS = ["layer1", "layer2", "layer3", "layer4"]


def prepare(image):
    """Halve the 64 x 64 pixels in the middle of a PIL image to [-1, 1]."""
    x = torch.from_numpy(np.array(image.resize((80, 80)))).permute(2, 0, 1)[:, 8:72, 8:72]
    return x.float() / 127.5 - 1


class Tokens(nn.Module):
    """Patch tokens behind a class token, as transformers return them."""

    def __init__(self, n_prefix=1, as_output=False):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 16, 16)
        self.block = nn.Linear(8, 8)
        self.n_prefix, self.as_output = n_prefix, as_output

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.block(torch.cat([2 * x[:, : self.n_prefix], x], dim=1))
        if not self.as_output:
            return x
        return SimpleNamespace(last_hidden_state=x, pooler_output=x[:, 0].tanh())


class Channels(nn.Module):
    """A map with its channels last."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 16, 16)

    def forward(self, x):
        return self.conv(x).permute(0, 2, 3, 1)


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    module = torchvision.models.resnet18(weights=None)
    module.fc = nn.Identity()
    return module.eval()


@pytest.fixture(scope="module")
def own(resnet):
    return Backbone.of(resnet, RESNET, "my resnet", blocks=BLOCKS)


@pytest.fixture(scope="module")
def tokens():
    torch.manual_seed(0)
    return Tokens().eval()


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.BatchNorm2d(8), nn.ReLU()).eval()
    return Backbone.of(module, prepare, "small", blocks=["0", "1"])


def features(module, transform, images):
    with torch.inference_mode():
        return module(torch.stack([transform(Image.open(path).convert("RGB")) for path in images]))


def test_a_network_of_torchvision_gives_its_own_features(resnet, own, photos):
    expected = features(resnet, RESNET, photos[:3]).numpy()
    found = extract(photos[:3], own)
    np.testing.assert_allclose(found.to_numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(
        ImageEmbedder(own, cache=None).transform(photos[:3]), expected, atol=1e-4
    )
    onnx = extract(photos[:3], own, runtime="onnx")
    assert onnx.statistics.runtime == "onnx"
    np.testing.assert_allclose(onnx.to_numpy(), expected, atol=1e-4)


def test_layers_are_the_outputs_of_modules_by_name(resnet, own, photos):
    nodes = torchvision.models.feature_extraction.create_feature_extractor(
        resnet, {"layer2.0.conv1": "low", "layer3": "high"}
    )
    found = features(nodes, RESNET, photos[:3])
    expected = torch.cat([found["low"].mean((2, 3)), found["high"].mean((2, 3))], 1)
    embedder = ImageEmbedder(own, layers=["layer2.0.conv1", "layer3"], cache=None)
    np.testing.assert_allclose(embedder.transform(photos[:3]), expected, atol=1e-4)
    with pytest.raises(BackboneError, match="no layer 'layer9'"):
        ImageEmbedder(own, layers="layer9", cache=None).transform(photos[:1])


def test_threads_share_a_network_and_its_hooks(small, photos):
    backbone = load_backbone_of(small, layers=["0", "pre_logits"])
    batches = [backbone.batch([backbone.prepare(np.asarray(Image.open(path)))]) for path in photos]
    expected = [backbone.forward(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            for found, one in zip(pool.map(backbone.forward, batches), expected, strict=True):
                np.testing.assert_allclose(found, one, rtol=1e-5)


def load_backbone_of(backbone, **output):
    spec = ImageEmbedder(backbone, **output)._spec()
    return type(backbone)(spec, backbone.device)


@pytest.mark.parametrize(
    ("pooling", "pooled"),
    [
        ("auto", lambda x: x[:, 0]),
        ("cls", lambda x: x[:, 0]),
        ("avg", lambda x: x[:, 1:].mean(1)),
        ("max", lambda x: x[:, 1:].amax(1)),
        ("cls+avg", lambda x: torch.cat([x[:, 0], x[:, 1:].mean(1)], 1)),
    ],
)
def test_tokens_are_pooled(tokens, photos, pooling, pooled):
    backbone = Backbone.of(tokens, prepare, "tokens", n_prefix_tokens=1, pooling=pooling)
    expected = pooled(features(tokens, prepare, photos[:3]))
    np.testing.assert_allclose(extract(photos[:3], backbone).to_numpy(), expected, atol=1e-5)
    layer = ImageEmbedder(backbone, layers="block", cache=None).transform(photos[:3])
    np.testing.assert_allclose(layer, expected, atol=1e-5)


def test_the_outputs_of_hugging_face_models_are_understood(photos):
    module = Tokens(as_output=True).eval()
    output = features(module, prepare, photos[:3])
    processor = SimpleNamespace(image_processor=Processor())
    for pooling, expected in {
        "auto": output.pooler_output,
        "avg": output.last_hidden_state[:, 1:].mean(1),
        "cls": output.last_hidden_state[:, 0],
    }.items():
        backbone = Backbone.of(module, processor, "vit", n_prefix_tokens=1, pooling=pooling)
        np.testing.assert_allclose(extract(photos[:3], backbone).to_numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["ViTModel", "CLIPVisionModelWithProjection", "ResNetModel"])
def test_a_hugging_face_model_gives_its_own_features(photos, kind):
    transformers = pytest.importorskip("transformers")
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    size |= {"intermediate_size": 64, "image_size": 64, "patch_size": 16}
    config = {
        "ViTModel": lambda: transformers.ViTConfig(**size),
        "CLIPVisionModelWithProjection": lambda: transformers.CLIPVisionConfig(**size),
        "ResNetModel": lambda: transformers.ResNetConfig(hidden_sizes=[8, 16], depths=[1, 1]),
    }[kind]()
    torch.manual_seed(0)
    module = getattr(transformers, kind)(config).eval()
    processor = transformers.ViTImageProcessor(size={"height": 64, "width": 64})
    images = [Image.open(path).convert("RGB") for path in photos[:3]]
    with torch.inference_mode():
        output = module(**processor(images=images, return_tensors="pt"))
    expected = output.image_embeds if kind.startswith("CLIP") else output.pooler_output
    n_prefix = 0 if kind == "ResNetModel" else 1
    backbone = Backbone.of(module, processor, kind, n_prefix_tokens=n_prefix)
    found = extract(photos[:3], backbone).to_numpy()
    np.testing.assert_allclose(found, expected.flatten(1), atol=1e-5)
    grid = ImageEmbedder(backbone, pooling="grid", cache=None).transform(photos[:3])
    hidden = output.last_hidden_state
    flat = hidden.flatten(2).transpose(1, 2) if n_prefix == 0 else hidden[:, 1:]
    np.testing.assert_allclose(grid.reshape(flat.shape), flat, atol=1e-5)


def test_an_open_clip_tower_gives_its_own_features(photos):
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    tower = open_clip.transformer.VisionTransformer(64, 16, 32, 2, 2, 4.0, output_dim=24).eval()
    transform = open_clip.image_transform(64, is_train=False)
    expected = features(tower, transform, photos[:3])
    found = extract(photos[:3], Backbone.of(tower, transform, "open_clip")).to_numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


class Processor:
    """An image processor with the interface of Hugging Face's."""

    model_input_names = ("pixel_values",)

    def __call__(self, images, return_tensors):
        assert return_tensors == "pt"
        return {"pixel_values": prepare(images)[None]}


def test_embeddings_are_cached_under_the_name_and_the_tensors(small, photos, store):
    assert extract(photos[:4], small, store=store).statistics.embedded == 4
    twin = pickle.loads(pickle.dumps(small))
    assert twin.recipe == small.recipe
    assert extract(photos[:4], twin, store=store).statistics.cached == 4
    again = ImageEmbedder(twin, cache=store)
    assert again.extract(photos[:4]).statistics.cached == 4
    renamed = Backbone.of(small.model.module, prepare, "renamed")
    assert extract(photos[:4], renamed, store=store).statistics.embedded == 4
    module = pickle.loads(pickle.dumps(small.model.module))
    nn.init.constant_(module[0].bias, 1.0)
    changed = Backbone.of(module, prepare, "small")
    assert extract(photos[:4], changed, store=store).statistics.embedded == 4


def test_another_preprocessing_under_the_same_name_is_noticed(small, photos, store):
    extract(photos[:4], small, store=store)
    other = Backbone.of(small.model.module, lambda image: -prepare(image), "small")
    with pytest.warns(FeatureTLWarning, match="golden image"):
        found = extract(photos[:5], other, store=store)
    assert found.statistics.embedded == 5


def test_the_module_is_copied_and_stays_as_it_is(photos):
    module = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.BatchNorm2d(4)).train()
    backbone = Backbone.of(module, prepare, "copied")
    before = extract(photos[:2], backbone).to_numpy()
    assert module.training
    assert all(p.requires_grad for p in module.parameters())
    nn.init.zeros_(module[0].weight)
    np.testing.assert_array_equal(extract(photos[:2], backbone).to_numpy(), before)


def test_it_composes_with_scikit_learn(small, photo_folder, shared_cache):
    data = load_image_folder(photo_folder)
    pipe = make_pipeline(ImageEmbedder(small, cache=shared_cache), LinearProbeClassifier())
    assert clone(pipe)[0].backbone is small
    grid = {"imageembedder__pooling": ["avg", "max"], "imageembedder__views": [1, 2]}
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(data.data, data.target)
    assert search.best_score_ > 0.7
    single = clone(pipe).fit(data.data, data.target)
    (found,) = explain(single, data.data[:1])
    assert found.method == "class activation map"
    assert np.isfinite(found.heat).all()
    (best, *_) = rank_backbones(
        data.data, data.target, backbones={"mine": small}, cache=shared_cache
    )["backbone"]
    assert best == "mine"


def test_the_box_of_a_transform_is_where_it_looks(own):
    timms = load_backbone("resnet18", weights="random", crop_pct=0.875).preprocessing
    for height, width in [(427, 640), (640, 427), (300, 300)]:
        found, expected = (p.box(height, width) for p in (own.preprocessing, timms))
        np.testing.assert_allclose(found, expected, atol=3)


def test_top_blocks_are_fine_tuned(small, photo_folder, shared_cache):
    data = load_image_folder(photo_folder)
    model = FineTuneClassifier(
        small, n_blocks=1, epochs=2, learning_rate=0.01, cache=shared_cache, random_state=0
    ).fit(data.data, data.target)
    assert model.n_blocks_ == 1
    assert model.predict(data.data).shape == (24,)
    with pytest.raises(BackboneError, match="2 blocks"):
        FineTuneClassifier(small, n_blocks=3, cache=None).fit(data.data, data.target)
    blind = Backbone.of(small.model.module, prepare, "small")
    with pytest.raises(BackboneError, match="has no blocks"):
        FineTuneClassifier(blind, n_blocks=1, cache=None).fit(data.data, data.target)


def test_a_model_is_exported_but_a_model_file_holds_no_code(small, photo_folder, tmp_path):
    data = load_image_folder(photo_folder)
    pipe = make_pipeline(ImageEmbedder(small, cache=None), LinearProbeClassifier())
    pipe.fit(data.data, data.target)
    export_model(pipe, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="small"):
        save_model(pipe, tmp_path / "model.featuretl")


@pytest.mark.parametrize(
    ("module", "preprocessing", "options", "error", "fact"),
    [
        (nn.Identity(), prepare, {"blocks": ["missing"]}, ParameterError, r"'blocks'.*'missing'"),
        (nn.Identity(), "imagenet", {}, ParameterError, r"'preprocessing'.*'imagenet'"),
        (nn.Flatten(0), prepare, {}, BackboneError, "shape"),
        (nn.Conv2d(5, 3, 1), prepare, {}, BackboneError, "RuntimeError"),
        (Channels(), prepare, {}, BackboneError, "channels last"),
        (nn.Identity(), lambda image: image, {}, BackboneError, "Image"),
        (nn.Identity(), lambda image: 1 / 0, {}, BackboneError, "ZeroDivisionError"),
        (nn.Identity(), prepare, {"weights": "random"}, ParameterError, "'weights'"),
        (nn.Identity(), prepare, {"image_size": 99}, ParameterError, "'image_size'"),
        (nn.Identity(), prepare, {"pooling": "mean"}, ParameterError, "'pooling'"),
        (nn.Identity(), prepare, {"pooling": "cls"}, BackboneError, "class token"),
        (nn.Identity(), prepare, {"name": ""}, ParameterError, "'name'"),
        ("resnet18", prepare, {}, ParameterError, r"'module'.*'resnet18'"),
        (nn.Identity(), prepare, {"n_prefix_tokens": -1}, ParameterError, "'n_prefix_tokens'"),
    ],
)  # fmt: skip
def test_mistakes_are_named(module, preprocessing, options, error, fact):
    name = options.pop("name", "mine")
    with pytest.raises(error, match=fact):
        Backbone.of(module, preprocessing, name, **options)


def test_a_bare_module_is_refused_with_the_remedy(resnet, photos):
    with pytest.raises(ParameterError, match=r"Backbone\.of") as caught:
        ImageEmbedder(resnet).transform(photos[:1])
    assert len(str(caught.value)) < 300


def test_a_transform_that_gives_several_shapes_is_refused(photos):
    backbone = Backbone.of(
        nn.Conv2d(3, 4, 8, 8),
        lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1).float(),
        "any size",
    )
    with pytest.raises(BackboneError, match="one shape"):
        extract([np.zeros((9, 9, 3), np.uint8)], backbone)
