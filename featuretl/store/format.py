"""The files of the embedding store, version 1; docs/formats.md is the specification."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow

from featuretl._core.files import fsync_folder, replace_file
from featuretl.store.local import unusable

FORMAT_VERSION = 1
KEY_DTYPE = np.dtype("S32")  # compares like the 32 raw bytes; never call tolist() on it

_MAGIC = b"FTLKEYS1"
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)"
    rb"({'descr': '(<f[24])', 'fortran_order': False, 'shape': \((\d+), (\d+)\), } *\n)",
    re.DOTALL,
)
_FOOTER = struct.Struct("<8s32sQQQII")
_CHECKSUM = struct.Struct("<I")
_RESIDUE = 0x2144DF1C  # the CRC-32 of any data that is followed by its own CRC-32, little-endian
_DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO}
_SPACE_NAME = re.compile(r"[0-9a-f]{64}")


class DamagedFileError(Exception):
    """The store's file at `path` differs from what was published; `problem` describes how."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return f"{self.path.name}: {self.problem}"


@dataclass(frozen=True)
class Segment:
    """A row of the index: one committed segment."""

    uuid: str
    space: str
    n: int
    d: int
    size: int
    crc: int

    def path(self, folder: Path, suffix: str = ".npy") -> Path:
        """Return the path of the embeddings, or of the file with another suffix."""
        return folder / f"{self.uuid}{suffix}"


def write_segment(
    folder: Path, uuid: str, space: str, keys: np.ndarray, rows: np.ndarray
) -> Segment:
    """Write a segment's two files durably, or none: keys S32 (n,), rows (n, d) of floats."""
    n, d = rows.shape
    targets = [folder / f"{uuid}.npy", folder / f"{uuid}.keys"]
    partials = [target.with_name(target.name + ".partial") for target in targets]
    try:
        header = npy_header(rows.shape, rows.dtype)
        size, crc = write_durably(partials[0], [header, rows.data.cast("B")])
        footer = _FOOTER.pack(_MAGIC, bytes.fromhex(space), n, d, size, crc, 0)[:-4]
        key_bytes = keys.tobytes() + footer
        write_durably(partials[1], [key_bytes, _CHECKSUM.pack(zlib.crc32(key_bytes))])
        for partial, target in zip(partials, targets, strict=True):
            partial.rename(target)
        fsync_folder(folder)
    except BaseException:
        for path in (*partials, *targets):
            path.unlink(missing_ok=True)
        raise
    return Segment(uuid, space, n, d, size, crc)


def unlink_segment(folder: Path, uuid: str) -> None:
    """Unlink the files of a segment that exist."""
    for suffix in (".npy", ".keys"):
        (folder / f"{uuid}{suffix}").unlink(missing_ok=True)


def read_keys(folder: Path, uuid: str) -> tuple[Segment, np.ndarray]:
    """Read and check a ``.keys`` file; return the segment that it describes and keys S32 (n,)."""
    path = folder / f"{uuid}.keys"
    with reading(path):
        size = path.stat().st_size
        if size < _FOOTER.size:
            raise DamagedFileError(path, f"{size} bytes, too short for a footer")
        data = _mapped(path)
    magic, space, n, d, size, crc, keys_crc = _FOOTER.unpack(data[-_FOOTER.size :])
    if magic != _MAGIC or len(data) != n * KEY_DTYPE.itemsize + _FOOTER.size:
        raise DamagedFileError(path, f"{len(data)} bytes do not match keys and a footer")
    if zlib.crc32(data[:-4]) != keys_crc:
        raise DamagedFileError(path, "its checksum does not match its content")
    return Segment(uuid, space.hex(), n, d, size, crc), np.frombuffer(data, KEY_DTYPE, count=n)


def read_keys_of(folder: Path, segment: Segment) -> np.ndarray:
    """Read and check the keys, S32 (n,), of an indexed segment."""
    described, keys = read_keys(folder, segment.uuid)
    if described != segment:
        raise DamagedFileError(segment.path(folder, ".keys"), "it differs from the index's entry")
    return keys


def open_rows(folder: Path, segment: Segment) -> np.ndarray:
    """Map a segment's embeddings (n, d), read-only, after checking their shape and size."""
    path = segment.path(folder)
    with reading(path):
        size = path.stat().st_size
        if size != segment.size:
            raise DamagedFileError(path, f"it has {size} bytes, {segment.size} were committed")
        data = _mapped(path)
    return parse_matrix(path, data, (segment.n, segment.d))


def _mapped(path: Path) -> memoryview:
    # Unlike `numpy.memmap`, pyarrow keeps no descriptor open; their number is limited.
    with pyarrow.memory_map(os.fsencode(path)) as file:
        return memoryview(file.read_buffer())


def open_view(path: Path, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Open a view, a matrix followed by its checksum, as `numpy.memmap` (n, d), header checked."""
    # NumPy would parse the header with Python's parser: hostile bytes can raise any error.
    with reading(path), path.open("rb") as file:
        start, size = file.read(256), os.fstat(file.fileno()).st_size
        dtype, found, offset = _parse_header(path, start, size, shape, _CHECKSUM.size)
        return np.memmap(file, dtype, "r", offset, found)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise DamagedFileError for a missing or broken file, UnusableStoreError for system errors."""
    try:
        yield
    except (OSError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno in _DAMAGE:
            raise DamagedFileError(path, os.strerror(error.errno)) from error
        raise unusable(f"{str(path)!r} cannot be read", error) from error


def parse_matrix(path: Path, data: bytes | memoryview, shape: tuple[int, int]) -> np.ndarray:
    """Return the matrix (n, d) of floats in `data`, the bytes of the ``.npy`` file at `path`."""
    dtype, shape, offset = _parse_header(path, bytes(data[:256]), len(data), shape, 0)
    return np.frombuffer(data, dtype, offset=offset).reshape(shape)


def _parse_header(
    path: Path, start: bytes, size: int, shape: tuple[int, int] | None, trailing: int
) -> tuple[np.dtype, tuple[int, int], int]:
    """Return dtype, shape and offset of the floats in a ``.npy`` file of `size` bytes."""
    header = _NPY_HEADER.match(start)
    if header is None or len(header[2]) != int.from_bytes(header[1], "little"):
        raise DamagedFileError(path, "it does not begin with the header of a matrix of floats")
    dtype, found = np.dtype(header[3].decode()), (int(header[4]), int(header[5]))
    if found != (shape or found):
        raise DamagedFileError(path, f"{dtype} {found}, expected floats {shape}")
    expected = header.end() + found[0] * found[1] * dtype.itemsize + trailing
    if size != expected:
        raise DamagedFileError(path, f"{size} bytes, {expected} expected")
    return dtype, found, header.end()


def open_checked_rows(folder: Path, segment: Segment) -> np.ndarray:
    """Map a segment's embeddings like `open_rows`, and also compare their checksum."""
    rows = open_rows(folder, segment)
    _check_crc(segment.path(folder), segment.crc)
    return rows


def check_view(path: Path) -> None:
    """Read a whole view and check its header, size and checksum."""
    open_view(path)
    _check_crc(path, _RESIDUE)


def _check_crc(path: Path, expected: int) -> None:
    crc, buffer = 0, memoryview(bytearray(2**18))  # fits into a core's cache
    with reading(path), path.open("rb", buffering=0) as file:
        while n := file.readinto(buffer):
            crc = zlib.crc32(buffer[:n], crc)
    if crc != expected:
        raise DamagedFileError(path, "its checksum does not match its content")


def publish_folder(folder: Path, name: str, data: bytes) -> None:
    """Create `folder` atomically and durably with one file in it, unless it exists."""
    partial = folder.with_name(f"{folder.name}.{os.urandom(4).hex()}.partial")
    partial.mkdir(mode=0o700)
    try:
        write_durably(partial / name, [data])
        fsync_folder(partial)
        partial.rename(folder)  # fails if the folder is not empty, so it never replaces files
    except OSError:
        if not (folder / name).exists():  # otherwise another process was first
            raise
    finally:
        (partial / name).unlink(missing_ok=True)
        if partial.exists():
            partial.rmdir()
    fsync_folder(folder.parent)


def write_view(path: Path, shape: tuple[int, int], chunks: Iterable[np.ndarray]) -> None:
    """Write a float32 ``.npy`` file and its CRC-32 chunk by chunk, atomically and durably."""

    def write(partial: Path) -> None:
        header = npy_header(shape, np.dtype("<f4"))
        with partial.open("xb") as file:
            file.write(header)
            crc = zlib.crc32(header)
            for chunk in chunks:
                data = np.ascontiguousarray(chunk, "<f4").data
                file.write(data)
                crc = zlib.crc32(data, crc)
            file.write(_CHECKSUM.pack(crc))

    replace_file(path, write)


def npy_header(shape: tuple[int, int], dtype: np.dtype) -> bytes:
    """Return the header of a C-ordered ``.npy`` file."""
    header, descr = io.BytesIO(), np.lib.format.dtype_to_descr(dtype)
    facts = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, facts)
    return header.getvalue()


def write_durably(path: Path, chunks: Iterable[bytes | memoryview]) -> tuple[int, int]:
    """Write the chunks to a new file and fsync it; return its length and CRC-32."""
    size = crc = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb", buffering=0) as file:
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                written = file.write(view)
                view = view[written:]
            size += len(chunk)
            crc = zlib.crc32(chunk, crc)
        os.fsync(file.fileno())
    return size, crc


def entries(folder: Path, *suffixes: str) -> list[tuple[os.stat_result, Path]]:
    """Return (state, path) of a folder's entries with `suffixes`, sorted; skip removed entries."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as listed:
        for entry in listed:
            if entry.name.endswith(suffixes):
                with contextlib.suppress(FileNotFoundError):
                    found.append((entry.stat(), Path(entry.path)))
    return sorted(found, key=lambda pair: pair[1])


def space_folders(store: Path) -> list[Path]:
    """Return the folders of all published spaces, sorted by name."""
    return [path for _, path in entries(store / "spaces", "") if _SPACE_NAME.fullmatch(path.name)]
