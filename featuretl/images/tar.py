"""Tar files in WebDataset layout, by the rules in docs/formats.md, as streams, never unpacked."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

from featuretl._core.files import cannot_be_read, open_file
from featuretl._core.text import as_utf8, parse_json, printable
from featuretl._learning.labels import is_gap, label_text
from featuretl.exceptions import ImageError, InputError
from featuretl.images.decode import MAX_FILE_BYTES, RARE_SUFFIXES, SUFFIXES
from featuretl.images.listing import is_hidden
from featuretl.images.shards import DamagedShardError, File, Sample, Shard, SkipReason
from featuretl.images.tables import LABEL_COLUMNS, memory_limit

_MAX_LABEL_BYTES = _MAX_HEADER_BYTES = 2**20
_COMPRESSED: tuple[tuple[bytes, Any], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ", lzma.open),
)


class _Part(NamedTuple):
    """A member "a/b.c.d" of an archive: stem "a/b", suffix "c.d", before "c", last "d"."""

    name: str
    stem: str
    suffix: str
    before: str
    last: str
    data: bytes | dict[str, Any] | ImageError = b""

    @property
    def is_image(self) -> bool:
        return f".{self.last}" in SUFFIXES

    @property
    def is_label(self) -> bool:
        return self.last in ("cls", "json")


@dataclass(frozen=True)
class TarShard(Shard):
    """A tar file in WebDataset layout, compressed or not."""

    file: File
    label_column: str | None = None
    images = None
    _kind = "tar"

    def _name(self) -> str:
        return self.file.path

    def _identity(self) -> Any:
        return [self.file, self.label_column]

    def samples(self) -> Iterator[Sample]:
        """Read the file as a stream, one sample at a time."""
        is_labelled = self.label_column is None
        parts: list[_Part] = []
        try:
            for part in self._parts():
                if isinstance(part, Sample):
                    yield part
                    continue
                suffixes = [one.suffix for one in parts]
                if parts and (part.stem != parts[0].stem or part.suffix in suffixes):
                    yield from self._samples(parts)
                    parts = []
                parts.append(part)
                is_labelled |= isinstance(part.data, dict) and self.label_column in part.data
        except DamagedShardError:
            if any(part.is_image and not part.before for part in parts):  # not a mask
                yield from self._samples(parts)
            raise
        yield from self._samples(parts)
        if not is_labelled:
            raise self._no_label("any sample")

    def _parts(self) -> Iterator[_Part | Sample]:
        """Yield the members that may belong to samples, and the samples to skip."""
        try:
            with open_file(self.file.path) as file:
                for tar, member in _members(file):
                    folder, slash, last = member.name.rpartition("/")
                    first, _, suffix = last.partition(".")
                    before, _, last = suffix.lower().rpartition(".")
                    stem = folder + slash + first
                    part = _Part(member.name, stem, suffix.lower(), before, last)
                    reason = _skip_reason(member)
                    if reason is None:
                        yield part._replace(data=_content(tar, member, part))
                    elif reason and (part.is_image or part.is_label):
                        yield self._sample(part, SkipReason(reason))
        except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
            raise DamagedShardError(str(cannot_be_read(self.name, error))) from error
        except OSError as error:
            raise cannot_be_read(self.name, error) from error

    def _samples(self, parts: list[_Part]) -> Iterator[Sample]:
        images = [part for part in parts if part.is_image]
        plain = [part for part in images if not part.before]
        plain = sorted(plain, key=lambda part: f".{part.last}" in RARE_SUFFIXES)[:1]
        for part in images:
            if part not in plain and plain:
                yield self._sample(part, SkipReason(f"beside {plain[0].name}"))
                continue
            about = [one for one in parts if one.is_label]
            if len(plain or images) > 1:
                about = [one for one in about if one.before in (part.before, "")]
            damaged = next((one.data for one in about if isinstance(one.data, ImageError)), None)
            if damaged is not None:
                yield self._sample(part, damaged)
            else:
                about.sort(key=lambda o: (o.before != part.before, o.before != "", o.last))
                yield self._sample(part, part.data)._replace(label=self._label(part, about))
        if parts and not images:
            yield self._sample(parts[0], SkipReason("no image beside it"))

    def _sample(self, part: _Part, image: Any) -> Sample:
        return Sample(as_utf8(f"{self.file.path}/{part.name}"), image)

    def _label(self, image: _Part, about: list[_Part]) -> str | None:
        """Return the label of an image from the first of its label parts that holds one."""
        for part in about:
            if isinstance(part.data, bytes):  # .cls
                if self.label_column is None:
                    return part.data.decode(errors="backslashreplace").strip() or None
            elif isinstance(part.data, dict):
                wanted = LABEL_COLUMNS if self.label_column is None else (self.label_column,)
                found = {name: part.data[name] for name in wanted if name in part.data}
                for name, value in found.items():
                    if isinstance(value, (list, dict)):
                        raise InputError(
                            f"Column {printable(name)!r} of {self.name} must hold one value in "
                            f"every .json; got {type(value).__name__} in {printable(part.name)!r}."
                        )
                if found:
                    return label_text(next((v for v in found.values() if not is_gap(v)), None))
        if self.label_column is not None and any(part.last == "cls" for part in about):
            raise self._no_label(printable(image.name))
        return None

    def _no_label(self, where: str) -> InputError:
        return InputError(
            f"{self.name} has no {printable(self.label_column)!r} in the .json of {where}; pass a "
            "label_column that is present, or none to use .cls."
        )


def _skip_reason(member: tarfile.TarInfo) -> str | None:
    """Return why a member is skipped, "" for a folder, or None if it belongs to a sample."""
    if member.isdir():
        return ""
    if is_hidden(member.name):
        return "a hidden file"
    return None if member.isreg() else "a link" if member.islnk() or member.issym() else "a device"


class _Member(tarfile.TarInfo):
    """A header of an archive; tarfile treats a damaged one as the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        """Return the member. Raises ReadError unless it is a whole header or the end."""
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a member's header is damaged or cut off ({error})") from error
        if not member.isreg() and member.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {member.size} bytes")
        return member


def _members(file: IO[bytes]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield the members. Raises ReadError if data follow the end, or they expand too much."""
    try:
        limit = memory_limit(file)
    except (OSError, ValueError):  # a server may send files without their size
        limit = sys.maxsize
    buffered = io.BufferedReader(file)  # type: ignore[type-var]
    start = buffered.peek(8)
    opener = next((one for magic, one in _COMPRESSED if start.startswith(magic)), None)
    # tarfile itself would not check the checksum of gzip.
    stream = opener(buffered) if opener else buffered
    tar: Any
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:
        for member in tar:
            if opener and tar.offset > limit:
                raise tarfile.ReadError(f"it expands to over {limit:,} bytes")
            yield tar, member
        while rest := tar.fileobj.read(2**16):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("data follow the end of the archive")


def _content(
    tar: tarfile.TarFile, member: tarfile.TarInfo, part: _Part
) -> bytes | dict[str, Any] | ImageError:
    """Return the content of an image, .cls or .json, or why it cannot be used; else nothing."""
    if not part.is_image and not part.is_label:
        return b""
    limit = MAX_FILE_BYTES if part.is_image else _MAX_LABEL_BYTES
    source = "" if part.is_image else f"its .{part.last}: "
    if member.size > limit:
        return ImageError(f"{source}{member.size} bytes, over the limit of {limit}")
    file = tar.extractfile(member)
    data = b"" if file is None else file.read()
    if part.last != "json":
        return data
    try:
        facts = parse_json(data)
    except ValueError as error:
        return ImageError(f"{source}{error}")
    return facts if isinstance(facts, dict) else {}
