"""``featuretl cache verify``, ``rebuild`` and ``export`` as users meet them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from featuretl_cli.main import cli
from known_rows import put
from pyarrow import parquet

from featuretl import EmbeddingStore

HOSTILE = "x\n\x1b[31m\u202e"
HOSTILE_SHOWN = r"x\n\x1b[31m\u202e"


def run(*args: Any) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def extract(*args: Any) -> Result:
    return run("extract", "--backbone", "test_resnet", "--weights", "random", "--json", *args)


def embedded(result: Result) -> int:
    return json.loads(result.stdout)["embedded"]


def assert_one_line_error(result: Result, named: str) -> None:
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert named in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.strip().isprintable()
    assert "bug in featuretl" not in result.stderr


@pytest.fixture
def few(photos: list[str], tmp_path: Path, cache: Path) -> Path:
    """Four image files of three contents, embedded."""
    folder = tmp_path / "few"
    folder.mkdir()
    for name, photo in zip("abcd", [*photos[::10], photos[0]], strict=True):
        (folder / f"{name}.jpg").write_bytes(Path(photo).read_bytes())
    assert embedded(extract(folder)) == 3
    return folder


@pytest.fixture
def segment(few: Path, cache: Path) -> Path:
    """The only segment's embeddings, one byte of them flipped."""
    (path,) = cache.glob("spaces/*/*.npy")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    return path


def test_a_sound_cache(few: Path, cache: Path) -> None:
    result = run("cache", "verify")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [f"Cache: {cache}", "0 damaged, 0 left over"]
    facts = json.loads(run("cache", "verify", "--json").stdout)
    assert facts == {"cache": str(cache), "repaired": False, "findings": []}


def test_a_cache_that_is_not_there(cache: Path) -> None:
    assert run("cache", "verify").exit_code == 0
    assert run("cache", "verify", "--repair").exit_code == 0
    assert "Found 0 segments" in run("cache", "rebuild").stdout
    assert_one_line_error(run("cache", "export", "x.npz"), "holds no embeddings; ")
    assert not cache.exists()


def test_damage_is_named_until_it_is_repaired(segment: Path, few: Path, cache: Path) -> None:
    name = segment.relative_to(cache)
    for _ in range(2):
        result = run("cache", "verify")
        assert result.exit_code == 1
        assert result.stdout.splitlines()[1:] == [
            f"damaged: {name}: its checksum does not match its content (3 embeddings to make again)",
            "1 damaged, 0 left over (3 embeddings to make again)",
            "Repair it with: featuretl cache verify --repair",
        ]
    as_json = run("cache", "verify", "--json")
    assert as_json.exit_code == 1
    (finding,) = json.loads(as_json.stdout)["findings"]
    assert (finding["path"], finding["rows"], finding["damaged"]) == (str(segment), 3, True)
    repaired = run("cache", "verify", "--repair")
    assert repaired.exit_code == 0
    assert f"damaged: {name}" in repaired.stdout
    assert "Repaired" in repaired.stdout
    assert run("cache", "verify").exit_code == 0
    again = extract(few)
    assert "Warning" not in again.stderr
    assert embedded(again) == 3


def test_names_from_the_cache_are_escaped(few: Path, cache: Path) -> None:
    space = next(cache.glob("spaces/*/space.json")).parent
    (space / f"{HOSTILE}.npy").write_bytes(b"no segment")
    (cache / "views").mkdir(exist_ok=True)
    (cache / "views" / f"{HOSTILE}.npy").write_bytes(b"\x1b[31m no view")
    result = run("cache", "verify")
    assert result.exit_code == 1
    assert f"left over: spaces/{space.name}/{HOSTILE_SHOWN}.keys" in result.stdout
    assert f"damaged: views/{HOSTILE_SHOWN}.npy" in result.stdout
    assert result.stdout.replace("\n", "").isprintable()
    assert len(json.loads(run("cache", "verify", "--json").stdout)["findings"]) == 2
    assert run("cache", "verify", "--repair").exit_code == 0
    assert "0 damaged, 0 left over" in run("cache", "verify").stdout
    assert embedded(extract(few)) == 0


def test_a_record_that_is_damaged_says_what_to_do(few: Path, cache: Path) -> None:
    next(cache.glob("spaces/*/space.json")).write_text("{")
    assert_one_line_error(run("cache", "info"), "featuretl cache verify --repair")
    assert run("cache", "verify", "--repair").exit_code == 0
    assert "0 embeddings" in run("cache", "info").stdout
    assert embedded(extract(few)) == 3


def test_rebuild_finds_what_is_there(few: Path, cache: Path) -> None:
    (cache / "index.sqlite").write_bytes(b"")
    result = run("cache", "rebuild")
    assert result.stdout.splitlines() == [f"Cache: {cache}", "Found 1 segments with 3 embeddings"]
    assert not (cache / "memo.sqlite").exists()
    facts = json.loads(run("cache", "rebuild", "--json").stdout)
    assert facts == {"cache": str(cache), "segments": 1, "rows": 3}
    assert embedded(extract(few)) == 0


def test_nothing_is_changed_beside_an_extraction(segment: Path, cache: Path) -> None:
    with EmbeddingStore(cache).locked_shared():
        for args in (["verify", "--repair"], ["rebuild"]):
            assert_one_line_error(run("cache", *args), "in use by an extraction")
    assert segment.exists()


def read_export(path: Path) -> tuple[list[str], np.ndarray, dict[str, Any]]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            metadata = json.loads(str(file["metadata"]))
            return file["sha256"].tolist(), file["embeddings"], metadata
    table = parquet.read_table(path)
    rows = table.column("embedding").combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    metadata = json.loads(table.schema.metadata[b"featuretl"])
    return table.column("sha256").to_pylist(), rows, metadata


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_export_writes_each_embedding_once(
    few: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr("featuretl.extraction.outputs._ROWS", 2)
    out = tmp_path / f"{HOSTILE}.{ending}"
    result = run("cache", "export", out)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"Wrote 3 embeddings to {tmp_path}/{HOSTILE_SHOWN}.{ending}\n"
    keys, rows, metadata = read_export(out)
    extract(few, "-o", tmp_path / "all.npy")
    files = sorted(few.iterdir())
    wanted = {
        hashlib.sha256(file.read_bytes()).hexdigest(): row
        for file, row in zip(files, np.load(tmp_path / "all.npy"), strict=True)
    }
    assert len(keys) == len(set(keys)) == 3
    assert rows.dtype == np.float32
    for key, row in zip(keys, rows, strict=True):
        np.testing.assert_array_equal(row, wanted.pop(key))
    assert wanted == {}
    (info,) = EmbeddingStore(cache).info()
    assert (metadata["recipe"], metadata["space"]) == (info.recipe, info.id)
    assert (metadata["backbone"], metadata["shape"]) == ("test_resnet", [3, 96])


def test_export_of_keys_in_two_segments_and_ending_in_zeros(cache: Path, tmp_path: Path) -> None:
    recipe = {"backbone": {"name": "b", "tensors": "0"}, "output": {"n_features": 1}}
    numbers = [b"\1" + b"\0" * 31, b"\0" * 31 + b"\2", b"\3" * 32]
    for value, keys in enumerate([numbers[2:], numbers[:2], numbers]):
        with EmbeddingStore(cache).open_space(recipe, np.ones(1, np.float32), {}) as space:
            space.append(keys, np.full((len(keys), 1), value, np.float32))
    result = run("cache", "export", tmp_path / "out.parquet", "--json")
    assert json.loads(result.stdout)["rows"] == 3
    keys, rows, _ = read_export(tmp_path / "out.parquet")
    assert keys == [number.hex() for number in (numbers[2], *numbers[:2])]  # as committed
    assert rows.ravel().tolist() == [0, 1, 1]


def test_export_of_one_recipe_among_several(few: Path, cache: Path, tmp_path: Path) -> None:
    extract(few / "a.jpg", "--pooling", "max")
    out = tmp_path / "out.npz"
    for info in EmbeddingStore(cache).info():
        result = run("cache", "export", out, "--space", info.id[:12])
        assert result.exit_code == 0, result.stderr
        assert read_export(out)[2]["recipe"] == info.recipe
    out.unlink()
    several = run("cache", "export", out)
    assert_one_line_error(several, "2 recipes have ids that start with ''")
    assert all(
        f"{info.id[:12]} (test_resnet)" in several.stderr for info in EmbeddingStore().info()
    )
    assert_one_line_error(run("cache", "export", out, "--space", HOSTILE), "starts with")
    assert not out.exists()


def test_export_where_it_cannot(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for out, named in [
        (tmp_path / "out.npy", "must end in .npz, .parquet; got"),
        (tmp_path / f"{HOSTILE}" / "out.npz", "create it first"),
    ]:
        assert_one_line_error(run("cache", "export", out), named)

    def full(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise OSError(28, "No space left on device")

    old = tmp_path / "out.npz"
    old.write_bytes(b"what was there")
    monkeypatch.setattr(Path, "replace", full)
    assert_one_line_error(run("cache", "export", old), "No space left on device")
    assert old.read_bytes() == b"what was there"
    assert [path for path in tmp_path.iterdir() if path.suffix == ".partial"] == []


def test_export_says_what_is_damaged_and_writes_nothing(segment: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=f"damaged segment.*{segment.stem}"):
        result = run("cache", "export", tmp_path / "out.npz")
    assert_one_line_error(result, "featuretl cache verify --repair")
    assert not (tmp_path / "out.npz").exists()


def test_gc_says_how_many_segments_it_merged(cache: Path) -> None:
    for numbers in (range(3), range(3, 5)):
        put(EmbeddingStore(cache), numbers)
    assert "Merged 2 small segments" in run("cache", "gc").stdout
    assert json.loads(run("cache", "gc", "--json").stdout)["compacted"] == 0
