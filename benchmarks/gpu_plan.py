"""What gpu.py measures, in the order of importance, and the seconds that each measurement needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_ARRAYS = 1024  # which are decoded in advance


@dataclass(frozen=True)
class Size:
    """The sizes of a run."""

    main: str  # the network of all comparisons
    packaged: str  # a small network
    others: tuple[str, ...]  # networks, "name" or "name@pixels"
    files: int
    big_files: int
    megapixels: tuple[int, int]
    tars: int
    usual: int  # images for the usual loop, which is slow
    loaded: int  # images for timm's loader
    compared: int  # images whose embeddings are compared with the CPU's
    batches: tuple[int, ...]
    compiled_batch: int
    seconds: float  # of each round of a ceiling
    workers: tuple[int, ...]  # of timm's loader
    rows: int  # for heads
    tuned: int  # images for fine-tuning
    processes: int  # of featuretl on shards
    rounds: int
    more_compiled: int  # of the other networks
    scale: float = 1.0  # factor on the expected seconds


def full() -> Size:
    """Return the sizes for a GPU."""
    return Size(
        main="resnet50",
        packaged="tf_efficientnet_lite0",
        others=(
            "vit_base_patch16_224",
            "vit_base_patch16_dinov3@224",
            "convnext_base",
            "vit_base_patch16_dinov3@518",
            "vit_small_patch16_224",
        ),
        files=16384,
        big_files=64,
        megapixels=(4000, 3000),
        tars=16,
        usual=512,
        loaded=8192,
        compared=16,
        batches=(32, 64, 128, 256, 512, 1024),
        compiled_batch=256,
        seconds=0.3,
        workers=(16, 8, 4, 1),
        rows=1_000_000,
        tuned=1024,
        processes=8,
        rounds=3,
        more_compiled=2,
    )


def rehearsal() -> Size:
    """Return sizes for a CPU, on which the whole plan takes about a minute."""
    return Size(
        main="test_resnet",
        packaged="tf_efficientnet_lite0",
        others=("test_vit", "test_vit@192"),
        files=48,
        big_files=2,
        megapixels=(1000, 750),
        tars=4,
        usual=16,
        loaded=16,
        compared=4,
        batches=(2, 4),
        compiled_batch=4,
        seconds=0.01,
        workers=(2, 1),
        rows=500,
        tuned=24,
        processes=2,
        rounds=2,
        more_compiled=0,
        scale=0.2,
    )


@dataclass(frozen=True)
class Measurement:
    """A request to gpu_measure.py; `facts` are what the tables show beside its figures."""

    id: str
    kind: str
    facts: dict[str, Any]
    settings: dict[str, Any]
    seconds: float
    round: int = 0

    @property
    def is_peer(self) -> bool:
        """Whether the process must not import featuretl."""
        return self.kind in ("usual loop", "timm loader")

    @property
    def request(self) -> dict[str, Any]:
        """The request (JSON)."""
        return {"kind": self.kind, **self.settings}


def plan(size: Size, paths: dict[str, list[str]], device: str) -> list[Measurement]:
    """Return all measurements in order."""
    return list(_Plan(size, paths, device).all())


class _Plan:
    def __init__(self, size: Size, paths: dict[str, list[str]], device: str) -> None:
        self.size, self.paths, self.device = size, paths, device

    def all(self) -> Iterator[Measurement]:
        size, main = self.size, self.size.main
        yield self._of("machine", 20, {}, {"device": self.device})
        yield from self._compared(0)
        for precision in ("float32", "bfloat16", "tf32"):
            yield self._ceiling(main, precision, 15)
        yield from self._decoding()
        for precision in ("float32", "bfloat16", "tf32"):
            yield self._agreement(main, precision)
        for source in ("shards", "arrays", "big"):
            workers = size.processes if source == "shards" else 1
            yield self._featuretl(main, "bfloat16", source, 40, workers=workers)
        yield from self._training()
        yield self._peer("usual loop", "big", 0, 20)
        for round_ in range(1, size.rounds):
            yield from self._compared(round_)
        for name in (size.packaged, *size.others):
            for precision in ("float32", "bfloat16"):
                yield self._ceiling(name, precision, 20)
            yield self._agreement(name, "float32")
            yield self._agreement(name, "bfloat16")
            yield self._featuretl(name, "bfloat16", "files", 20)
        for precision in ("bfloat16", "float32"):
            yield self._ceiling(main, precision, 60, compiled=True)
        yield self._featuretl(main, "bfloat16", "shards", 60)
        for workers in size.workers[1:]:
            yield self._peer("timm loader", "files", 0, 30, workers)
        yield self._featuretl(main, "bfloat16", "files", 60, runtime="compile")
        for name in (*size.others, size.packaged):
            yield self._ceiling(name, "tf32", 20)
            yield self._featuretl(name, "float32", "files", 20)
        for name in size.others[: size.more_compiled]:
            yield self._ceiling(name, "bfloat16", 90, compiled=True)

    def _compared(self, round_: int) -> Iterator[Measurement]:
        """Yield the contenders from files, which alternate in rounds."""
        yield self._featuretl(self.size.main, "float32", "files", 20, round_)
        yield self._peer("usual loop", "files", round_, 20)
        yield self._featuretl(self.size.main, "bfloat16", "files", 20, round_)
        yield self._peer("timm loader", "files", round_, 20, self.size.workers[0])

    def _ceiling(
        self, network: str, precision: str, seconds: float, compiled: bool = False
    ) -> Measurement:
        facts: dict[str, Any] = {"network": network, "precision": precision, "compiled": compiled}
        batches = [self.size.compiled_batch] if compiled else list(self.size.batches)
        settings: dict[str, Any] = {
            "batches": batches,
            "seconds": self.size.seconds,
            "device": self.device,
        }
        return self._of("ceiling", seconds, facts, {**facts, **settings})

    def _agreement(self, network: str, precision: str) -> Measurement:
        facts: dict[str, Any] = {"network": network, "precision": precision}
        paths = self.paths["files"][: self.size.compared]
        return self._of("agreement", 15, facts, {**facts, "paths": paths, "device": self.device})

    def _decoding(self) -> Iterator[Measurement]:
        for source in ("files", "big"):
            yield self._of("decoding", 8, {"source": source}, {"paths": self.paths[source]})

    def _training(self) -> Iterator[Measurement]:
        facts: dict[str, Any] = {"rows": self.size.rows}
        settings: dict[str, Any] = {"n": self.size.rows, "d": 1280, "device": self.device}
        yield self._of("heads", 30, facts, settings)
        paths = self.paths["files"][: self.size.tuned]
        for precision, cached in (("bfloat16", True), ("float32", True), ("bfloat16", False)):
            facts = {"network": self.size.main, "precision": precision, "cached": cached}
            settings = {**facts, "paths": paths, "device": self.device}
            yield self._of("fine-tuning", 25, facts, settings)

    def _featuretl(
        self,
        network: str,
        precision: str,
        source: str,
        seconds: float,
        round_: int = 0,
        workers: int = 1,
        runtime: str = "torch",
    ) -> Measurement:
        facts: dict[str, Any] = {"network": network, "precision": precision, "source": source}
        if source == "shards":
            facts |= {"workers": workers}
            settings = {k: facts[k] for k in ("network", "precision", "workers")}
            settings |= {"tars": self.paths["tars"], "device": self.device}
            return self._of("shards", seconds, facts, settings, round_)
        facts |= {"runtime": runtime}
        paths = self.paths["big" if source == "big" else "files"]
        paths = paths[:_ARRAYS] if source == "arrays" else paths
        settings = {**facts, "paths": paths, "device": self.device}
        return self._of("extraction", seconds, facts, settings, round_)

    def _peer(
        self, kind: str, source: str, round_: int, seconds: float, workers: int | None = None
    ) -> Measurement:
        facts: dict[str, Any] = {"network": self.size.main, "source": source}
        n = self.size.usual if kind == "usual loop" else self.size.loaded
        settings: dict[str, Any] = {
            "paths": self.paths[source][:n],
            "name": self.size.main,
            "file": None,
        }
        settings |= {"preprocess": {}, "device": self.device}
        if workers:
            facts |= {"workers": workers}
            settings |= {"workers": workers}
        return self._of(kind, seconds, facts, settings, round_)

    def _of(
        self, kind: str, seconds: float, facts: Any, settings: dict[str, Any], round_: int = 0
    ) -> Measurement:
        words = [f"{key}={value}" for key, value in facts.items()]
        seconds *= self.size.scale
        return Measurement(
            " ".join([kind, *words]), kind, {"kind": kind, **facts}, settings, seconds, round_
        )
