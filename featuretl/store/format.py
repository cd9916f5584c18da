r"""The embedding store's format, version 1.

The version is the store's own; it does not follow the package's. A store is a folder::

    STORE/
      index.sqlite            one row per committed segment; can be rebuilt from the rest
      LOCK                    flock: shared by writers, exclusive for deleting and compacting
      spaces/<id>/            one folder per space, named by `featuretl.store.keys.space_id`
        space.json            the recipe, its generation, golden embedding, versions, and a checksum
        <uuid>.npy            a segment: n embeddings of one space
        <uuid>.keys           the sha256 of the n images, and a footer
      views/<hash>.npy        ordered matrices, and a CRC-32 at the end; may be deleted at any time
      models/<hash>.onnx      networks as ONNX Runtime takes them; likewise
      memo.sqlite             digests of files and small JSON facts; likewise
      claims/                 byte-range locks of running extractions; likewise

**Segment.** ``<uuid>.npy`` is a NumPy file, format 1.0, C order, little-endian, shape (n, d), with
n >= 1. Row i belongs to the image whose sha256 is bytes [32 i, 32 i + 32) of ``<uuid>.keys``. After
the n keys follows a footer of 72 bytes, little-endian::

    magic      8 bytes   "FTLKEYS1"
    space     32 bytes   the space's id
    n          8 bytes   unsigned
    d          8 bytes   unsigned
    size       8 bytes   unsigned, length of <uuid>.npy in bytes
    npy_crc    4 bytes   CRC-32 of the whole <uuid>.npy
    keys_crc   4 bytes   CRC-32 of everything in <uuid>.keys before this field

**Writing.** Both files are written under a name ending in ``.partial`` with O_EXCL and mode 0600,
through ``write()`` and never through a memory map (a full disk under a map is SIGBUS), then fsynced,
renamed, and the folder fsynced. Only then the row is inserted into ``index.sqlite``; a segment is
committed when that transaction is. A published file is never changed, only unlinked, so a reader's
memory map stays valid. If fsync fails the descriptor is given up: a retry would lie.

**Compacting.** Under the exclusive lock, small segments (less than half of 16,384 rows and 128 MiB)
are merged, in order, into ones of at most that size; the first row of each key is kept. The merged
segment is written and published as any other; then one transaction inserts its row and deletes those
of the segments it replaces; then their files are unlinked. A kill leaves files that no row names: the next
compaction removes them once they are an hour old, and `rebuild` only repeats their rows. A reader that misses the file of a segment asks
the index: if that lists the segment no more, its rows were freed, or are in a later segment.

**Reading.** A segment counts only if it has a row in the index, both files have the recorded size,
the header is that of a plain float array of the recorded shape, and both checksums hold (each
checked once per process, before any row is served; those of views by `featuretl cache verify`
only: they may be larger than memory). Where a key is in several segments the lowest
sequence number wins. Object dtypes are refused before anything is read (no pickle). An error of the
system that is no fault of the file (no permission, too many open files, no memory) is not damage.
Maps of segments keep no file descriptor open.

**Capabilities.** Concurrent appends by several processes, zero-copy reads, recovery of the index from
the sidecars. **Limits.** 2**31 rows a segment, 2**31 segments a space.
"""

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
from featuretl.store.unusable import unusable

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
_WITH_ITS_OWN = 0x2144DF1C  # the CRC-32 of whatever has its own CRC-32, little-endian, at its end

_DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO}


class DamagedFileError(Exception):
    """A file of the store, `path`, is not what was published: `problem` says why."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return f"{self.path.name}: {self.problem}"


@dataclass(frozen=True)
class Segment:
    """A committed segment, as the index lists it."""

    uuid: str
    space: str
    n: int
    d: int
    size: int
    crc: int

    def path(self, folder: Path) -> Path:
        """Return the path of the embeddings."""
        return folder / f"{self.uuid}.npy"

    def keys_path(self, folder: Path) -> Path:
        """Return the path of the keys."""
        return folder / f"{self.uuid}.keys"


def write_segment(
    folder: Path, uuid: str, space: str, keys: np.ndarray, rows: np.ndarray
) -> Segment:
    """Write and publish a segment's two files durably, without committing it.

    `keys` is (n,), S32; `rows` (n, d), float32 or float16. On an error, nothing of it is left.
    """
    n, d = rows.shape
    segment = Segment(uuid, space, n, d, 0, 0)
    targets = [segment.path(folder), segment.keys_path(folder)]
    partials = [target.with_name(target.name + ".partial") for target in targets]
    try:
        size, crc = write_durably(
            partials[0], [npy_header(rows.shape, rows.dtype), rows.data.cast("B")]
        )
        footer = _FOOTER.pack(_MAGIC, bytes.fromhex(space), n, d, size, crc, 0)[:-4]
        key_bytes = keys.tobytes() + footer
        write_durably(partials[1], [key_bytes, struct.pack("<I", zlib.crc32(key_bytes))])
        for partial, target in zip(partials, targets, strict=True):
            partial.rename(target)
        fsync_folder(folder)
    except BaseException:
        for path in (*partials, *targets):
            path.unlink(missing_ok=True)
        raise
    return Segment(uuid, space, n, d, size, crc)


def unlink_segment(folder: Path, uuid: str) -> None:
    """Unlink both files of a segment, as far as they are there."""
    for suffix in (".npy", ".keys"):
        (folder / f"{uuid}{suffix}").unlink(missing_ok=True)


def read_keys(folder: Path, uuid: str) -> tuple[Segment, np.ndarray]:
    """Read and check a ``.keys`` file: the segment that it describes, and its keys (n,), S32."""
    path = folder / f"{uuid}.keys"
    with reading(path):
        data = path.read_bytes()
    if len(data) < _FOOTER.size:
        raise DamagedFileError(path, f"{len(data)} bytes, too short for a footer")
    magic, space, n, d, size, crc, keys_crc = _FOOTER.unpack(data[-_FOOTER.size :])
    if magic != _MAGIC or len(data) != n * KEY_DTYPE.itemsize + _FOOTER.size:
        raise DamagedFileError(path, f"{len(data)} bytes, not keys and a footer of this format")
    if zlib.crc32(data[:-4]) != keys_crc:
        raise DamagedFileError(path, "its checksum does not match its content")
    return Segment(uuid, space.hex(), n, d, size, crc), np.frombuffer(data, KEY_DTYPE, count=n)


def read_keys_of(folder: Path, segment: Segment) -> np.ndarray:
    """Read and check the keys (n,), S32, of an indexed segment."""
    described, keys = read_keys(folder, segment.uuid)
    if described != segment:
        raise DamagedFileError(segment.keys_path(folder), "not of the indexed segment")
    return keys


def open_rows(folder: Path, segment: Segment) -> np.ndarray:
    """Return a segment's embeddings as a read-only memory map (n, d), its shape and size checked."""
    path = segment.path(folder)
    with reading(path):
        size = path.stat().st_size
        if size != segment.size:
            raise DamagedFileError(path, f"{size} bytes, {segment.size} were committed")
        # Unlike `numpy.memmap` it keeps no descriptor open, of which a process may have only a few.
        with pyarrow.memory_map(os.fsencode(path)) as file:
            data = memoryview(file.read_buffer())
    return parse_matrix(path, data, (segment.n, segment.d))


def open_view(path: Path, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Return a view, a matrix with its checksum, as a `numpy.memmap` (n, d), its header checked.

    NumPy is not asked to read the header: it takes Python's parser, which raises nearly anything on
    hostile bytes, and in CPython 3.11 a SystemError when several threads parse at once.
    """
    with reading(path), path.open("rb") as file:
        start, size = file.read(256), os.fstat(file.fileno()).st_size
        dtype, found, offset = _read_header(path, start, size, shape, _CHECKSUM.size)
        return np.memmap(file, dtype, "r", offset, found)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Distinguish errors of the system while the file at `path` is read.

    Raises DamagedFileError if it is missing, something else is in its place, or its medium fails,
    and UnusableStoreError if the system refuses: no permission, too many open files, no memory, ..
    """
    try:
        yield
    except (OSError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno in _DAMAGE:
            raise DamagedFileError(path, os.strerror(error.errno)) from error
        raise unusable(f"{str(path)!r} cannot be read", error) from error


def parse_matrix(path: Path, data: bytes | memoryview, shape: tuple[int, int]) -> np.ndarray:
    """Return the floats (n, d) of the ``.npy`` file at `path`, whose bytes are `data`."""
    dtype, shape, offset = _read_header(path, bytes(data[:256]), len(data), shape, 0)
    return np.frombuffer(data, dtype, offset=offset).reshape(shape)


def _read_header(
    path: Path, start: bytes, size: int, shape: tuple[int, int] | None, trailing: int
) -> tuple[np.dtype, tuple[int, int], int]:
    """Return dtype, shape and offset of the floats in a ``.npy`` file of `size` bytes."""
    header = _NPY_HEADER.match(start)
    if header is None or len(header[2]) != int.from_bytes(header[1], "little"):
        raise DamagedFileError(path, "not the header of a matrix of floats")
    dtype, found = np.dtype(header[3].decode()), (int(header[4]), int(header[5]))
    if found != (shape or found):
        raise DamagedFileError(path, f"{dtype} {found}, expected floats {shape}")
    expected = header.end() + found[0] * found[1] * dtype.itemsize + trailing
    if size != expected:
        raise DamagedFileError(path, f"{size} bytes, {expected} expected")
    return dtype, found, header.end()


def check_rows(folder: Path, segment: Segment) -> None:
    """Read a segment's embeddings whole and compare their checksum."""
    _check(segment.path(folder), segment.crc)


def open_checked_rows(folder: Path, segment: Segment) -> np.ndarray:
    """Return a segment's embeddings as `open_rows` does, once `check_rows` has read them."""
    rows = open_rows(folder, segment)
    check_rows(folder, segment)
    return rows


def check_view(path: Path) -> None:
    """Read a view whole and compare its header, size and checksum."""
    open_view(path)
    _check(path, _WITH_ITS_OWN)


def _check(path: Path, expected: int) -> None:
    crc, buffer = 0, memoryview(bytearray(2**18))  # small enough for a core's cache
    with reading(path), path.open("rb", buffering=0) as file:
        while n := file.readinto(buffer):
            crc = zlib.crc32(buffer[:n], crc)
    if crc != expected:
        raise DamagedFileError(path, "its checksum does not match its content")


def publish_folder(folder: Path, name: str, data: bytes) -> bool:
    """Create `folder` atomically and durably with one file in it; return False if it exists."""
    partial = folder.with_name(f"{folder.name}.{os.urandom(4).hex()}.partial")
    partial.mkdir(mode=0o700)
    try:
        write_durably(partial / name, [data])
        fsync_folder(partial)
        partial.rename(folder)  # fails on a folder that holds something: this never replaces
    except OSError:
        if not (folder / name).exists():
            raise
        return False
    finally:
        (partial / name).unlink(missing_ok=True)
        if partial.exists():
            partial.rmdir()
    fsync_folder(folder.parent)
    return True


def write_matrix(
    path: Path, shape: tuple[int, int], chunks: Iterable[np.ndarray], checksum: bool = False
) -> None:
    """Write a float32 ``.npy`` file chunk by chunk, atomically and durably.

    With a `checksum`, the CRC-32 of everything before it comes last, as `open_view` expects.
    """

    def write(partial: Path) -> None:
        header = npy_header(shape, np.dtype("<f4"))
        with partial.open("xb") as file:
            file.write(header)
            crc = zlib.crc32(header)
            for chunk in chunks:
                data = np.ascontiguousarray(chunk, "<f4").data
                file.write(data)
                crc = zlib.crc32(data, crc) if checksum else 0
            if checksum:
                file.write(_CHECKSUM.pack(crc))

    replace_file(path, write)


def npy_header(shape: tuple[int, int], dtype: np.dtype) -> bytes:
    """Return the header of a C-ordered ``.npy`` file."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header,
        {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape},
    )
    return header.getvalue()


def write_durably(path: Path, chunks: Iterable[bytes | memoryview]) -> tuple[int, int]:
    """Create `path` with the chunks and fsync it; return its length and CRC-32."""
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
