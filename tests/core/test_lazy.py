"""A package imports a module when one of its names is first used."""

import sys
from types import ModuleType

import pytest

from featuretl._core.lazy import exports, import_extra
from featuretl.exceptions import FeatureTLError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the modules `first`, which defines ONE and TWO, and `second`."""
    folder = tmp_path / "lazy_package"
    folder.mkdir()
    (folder / "first.py").write_text("ONE, TWO = 1, 2")
    (folder / "second.py").touch()
    (folder / "__init__.py").write_text(
        "from featuretl._core.lazy import exports\n"
        "__getattr__, __dir__, __all__ = exports(__name__, {'first': ['TWO', 'ONE']})"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import lazy_package

    yield lazy_package
    for name in [name for name in sys.modules if name.startswith("lazy_package")]:
        del sys.modules[name]


def test_a_module_is_imported_on_the_first_use_of_a_name(package):
    assert package.__all__ == dir(package) == ["ONE", "TWO"]
    assert "lazy_package.first" not in sys.modules
    assert package.TWO == 2
    assert "lazy_package.first" in sys.modules
    assert vars(package)["TWO"] == 2  # found without __getattr__ from now on
    assert "ONE" not in vars(package)


def test_modules_are_attributes_too(package):
    assert isinstance(package.second, ModuleType)


@pytest.mark.parametrize("name", ["THREE", "_first", "__path_of_nothing__"])
def test_other_names_are_attribute_errors(package, name):
    with pytest.raises(AttributeError, match=f"'lazy_package' has no attribute '{name}'"):
        getattr(package, name)


def test_a_name_that_its_module_lacks_is_an_error(package):
    get, _, names = exports("lazy_package", {"second": ["ONE"]})
    assert names == ["ONE"]
    with pytest.raises(AttributeError, match="ONE"):
        get("ONE")


def test_a_missing_module_names_the_extra_that_installs_it(monkeypatch):
    assert import_extra("json", "Sound needs json", "sound").dumps(1) == "1"
    with pytest.raises(FeatureTLError, match=r"^Sound needs it; .* 'featuretl\[sound\]'"):
        import_extra("no_such_module", "Sound needs it", "sound")

    def broken(name):
        raise OSError("libsndfile.so: cannot open shared object file")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(FeatureTLError, match="Sound needs it"):
        import_extra("soundfile", "Sound needs it", "sound")
