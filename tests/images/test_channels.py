"""Images with one channel, and with more channels than three."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from featuretl import ImageEmbedder, LinearProbeClassifier, extract, load_backbone
from featuretl.exceptions import ImageError, ParameterError
from featuretl.images.channels import check_channels, decode_channels

RANDOM = {"weights": "random", "cache": None}


@pytest.fixture
def bands(pixels):
    """Two images of five channels, uint8 (2, 120, 160, 5)."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (2, 120, 160, 5), np.uint8)


def tiff(array, **options):
    tifffile = pytest.importorskip("tifffile", reason="an extra: tiff")
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def test_a_network_of_one_channel_takes_the_luminance_of_any_image(pixels, tmp_path):
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    Image.fromarray(grey).save(tmp_path / "grey.png")
    embedder = ImageEmbedder(in_chans=1, cache=None)
    found = embedder.transform([pixels, grey, grey[..., None], str(tmp_path / "grey.png")])
    assert found.shape == (4, 1280)
    np.testing.assert_array_equal(found[1:], found[[0, 0, 0]])


def test_the_weights_of_one_channel_are_those_of_three_summed(pixels):
    """A grey image has almost the embedding of the network of three channels."""
    grey = np.repeat(np.asarray(Image.fromarray(pixels).convert("L"))[..., None], 3, axis=2)
    one, three = (ImageEmbedder(in_chans=n, cache=None).transform([grey])[0] for n in (1, 3))
    assert one @ three / np.linalg.norm(one) / np.linalg.norm(three) > 0.999


@pytest.mark.parametrize("n_channels", [2, 4, 5])
def test_arrays_of_channels_are_embedded(bands, n_channels):
    images = bands[..., :n_channels]
    embedder = ImageEmbedder("test_resnet", in_chans=n_channels, **RANDOM)
    found = embedder.transform(list(images))
    np.testing.assert_array_equal(embedder.transform(images), found)
    changed = images.copy()
    changed[0, ..., -1] = 0  # every channel counts
    assert not np.allclose(embedder.transform(changed)[0], found[0])
    head = LinearProbeClassifier().fit(found, [0, 1])
    assert head.predict(found).tolist() == [0, 1]


def test_packaged_weights_are_adapted_as_timm_adapts_them(bands):
    network = load_backbone(in_chans=5)
    rgb = load_backbone()
    weight, own = (b.model.conv_stem.weight.numpy() for b in (network, rgb))
    np.testing.assert_allclose(weight, own[:, [0, 1, 2, 0, 1]] * 3 / 5, rtol=1e-5)
    assert network.recipe["preprocess"]["input_size"] == [5, 224, 224]
    assert network.recipe["backbone"] != rgb.recipe["backbone"]


@pytest.mark.parametrize("options", [{}, {"planarconfig": "separate", "photometric": "minisblack"}])
def test_tiff_files_of_channels_are_the_arrays_in_them(bands, tmp_path, options, store):
    array = bands[0].transpose(2, 0, 1) if options else bands[0]
    content = tiff(array, **(options or {"photometric": "minisblack", "planarconfig": "contig"}))
    np.testing.assert_array_equal(decode_channels(content, 5), bands[0])
    path = tmp_path / "bands.tif"
    path.write_bytes(content)
    embedder = ImageEmbedder("test_resnet", weights="random", in_chans=5, cache=store)
    found = embedder.transform([str(path), content, bands[0]])
    np.testing.assert_array_equal(found, found[[0, 0, 0]])
    assert embedder.extract([str(path)]).statistics.cached == 1


def test_files_that_lack_the_channels_are_named(bands, pixels, tmp_path):
    content = tiff(bands[0], photometric="minisblack", planarconfig="contig")
    Image.fromarray(pixels).save(tmp_path / "rgb.png")
    deep = tiff(bands[0].astype(np.uint16), photometric="minisblack", planarconfig="contig")
    images = [str(tmp_path / "rgb.png"), content[:300], content, deep, pixels, bands[0] / 255]
    found = ImageEmbedder("test_resnet", in_chans=4, on_error="nan", **RANDOM).extract(images)
    assert [failure.index for failure in found.failures] == [0, 1, 2, 3, 4, 5]
    plain = extract([bands[0]], load_backbone("test_resnet", weights="random"), on_error="nan")
    assert "(120, 160, 5)" in plain.failures[0].message
    for array in (bands[0], bands[0][..., :0], bands[0][0, 0]):
        with pytest.raises(ImageError, match="in_chans is 4"):
            check_channels(array, 4)


@pytest.mark.parametrize("in_chans", [0, 1.0, True, "3"])
def test_the_number_of_channels_is_checked(in_chans):
    with pytest.raises(ParameterError, match="'in_chans'"):
        ImageEmbedder(in_chans=in_chans).fit([])


@pytest.mark.parametrize("side", [8_000, 100_000])
def test_a_tiff_that_claims_more_than_it_holds_is_refused_unread(bands, side):
    content = tiff(bands[0], photometric="minisblack", planarconfig="contig")
    for tag in (256, 257, 278):  # width, length, rows per strip
        entry = content.index(struct.pack("<H", tag), int.from_bytes(content[4:8], "little"))
        content = content[: entry + 2] + struct.pack("<HII", 4, 1, side) + content[entry + 12 :]
    with pytest.raises(ImageError, match=str(side)):
        decode_channels(content, 5)
