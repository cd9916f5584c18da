"""What counts as a medium."""

from __future__ import annotations

import pytest

from featuretl import load_backbone
from featuretl.backbones.spec import BackboneSpec
from featuretl.media import Sound, Text, Video
from featuretl.media.medium import Medium, is_medium


@pytest.mark.parametrize("kind", [Sound, Text, Video])
def test_the_packaged_media_have_every_member_of_the_protocol(kind):
    members = {name for name in vars(Medium) if not name.startswith("_")}
    assert members == {"recipe", "golden", "files", "digest", "prepare", "forward"}
    assert is_medium(kind())
    assert members <= set(dir(kind()))


def test_a_backbone_is_no_medium():
    spec = BackboneSpec.of("test", "test_resnet", weights="random")
    for value in ("resnet18", None, spec, load_backbone("test_resnet", weights="random")):
        assert not is_medium(value)
