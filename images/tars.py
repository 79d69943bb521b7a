"""Tar archives as image layers are: ustar with PAX and GNU extensions, sparse files included, read in one pass.

The standard library's reader takes extended headers of any length into memory, reads some of them with patterns that
take quadratic time, and lets errors of many kinds through. Layers come from strangers, so this one bounds all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from images.errors import BlobCorrupt, ImageUnusable
from images.streams import CHUNK_BYTES, Readable

_BLOCK = 512
_EXTENSION_BYTES = 1 << 20
_MAX_PIECES = 100_000
_LAST_TIME_S = 2**32 - 1
"""Later ones are cut to this: squashfs can state no other."""


class Kind(Enum):
    """What an entry makes. OTHER: devices, fifos and what only some archivers know."""

    FILE = auto()
    HARD_LINK = auto()
    SYMLINK = auto()
    DIRECTORY = auto()
    OTHER = auto()


_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"S": Kind.FILE,
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMLINK,
    b"5": Kind.DIRECTORY,
}
_HEADER_ONLY = b"123456"
"""Types that have no content, whatever size they state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing in a layer, as the archive states it: names are not checked. mtime_s: since 1970, whole seconds.

    size_bytes: of the file; stored_bytes: of it in the archive. pieces: offset and length of what is stored of a
    sparse file, the rest is zeros; None for a plain file.
    """

    name: bytes
    kind: Kind
    mode: int
    mtime_s: int
    size_bytes: int
    stored_bytes: int
    link: bytes = b""
    pieces: tuple[tuple[int, int], ...] | None = None


class Archive:
    """The entries of an archive in order; the content of each must be read before the next one is asked for."""

    def __init__(self, stream: Readable, entry_limit: int) -> None:
        self._stream = stream
        self._entries_left = entry_limit
        self._global: dict[bytes, bytes] = {}
        self._stored_left = self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        while (block := self._header()) is not None:
            yield self._entry(block)

    def content(self, entry: Entry) -> Iterator[tuple[int, bytes]]:
        """Offset and bytes of what is stored of a file, in order."""
        for offset, size in entry.pieces if entry.pieces is not None else ((0, entry.stored_bytes),):
            end = offset + size
            while offset < end:
                chunk = self._take(min(end - offset, CHUNK_BYTES))
                self._stored_left -= len(chunk)
                yield offset, chunk
                offset += len(chunk)

    # -- headers ------------------------------------------------------------------------------------------------------

    def _header(self) -> bytes | None:
        """The next header that is none of zeros; None at the end."""
        self._skip(self._stored_left + self._padding)
        self._stored_left = self._padding = 0
        block = self._stream.read(_BLOCK)
        if not block.strip(b"\0"):
            return None
        if len(block) < _BLOCK:
            raise BlobCorrupt("a layer ends in the middle of its archive")
        self._entries_left -= 1
        if self._entries_left < 0:
            raise ImageUnusable.in_layer("a layer holds more entries than are allowed", "make it smaller")
        if _number(block[148:156]) not in _checksums(block):
            raise BlobCorrupt("a layer is no sound tar archive: the checksum of a header is wrong")
        return block

    def _entry(self, block: bytes) -> Entry:
        """The entry of a header, with what headers before it say of it."""
        pax: dict[bytes, bytes] = {}
        long: dict[bytes, bytes] = {}
        while (kind := block[156:157]) in (b"x", b"g", b"L", b"K"):
            text = self._extension(_number(block[124:136]))
            if kind == b"x":
                pax |= _records(text)
            elif kind == b"g":
                self._global |= _records(text)
            else:
                long[kind] = text.partition(b"\0")[0]
            following = self._header()
            if following is None:
                raise BlobCorrupt("a layer ends after an extended header")
            block = following
        return self._with_extensions(block, self._global | pax, long)

    def _with_extensions(self, block: bytes, pax: Mapping[bytes, bytes], long: Mapping[bytes, bytes]) -> Entry:
        letter = block[156:157]
        name = pax.get(b"GNU.sparse.name") or pax.get(b"path") or long.get(b"L") or _name(block)
        kind = _KINDS.get(letter, Kind.OTHER)
        if kind is Kind.FILE and name.endswith(b"/"):  # archives older than the type of directories
            kind = Kind.DIRECTORY
        stored_bytes = 0 if letter in _HEADER_ONLY else _decimal(pax, b"size", _number(block[124:136]))
        self._stored_left, self._padding = stored_bytes, -stored_bytes % _BLOCK
        size_bytes, pieces = stored_bytes, None
        if kind is Kind.FILE:
            size_bytes, pieces = self._sparse(block, pax, stored_bytes)
        return Entry(
            name=name,
            kind=kind,
            mode=_number(block[100:108]) & 0o7777,
            mtime_s=min(_decimal(pax, b"mtime", _number(block[136:148])), _LAST_TIME_S),
            size_bytes=size_bytes,
            stored_bytes=self._stored_left,
            link=pax.get(b"linkpath") or long.get(b"K") or _text(block[157:257]),
            pieces=pieces,
        )

    # -- sparse files: four ways to say where the bytes go ------------------------------------------------------------

    def _sparse(
        self, block: bytes, pax: Mapping[bytes, bytes], stored_bytes: int
    ) -> tuple[int, tuple[tuple[int, int], ...] | None]:
        """Size of the file and its pieces, which the map before its content, or the headers, list."""
        if block[156:157] == b"S":
            size_bytes, numbers = _number(block[483:495]), self._gnu_map(block)
        elif pax.get(b"GNU.sparse.major") == b"1":
            size_bytes, numbers = _decimal(pax, b"GNU.sparse.realsize", 0), self._map_before_content()
        elif b"GNU.sparse.map" in pax:
            size_bytes = _decimal(pax, b"GNU.sparse.size", 0)
            numbers = [_whole(text) for text in pax[b"GNU.sparse.map"].split(b",")]
        else:
            return stored_bytes, None
        pieces = tuple(zip(numbers[::2], numbers[1::2], strict=False))
        ends = [0, *(offset + size for offset, size in pieces)]
        in_order = all(end <= offset for end, (offset, _) in zip(ends, pieces, strict=False))
        if len(numbers) % 2 or not in_order or ends[-1] > size_bytes:
            raise BlobCorrupt("a layer holds a sparse file whose map makes no sense")
        if sum(size for _, size in pieces) != self._stored_left:
            raise BlobCorrupt("a layer holds a sparse file whose map is not that of its content")
        return size_bytes, pieces

    def _gnu_map(self, block: bytes) -> list[int]:
        fields, more = block[386:482], block[482]
        numbers: list[int] = []
        while True:
            pairs = [fields[at : at + 24] for at in range(0, len(fields), 24)]
            numbers += [_number(pair[at : at + 12]) for pair in pairs if pair[0] for at in (0, 12)]
            if not more:
                return numbers
            if len(numbers) > 2 * _MAX_PIECES:
                raise ImageUnusable.in_layer(f"a layer holds a sparse file of more than {_MAX_PIECES} pieces")
            block = self._take(_BLOCK)
            fields, more = block[:504], block[504]

    def _map_before_content(self) -> list[int]:
        """A count and so many pairs, one number a line, filled up to a whole block."""
        lines: list[bytes] = []
        rest, wanted = b"", 1
        while len(lines) < wanted:
            if self._stored_left < _BLOCK or len(rest) > _BLOCK:
                raise BlobCorrupt("a layer holds a sparse file without a map")
            self._stored_left -= _BLOCK
            *whole, rest = (rest + self._take(_BLOCK)).split(b"\n")
            lines += whole
            wanted = 1 + 2 * _whole(lines[0]) if lines else 1
            if wanted > 2 * _MAX_PIECES:
                raise ImageUnusable.in_layer(f"a layer holds a sparse file of more than {_MAX_PIECES} pieces")
        return [_whole(line) for line in lines[1:wanted]]

    # -- bytes --------------------------------------------------------------------------------------------------------

    def _extension(self, size_bytes: int) -> bytes:
        if size_bytes > _EXTENSION_BYTES:
            raise ImageUnusable.in_layer(f"a layer holds an extended header of {size_bytes} bytes")
        text = self._take(size_bytes)
        self._skip(-size_bytes % _BLOCK)
        return text

    def _skip(self, size_bytes: int) -> None:
        while size_bytes > 0:
            size_bytes -= len(self._take(min(size_bytes, CHUNK_BYTES)))

    def _take(self, size_bytes: int) -> bytes:
        chunk = self._stream.read(size_bytes)
        if len(chunk) < size_bytes:
            raise BlobCorrupt("a layer ends in the middle of its archive")
        return chunk


def _checksums(block: bytes) -> tuple[int, int]:
    """Of a header with blanks for its checksum; some old archivers counted bytes as signed."""
    plain = sum(block) - sum(block[148:156]) + 8 * 32
    high = sum(byte > 127 for byte in block) if max(block) > 127 else 0
    return plain, plain - 256 * high


def _name(block: bytes) -> bytes:
    name, prefix = _text(block[0:100]), _text(block[345:500])
    return prefix + b"/" + name if prefix and block[257:263] == b"ustar\0" else name


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """Octal digits, or a binary number after a high bit; what is below zero counts as zero."""
    if field[0] & 0x80:
        return 0 if field[0] == 0xFF else int.from_bytes(field[1:], "big")
    digits = _text(field).strip(b" ")
    if digits.strip(b"01234567"):
        raise BlobCorrupt("a layer is no sound tar archive: a number in a header is none")
    return int(digits or b"0", 8)


def _records(text: bytes) -> dict[bytes, bytes]:
    """PAX records, ``LENGTH KEY=VALUE`` and a newline each. The oldest form of a sparse map becomes its next one."""
    records: dict[bytes, bytes] = {}
    sparse: list[bytes] = []
    at = 0
    while at < len(text):
        blank = text.find(b" ", at, at + 10)
        length = _whole(text[at:blank]) if blank >= 0 else 0
        record = text[at : at + length]
        key, equals, value = record[blank + 1 - at : -1].partition(b"=")
        if not record.endswith(b"\n") or len(record) < length or not equals:
            raise BlobCorrupt("a layer is no sound tar archive: an extended header makes no sense")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append(value)
        records[key] = value
        at += length
    if sparse:
        records[b"GNU.sparse.map"] = b",".join(sparse)
    return records


def _decimal(pax: Mapping[bytes, bytes], key: bytes, otherwise: int) -> int:
    """The whole part of a number in a record; times before 1970 count as then."""
    text = pax.get(key, b"")
    if not text:
        return otherwise
    return 0 if text.startswith(b"-") and key == b"mtime" else _whole(text.partition(b".")[0])


def _whole(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise BlobCorrupt("a layer is no sound tar archive: a number in an extended header is none")
    return int(text)
