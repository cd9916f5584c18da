"""URLs in the place of paths: a server on 127.0.0.1, in manifests and in Python."""

from __future__ import annotations

import csv
import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from featuretl_cli.main import cli

from featuretl import extract
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import ImageError
from featuretl.images import decode as decode_module
from featuretl.images.inputs import read
from featuretl.prediction.files import _state_of

pytest.importorskip("aiohttp")  # what fsspec needs for HTTP

TINY = BackboneSpec.of("test", "test_resnet", weights="random")


class Handler(SimpleHTTPRequestHandler):
    """Serve a folder with ETags; ``/broken`` answers 500, ``/huge`` claims a terabyte."""

    def end_headers(self) -> None:
        file = Path(self.translate_path(self.path))
        if file.is_file():
            self.send_header("ETag", hashlib.sha256(file.read_bytes()).hexdigest())
        super().end_headers()

    def send_head(self) -> Any:
        if self.path == "/broken.jpg":
            self.send_error(500)
            return None
        if self.path in ("/huge.jpg", "/endless.jpg"):
            self.send_response(200)
            if self.path == "/huge.jpg":
                self.send_header("Content-Length", str(10**12))
            self.end_headers()
            return Path("/dev/zero").open("rb") if self.command == "GET" else None
        return super().send_head()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        try:
            super().copyfile(source, outputfile)
        except OSError:  # the client has enough
            pass

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def served(photos: list[str], tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The URL of a server, and its folder, which holds the photographs."""
    root = tmp_path / "served"
    root.mkdir()
    for number, path in enumerate(photos):
        (root / f"{number}.jpg").write_bytes(Path(path).read_bytes())
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", root
    server.shutdown()
    server.server_close()


@pytest.fixture
def manifest(served: tuple[str, Path], tmp_path: Path) -> Path:
    path = tmp_path / "manifest.csv"
    lines = [f"{served[0]}/{i}.jpg,{'flower' if i < 12 else 'temple'}" for i in range(24)]
    path.write_text("\n".join(["path,label", *lines]))
    return path


def test_a_url_has_the_key_of_its_file_and_no_state(served: tuple[str, Path]) -> None:
    url, root = served
    content = read(f"{url}/0.jpg")
    assert content.key == read(root / "0.jpg").key
    assert content.state is None
    assert read((root / "0.jpg").as_uri()).key == content.key


def test_what_changes_behind_a_url_is_embedded_again(served: tuple[str, Path], store: Any) -> None:
    url, root = served
    urls = [f"{url}/{i}.jpg" for i in range(4)]
    first = extract(urls, TINY, store=store)
    assert extract([root / "0.jpg"], TINY, store=store).statistics.cached == 1
    before = _state_of(urls)
    assert _state_of(urls) == before
    (root / "3.jpg").replace(root / "0.jpg")
    (root / "3.jpg").write_bytes((root / "0.jpg").read_bytes())
    assert _state_of(urls) != before
    second = extract(urls, TINY, store=store)
    assert second.statistics.cached == 4
    assert second.keys[0] == first.keys[3]


def test_a_bad_url_is_one_named_failure(
    served: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _ = served
    monkeypatch.setattr(decode_module, "MAX_FILE_BYTES", 2**20)
    bad = {
        f"{url}/missing.jpg": "404",
        f"{url}/broken.jpg": "500",
        f"{url}/huge.jpg": "over the limit of 1048576 bytes",
        f"{url}/endless.jpg": "over the limit of 1048576 bytes",
        "http://127.0.0.1:1/a.jpg": "onnect",
        "nowhere://a.jpg": "no file system",
        "simplecache::http://127.0.0.1/a.jpg": "chain",
        "file:///no/such/file.jpg": "No such file",
    }
    found = extract([*bad, f"{url}/0.jpg"], TINY, on_error="nan")
    assert found.ok.tolist() == [False] * len(bad) + [True]
    for failure in found.failures:
        assert bad[failure.name] in failure.message
    with pytest.raises(ImageError, match="404"):
        read(f"{url}/missing.jpg")


def test_the_commands_read_manifests_of_urls(manifest: Path, tmp_path: Path) -> None:
    tiny = ["--backbone", "test_resnet", "--weights", "random"]
    model, out = str(tmp_path / "model.featuretl"), tmp_path / "out.csv"
    for command in (
        ["extract", str(manifest), *tiny],
        ["train", str(manifest), "-o", model, "--strategy", "linear", "--test-size", "none", *tiny],
        ["evaluate", model, str(manifest)],
        ["predict", model, str(manifest), "-o", str(out)],
    ):
        done = CliRunner().invoke(cli, command)
        assert done.exit_code == 0, done.output
    with out.open() as file:
        assert len(list(csv.DictReader(file))) == 24
