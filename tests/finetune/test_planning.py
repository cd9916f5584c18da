"""The decision whether to cache the activations of the trunk."""

import dataclasses
import re
from types import SimpleNamespace

import pytest

from featuretl.backbones.views import STRENGTHS
from featuretl.finetune.network import split
from featuretl.finetune.planning import Plan, plan, resolve_augment

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


def test_memory_and_disk_decide_about_the_cache(quick, photos, labels, monkeypatch):
    model = quick(cache=None, cache_trunk="auto").fit(photos, labels)
    assert model.cache_trunk_.cached
    assert "fit in memory" in model.cache_trunk_.why
    monkeypatch.setattr("featuretl.finetune.planning.MOST_MEMORY", 1000)
    data = photos, labels, None, None, None
    found = quick(cache=None, cache_trunk="auto")._begin(*data).plan
    assert not found.cached
    assert "more than 1,000 in memory" in found.why
    found = quick(cache_trunk="auto", augment="strong")._begin(*data).plan
    assert re.match("2 epochs .* 6 views", found.why)


def test_the_strong_views_are_cached(quick, photos, labels):
    model = quick(augment="strong", epochs=7, cache_trunk="auto").fit(photos[6:18], labels[6:18])
    assert model.cache_trunk_.views == 6
    assert model.score(photos, labels) == 1.0


def test_the_trunk_was_cached_and_says_so(fitted):
    plan = fitted.cache_trunk_
    assert plan.cached
    assert plan.views == 2
    assert plan.bytes == 24 * 2 * 2 * 192 * 4 * 4


def parameters(**changes):
    defaults = {"augment": "light", "cache_trunk": "auto", "epochs": 12}
    return SimpleNamespace(**(defaults | changes))


def test_the_size_is_that_of_all_views_in_float16(tiny):
    parts = split(tiny, 1)
    found = plan(parameters(augment="strong"), 100, tiny, parts, None)
    assert (found.cached, found.views) == (True, 6)
    assert found.bytes == 100 * 6 * 2 * 192 * 10 * 10
    assert f"{found.bytes:,} bytes" in found.why


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"augment": lambda image: image}, "augment is a function"),
        ({"cache_trunk": False}, "cache_trunk=False"),
        ({"epochs": 2}, "2 epochs .* 2 views"),
    ],
)
def test_why_it_is_not_cached(changes, why, tiny):
    found = plan(parameters(**changes), 24, tiny, split(tiny, 1), None)
    assert (found.cached, found.views, found.bytes) == (False, 0, 0)
    assert re.search(why, found.why)


@pytest.mark.parametrize("why_not_cut", ["", "it cannot be traced"])
def test_without_a_trunk_nothing_is_cached_even_on_request(why_not_cut, tiny):
    parts = dataclasses.replace(split(tiny, "all"), why_not_cut=why_not_cut)
    found = plan(parameters(cache_trunk=True), 24, tiny, parts, None)
    assert found == Plan(False, 0, 0, why_not_cut or "every block is trained")


def test_half_of_the_free_disk_space_may_be_used(tiny, tmp_path, monkeypatch):
    """The folder of the store need not exist yet, and its name may be too long for one."""
    free = 2 * 24 * 2 * 2 * 192 * 10 * 10
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    for folder in (tmp_path / "new" / "cache", tmp_path / ("x" * 1000)):
        store = SimpleNamespace(path=folder)
        found = plan(parameters(), 24, tiny, split(tiny, 1), store)
        assert found.cached
        assert found.bytes == free // 2
        found = plan(parameters(), 25, tiny, split(tiny, 1), store)
        assert not found.cached
        assert f"more than {free // 2:,} on disk" in found.why
    assert plan(parameters(cache_trunk=True), 25, tiny, split(tiny, 1), store).cached


def test_the_parameter_augment_selects_a_strength_or_is_called():
    assert resolve_augment("auto") is resolve_augment("light") is STRENGTHS["light"]
    assert resolve_augment("none").views == 1
    assert resolve_augment(print) is print
