"""The command line as users meet it: output, exit statuses, hostile names, and signals."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from featuretl_cli.main import Terminated, cli
from PIL import Image
from pyarrow import parquet

from featuretl import EmbeddingStore
from featuretl.backbones.catalog import PACKAGED
from featuretl.backbones.eager import TorchRuntime
from featuretl.exceptions import BackboneError
from featuretl.ranking.speed import BackboneSpeed

TINY = ["--backbone", "test_resnet", "--weights", "random"]
BAD_NAME = "bad\n\x1b[31m\u202e[bold].jpg"
BAD_NAME_SHOWN = r"bad\n\x1b[31m\u202e[bold].jpg"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, so that no test writes into the sources."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.fixture
def few(photos: list[str], tmp_path: Path) -> Path:
    """Three photographs in two class folders."""
    for name, photo in zip(("a/1.jpg", "a/2.jpg", "b/3.jpg"), photos[::10], strict=True):
        path = tmp_path / "few" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Path(photo).read_bytes())
    return tmp_path / "few"


@pytest.fixture
def with_bad(few: Path) -> Path:
    """The three photographs, and two unreadable files between them."""
    (few / "a" / BAD_NAME).write_text("<html>404</html>")
    (few / "b" / "0.jpg").touch()
    return few


def run(*args: Any) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def extract(*args: Any) -> Result:
    return run("extract", *TINY, *args)


def summary(result: Result) -> dict[str, Any]:
    """Return the JSON on stdout, which holds nothing else."""
    return json.loads(result.stdout)


def counts(result: Result) -> tuple[int, ...]:
    facts = summary(result)
    return tuple(facts[name] for name in ("images", "cached", "embedded", "failed"))


def assert_one_line_error(result: Result, named: str) -> None:
    """The last line of stderr is the error, and only a progress bar precedes it."""
    assert result.exit_code == 1
    assert result.stdout == ""
    *before, last = result.stderr.splitlines()
    assert last.startswith("Error: ")
    assert named in last
    assert all(line.startswith("Embedding ") for line in before)
    assert "Traceback" not in result.stderr
    assert "bug in featuretl" not in result.stderr


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_memory_that_does_not_suffice_is_one_sentence(monkeypatch, tmp_path, error):
    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr("featuretl.store.store.EmbeddingStore.info", fails)
    result = run("cache", "info", "--cache", tmp_path)
    assert_one_line_error(result, "Out of memory")


# extract


def test_a_folder_is_embedded_once(few: Path, cache: Path) -> None:
    first = extract(few, "--json")
    assert first.exit_code == 0
    assert counts(first) == (3, 0, 3, 0)
    facts = summary(first)
    assert facts["backbone"] == "test_resnet"
    assert facts["n_features"] == 96
    assert facts["classes"] == 2
    assert facts["cache"] == str(cache)
    assert facts["output"] is None
    assert facts["failures"] == []
    assert facts["seconds"] > 0
    assert facts["images_per_second"] == pytest.approx(3 / facts["seconds"])
    again = extract(few, "--json")
    assert again.exit_code == 0
    assert counts(again) == (3, 3, 0, 0)
    assert EmbeddingStore(cache).info()[0].rows == 3


def test_profile_shows_where_the_time_went(few: Path) -> None:
    stages = ["read", "hash", "decode", "resize", "normalise", "forward", "commit", "other"]
    text = extract(few, "--profile").stdout
    table = text[text.index("core ms per new image") :]
    assert [word for word in re.findall(r"[a-z]+", table) if word in stages] == stages
    assert "100.0%" in table
    assert "core ms" not in extract(few).stdout
    costs = summary(extract(few / "a", "--json", "--no-cache"))["costs"]
    assert list(costs) == stages
    assert all(seconds > 0 for stage, seconds in costs.items() if stage != "other")


def test_all_kinds_of_sources_are_the_same_images(few: Path) -> None:
    extract(few)
    (few / "list.txt").write_text("a/1.jpg\na/2.jpg\n")
    (few / "m.csv").write_text("photo,kind,label\na/1.jpg,x,w\nb/3.jpg,y,w\n")
    for sources, images, classes in [
        ([few], 3, 2),
        ([few / "a", few / "b"], 3, 0),
        ([few / "a" / "1.jpg", few / "b" / "3.jpg"], 2, 0),
        ([few / "*" / "*.jpg"], 3, 0),
        ([few / "**" / "[12].jpg"], 2, 0),
        ([few / "list.txt"], 2, 0),
        ([few / "m.csv", "--path-column", "photo"], 2, 1),
        ([few / "m.csv", "--path-column", "photo", "--label-column", "kind"], 2, 2),
        ([few, few / "a" / "1.jpg"], 4, 2),
    ]:
        result = extract(*sources, "--json")
        assert counts(result) == (images, images, 0, 0)
        assert summary(result)["classes"] == classes


def test_the_summary_for_people_says_the_same_as_the_json(few: Path) -> None:
    result = extract(few)
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["images", "3"] in rows
    assert ["embedded", "3"] in rows
    assert ["backbone", "test_resnet"] in rows


def test_stdout_holds_the_result_only(with_bad: Path) -> None:
    result = extract(with_bad, "--on-error", "skip", "--json")
    assert len(result.stdout.splitlines()) == 1
    assert "Embedding" in result.stderr  # the progress bar
    assert "2 images without an embedding" in result.stderr
    plain = extract(with_bad, "--on-error", "skip")
    assert "Embedding" not in plain.stdout
    assert "404" not in plain.stdout


def test_other_options_make_other_embeddings(few: Path) -> None:
    assert summary(extract(few, "--json"))["n_features"] == 96
    flat = extract(few, "--json", "--layers", "1,layer4", "--pooling", "avg")
    assert counts(flat) == (3, 0, 3, 0)
    assert summary(flat)["n_features"] != 96
    assert counts(extract(few, "--json", "--normalize")) == (3, 0, 3, 0)
    assert counts(extract(few, "--json", "--batch-size", "1", "--n-jobs", "1")) == (3, 3, 0, 0)


def test_no_cache_keeps_nothing(few: Path, cache: Path) -> None:
    for _ in range(2):
        result = extract(few, "--no-cache", "--json")
        assert counts(result) == (3, 0, 3, 0)
        assert summary(result)["cache"] is None
    assert not cache.exists()


def test_a_cache_of_its_own(few: Path, cache: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "cache"
    result = extract(few, "--cache", other, "--json")
    assert summary(result)["cache"] == str(other)
    assert counts(extract(few, "--cache", other, "--json")) == (3, 3, 0, 0)
    assert not cache.exists()


@pytest.mark.parametrize("ending", ["npy", "npz", "parquet"])
def test_output_files(few: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"out.{ending}"
    result = extract(few, "-o", out, "--json")
    assert result.exit_code == 0
    assert summary(result)["output"] == str(out)
    if ending == "npy":
        described = json.loads((tmp_path / "out.npy.json").read_text())
        shape, paths = np.load(out).shape, described["paths"]
    elif ending == "npz":
        with np.load(out, allow_pickle=False) as file:
            shape, paths = file["embeddings"].shape, file["paths"].tolist()
    else:
        table = parquet.read_table(out)
        shape = (len(table), table.schema.field("embedding").type.list_size)
        paths = table.column("path").to_pylist()
    assert shape == (3, 96)
    assert [os.path.relpath(path, few) for path in paths] == ["a/1.jpg", "a/2.jpg", "b/3.jpg"]


# bad images


@pytest.mark.parametrize(("on_error", "code"), [("raise", 1), ("skip", 0), ("nan", 0)])
def test_bad_images(with_bad: Path, tmp_path: Path, on_error: str, code: int) -> None:
    out = tmp_path / "out.npy"
    result = extract(with_bad, "--on-error", on_error, "-o", out, "--json")
    assert result.exit_code == code
    assert counts(result) == (5, 0, 3, 2)
    failures = summary(result)["failures"]
    assert [failure["index"] for failure in failures] == [2, 3]
    assert [Path(failure["path"]).name for failure in failures] == [BAD_NAME, "0.jpg"]
    assert "not an image" in failures[0]["error"]
    assert "0 bytes" in failures[1]["error"]
    if on_error == "raise":
        assert not out.exists()
        assert summary(result)["output"] is None
        return
    rows = np.load(out)
    nan = np.isnan(rows).all(axis=1).tolist()
    assert nan == ([False] * 3 if on_error == "skip" else [False, False, True, True, False])
    # Unreadable files do not change the embeddings of the other images.
    (with_bad / "a" / BAD_NAME).unlink()
    (with_bad / "b" / "0.jpg").unlink()
    extract(with_bad, "-o", tmp_path / "good.npy", "--no-cache")
    good = rows[~np.array(nan)]
    np.testing.assert_allclose(good, np.load(tmp_path / "good.npy"), rtol=1e-4, atol=1e-5)


def test_good_images_are_kept_when_others_fail(with_bad: Path) -> None:
    assert extract(with_bad).exit_code == 1
    assert counts(extract(with_bad, "--json")) == (5, 3, 0, 2)


def test_the_table_of_bad_images_escapes_their_names(
    with_bad: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(with_bad)  # short names, which the table does not fold
    result = extract("a", "b")
    assert f"a/{BAD_NAME_SHOWN} " in result.stderr
    assert "b/0.jpg" in result.stderr
    assert "0 bytes" in result.stderr
    for output in (result.stdout, result.stderr):
        assert output.replace("\n", "").isprintable()


def test_of_many_bad_images_the_first_are_shown(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02d}.jpg").touch()
    result = extract(tmp_path, "--no-cache")
    assert result.exit_code == 1
    assert "30 images without an embedding" in result.stderr
    assert "19.jpg" in result.stderr
    assert "20.jpg" not in result.stderr
    assert "10 more" in result.stderr


@pytest.mark.parametrize("name", ["esc\x1b[31m", "bidi\u202e", "not-utf8-\udcff", "line\nbreak"])
@pytest.mark.parametrize("option", ["--cache", "-o"])
def test_own_paths_are_escaped_too(few: Path, tmp_path: Path, name: str, option: str) -> None:
    path = tmp_path / f"{name}.npy"
    result = extract(few, option, path)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.replace("\n", "").isprintable()
    assert path.exists()
    if option == "--cache":
        info = run("cache", "info", "--cache", path)
        assert info.exit_code == 0, info.stderr
        assert info.stdout.replace("\n", "").isprintable()


# errors


def test_what_cannot_be_used_is_one_line(few: Path, tmp_path: Path) -> None:
    (tmp_path / "no.pth").write_bytes(b"no weights")
    (tmp_path / "empty").mkdir()
    for args, named in [
        ([tmp_path / "missing"], "missing"),
        ([tmp_path / "empty"], "empty"),
        ([few, "--pooling", "average"], "'avg'"),
        ([few, "--layers", "99"], "99"),
        ([few, "--backbone", "test_resnett"], "'test_resnet'"),
        ([few, "--backbone", "esc\x1b[31m"], r"esc\\x1b[31m"),
        ([few, "--weights", tmp_path / "missing.pth"], "missing.pth"),
        ([few, "--weights", tmp_path / "no.pth"], "no.pth"),
        ([few, "--device", "toaster"], "'device'"),
        ([few, "-o", tmp_path / "out.csv"], ".npy, .npz, .parquet"),
        ([few, "-o", tmp_path / "missing" / "out.npy"], "missing"),
    ]:
        assert_one_line_error(extract(*args), named)


@pytest.mark.parametrize("option", [["--n-jobs", "0"], ["--layers=--5"]])
def test_a_number_out_of_range_is_no_bug_of_featuretl(few: Path, option: list[str]) -> None:
    result = extract(few, *option)
    assert result.exit_code in (1, 2)
    assert "bug in featuretl" not in result.stderr


def test_weights_that_do_not_fit_are_named(few: Path, tmp_path: Path) -> None:
    import timm
    import torch

    file = tmp_path / "other.pth"
    torch.save(timm.create_model("test_vit").state_dict(), file)
    result = extract(few, "--weights", file)
    assert_one_line_error(result, "'test_resnet'")
    assert "conv1.0.weight" in result.stderr
    assert "cls_token" in result.stderr


def test_no_weights_without_a_hub(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = run("extract", few, "--backbone", "resnet18", "--no-cache")
    assert_one_line_error(result, "tf_efficientnet_lite0")


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["extract"], "PHOTOS"),
        (["extract", "x", "--no-cache", "--cache", "y"], "exclude each other"),
        (["extract", "x", "--poling", "avg"], "--poling"),
        (["extract", "x", "--on-error", "ignore"], "ignore"),
        (["extract", "x", "--batch-size", "0"], "--batch-size"),
        (["extract", "x", "--n-jobs", "two"], "--n-jobs"),
        (["extrakt", "x"], "extrakt"),
        (["cache", "clear"], "clear"),
        (["backbones", "a", "b"], "b"),
    ],
)
def test_wrong_usage_exits_2(few: Path, args: list[str], named: str) -> None:
    result = run(*[str(few) if arg == "x" else arg for arg in args])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert named in result.stderr
    assert "Usage:" in result.stderr


def test_a_bug_is_one_line_unless_debugging(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("featuretl.images.sources.find_images", broken)
    result = extract(few)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Unexpected RuntimeError: broken (this is a bug")
    monkeypatch.setenv("FEATURETL_DEBUG", "1")
    assert isinstance(extract(few).exception, RuntimeError)


def test_a_closed_pipe_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*args: Any, **kwargs: Any) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("featuretl_cli.backbones.print_json", closed)
    result = run("backbones", "--json")
    assert (result.exit_code, result.stderr.strip()) == (1, "")


def test_an_error_of_featuretl_is_one_line(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise BackboneError("No such backbone.")

    monkeypatch.setattr("featuretl.images.sources.find_images", broken)
    assert extract(few).stderr == "Error: No such backbone.\n"


# backbones, cache


def test_backbones_lists_the_packaged_ones() -> None:
    result = run("backbones")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in PACKAGED)
    assert "224 x 224" in result.stdout
    infos = json.loads(run("backbones", "--json").stdout)["backbones"]
    assert [info["name"] for info in infos] == list(PACKAGED)
    default = infos[0]
    assert default["available"]
    assert (default["source"], default["note"]) == ("packaged", "")
    assert (default["n_features"], default["input_size"]) == (1280, [3, 224, 224])
    assert default["n_parameters"] == 3_371_008


def test_backbones_are_timed_by_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def time_backbone(spec: Any, *, store: Any) -> BackboneSpeed:
        asked.append((spec.name, spec.weights, store is not None))
        return BackboneSpeed(spec.name, {"torch": 1234.5, "onnx": None}, "torch")

    monkeypatch.setattr("featuretl.ranking.speed.time_backbone", time_backbone)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **options: None)
    assert "1,234.5" in run("backbones", "tf_efficientnet_lite0*", "--time").stdout
    (speed,) = summary(run("backbones", "test_resnet.r160*", "--time", "--json"))["backbones"]
    assert speed["images_per_second"] == {"torch": 1234.5, "onnx": None}
    assert asked == [
        ("tf_efficientnet_lite0", "auto", True),
        ("test_resnet.r160_in1k", "random", False),
    ]


def test_several_devices_and_a_batch_size(few: Path) -> None:
    options = ("--device", "cpu,cpu", "--batch-size", "2", "--no-cache", "--json")
    facts = json.loads(extract(few, *options).stdout)
    assert (facts["embedded"], facts["failed"]) == (facts["images"], 0)


@pytest.mark.parametrize("size", ["0", "-1", "many"])
def test_a_batch_size_is_auto_or_a_number(few: Path, size: str) -> None:
    result = extract(few, "--batch-size", size)
    assert result.exit_code == 2
    assert "'--batch-size'" in result.stderr


def test_backbones_of_the_hub_need_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    infos = json.loads(run("backbones", "resnet18*", "--json").stdout)["backbones"]
    assert "resnet18.a1_in1k" in [info["name"] for info in infos]
    for info in infos:
        assert info["name"].startswith("resnet18")
        assert info["source"] == "hub"
        assert not info["available"]
        assert info["note"] == "needs a download"
        assert info["n_features"] == 512
    assert "needs a download" in run("backbones", "resnet18.a1*").stdout


def test_recommended_backbones_have_a_purpose() -> None:
    infos = json.loads(run("backbones", "--recommended", "--json").stdout)["backbones"]
    assert infos[0]["name"] == "tf_efficientnet_lite0"
    assert all(info["purpose"] and info["gflops"] > 0 and info["license"] for info in infos)
    table = run("backbones", "--recommended").stdout
    assert all(info["name"] in table for info in infos)
    assert run("backbones", "resnet*", "--recommended").exit_code == 2


def test_a_folder_as_backbone(few: Path, tmp_path: Path) -> None:
    import timm
    from timm.models import save_for_hf

    save_for_hf(timm.create_model("test_resnet"), str(tmp_path / "net"), safe_serialization=True)
    name = f"local-dir:{tmp_path / 'net'}"
    facts = json.loads(run("extract", few, "--backbone", name, "--no-cache", "--json").stdout)
    assert facts["embedded"] == facts["images"]
    assert "local" in run("backbones", name).stdout
    assert_one_line_error(run("extract", few, "--backbone", "local-dir:none"), "config.json")


def test_backbones_that_do_not_exist() -> None:
    assert_one_line_error(run("backbones", "no-such-thing\x1b"), "no-such-thing")


def test_cache_info_counts_what_is_kept(few: Path, cache: Path) -> None:
    empty = run("cache", "info")
    assert empty.exit_code == 0
    assert empty.stdout.splitlines() == [f"Cache: {cache}", "0 embeddings, 0.0 MiB"]
    assert not cache.exists()  # cache info creates no folder
    extract(few)
    extract(few / "a", "--pooling", "max")
    facts = json.loads(run("cache", "info", "--json").stdout)
    assert facts["cache"] == str(cache)
    spaces = [(space["rows"], space["recipe"]["output"]["pooling"]) for space in facts["spaces"]]
    assert spaces == [(3, "auto"), (2, "max")]
    assert all(space["bytes"] >= space["rows"] * 96 * 4 for space in facts["spaces"])
    text = run("cache", "info").stdout
    assert "test_resnet" in text
    assert "5 embeddings" in text


def test_cache_info_of_another_folder(few: Path, tmp_path: Path) -> None:
    extract(few, "--cache", tmp_path / "other")
    assert "0 embeddings" in run("cache", "info").stdout
    assert "3 embeddings" in run("cache", "info", "--cache", tmp_path / "other").stdout


def test_cache_gc_frees_what_is_not_wanted_any_more(few: Path, cache: Path) -> None:
    extract(few)
    extract(few / "a", "--pooling", "max")
    assert "Freed 0.0 MiB: 0 recipes, 0 views" in run("cache", "gc", "--older-than", "1d").stdout
    facts = json.loads(run("cache", "gc", "--max-size", "1.5kB", "--json").stdout)
    assert [space["rows"] for space in facts["spaces"]] == [3]
    text = run("cache", "gc", "--max-size", "0kB").stdout
    assert "freed test_resnet, pre_logits: 2 rows" in text
    assert "Freed 0.0 MiB: 1 recipes, 0 views" in text
    assert counts(extract(few, "--json")) == (3, 0, 3, 0)


@pytest.mark.parametrize("size", ["20", "GB", "-1GB", "20XB"])
def test_a_size_without_a_unit_is_refused(size: str) -> None:
    result = run("cache", "gc", f"--max-size={size}")
    assert result.exit_code == 2
    assert f"'{size}'" in result.stderr and "kB, MB, GB, TB" in result.stderr


# processes

MAIN = [sys.executable, "-c", "from featuretl_cli.main import main; main()"]


@pytest.mark.parametrize("args", [["--help"], ["extract", "--help"], ["--version"]])
def test_help_does_not_import_torch(args: list[str]) -> None:
    code = (
        "import sys\n"
        "from featuretl_cli.main import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        "heavy = {'torch', 'timm', 'sklearn', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout
    assert done.stderr == "[]\n"


def test_the_command_is_installed(few: Path) -> None:
    command = Path(sys.executable).with_name("featuretl")
    if not command.exists():
        pytest.skip("needs the console script of an installed featuretl")
    done = subprocess.run([command, "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("featuretl ")


SERIAL = ["--batch-size", "4", "--n-jobs", "1"]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray) -> Path:
    """300 different crops of a real photograph, in small PNG files."""
    root = tmp_path_factory.mktemp("many")
    for number in range(300):
        top, left = divmod(number, 50)
        crop = pixels[20 * top : 20 * top + 32, 10 * left : 10 * left + 32]
        Image.fromarray(crop).save(root / f"{number:03d}.png")
    return root


@pytest.fixture(scope="module")
def uninterrupted(many: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The embeddings of these images from an uninterrupted run."""
    path = tmp_path_factory.mktemp("whole") / "whole.npy"
    assert extract(*SERIAL, many, "--no-cache", "-o", path).exit_code == 0
    return np.load(path)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow, id="SIGINT"),
        pytest.param(signal.SIGTERM, 143, id="SIGTERM"),
    ],
)
def test_an_interrupted_extraction_goes_on_where_it_was(
    many: Path,
    uninterrupted: np.ndarray,
    cache: Path,
    tmp_path: Path,
    number: signal.Signals,
    code: int,
) -> None:
    options = ["extract", *TINY, *SERIAL]
    process = subprocess.Popen(
        [*MAIN, *options, str(many)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell ignores SIGINT, and so do its child processes.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    # An image is claimed, in one of 16 files, before it is read, and no more than 9 images are read
    # ahead: when all files are there, some batches of 4 have been embedded, and most have not.
    while process.poll() is None and len(list(cache.glob("claims/*"))) < 16:
        time.sleep(0.01)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    said = re.search(
        r"^Interrupted\. (\d+) new embeddings are cached; run the command again to resume\.$",
        stderr,
        re.MULTILINE,
    )
    assert said, stderr
    kept = int(said[1])
    assert 0 < kept < 300
    assert sum(space.rows for space in EmbeddingStore(cache).info()) == kept
    resumed = run(*options, many, "--json", "-o", tmp_path / "resumed.npy")
    assert counts(resumed) == (300, kept, 300 - kept, 0)
    np.testing.assert_allclose(
        np.load(tmp_path / "resumed.npy"), uninterrupted, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("interrupt", "code"), [(KeyboardInterrupt, 130), (Terminated, 143)], ids=["INT", "TERM"]
)
@pytest.mark.parametrize("no_cache", [False, True])
def test_an_interrupt_keeps_every_whole_batch(
    photo_folder: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupt: type[BaseException],
    code: int,
    no_cache: bool,
) -> None:
    forward, batches = TorchRuntime.__call__, []

    def interrupted(self: TorchRuntime, batch: Any) -> np.ndarray:
        if len(batch) == 4:  # not the golden image
            batches.append(len(batch))
        if len(batches) == 4:
            raise interrupt
        return forward(self, batch)

    options = [photo_folder, "--batch-size", "4", "--n-jobs", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(TorchRuntime, "__call__", interrupted)
        result = extract(*options, *["--no-cache"] * no_cache)
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    said = re.search(r"^Interrupted\. (\d+) new embeddings are (not )?cached", result.stderr, re.M)
    assert said and bool(said[2]) == no_cache, result.stderr
    kept = int(said[1])
    assert 12 <= kept < 24  # the thread may complete one more batch
    if no_cache:
        assert not cache.exists()
    else:
        assert counts(extract(*options, "--json")) == (24, kept, 24 - kept, 0)
