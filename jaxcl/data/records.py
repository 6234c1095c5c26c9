"""TFRecord files, looked into without TensorFlow and without reading what is large in them.

A file is a row of records, each    length uint64 | checksum uint32 | content [length] | checksum uint32,
little-endian. A content is a tf.train.Example: a map from names to lists of bytes, floats or integers, written as
https://protobuf.dev/programming-guides/encoding says. Only heads are read; what lies between them is jumped over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO, NamedTuple


class Span(NamedTuple):
    """A part of a file: the byte it begins at, and how many it has."""

    start: int
    length: int


BYTES, INTEGERS = 1, 3  # kinds of a feature (2: floats)


def record_spans(file: BinaryIO) -> Iterator[Span]:
    """The content of each record, in order. The file may be moved about in between.

    Raises ValueError at the first record whose length is damaged, or within which the file ends: nobody knows where
    the next one would begin. The checksums of the lengths are compared; those of the contents are not, as that would
    take reading them (`tf_read.check_records` does).
    """
    end, at, n = file.seek(0, os.SEEK_END), 0, 0
    while at < end:
        file.seek(at)
        head = file.read(12)
        length = int.from_bytes(head[:8], "little")
        if len(head) == 12 and int.from_bytes(head[8:], "little") != checksum(head[:8]):
            hint = "" if n else " Is it a TFRecord file at all, and not a compressed one?"
            raise ValueError(f"the length of record {n}, at byte {at}, is damaged.{hint}")
        if len(head) < 12 or at + 16 + length > end:
            raise ValueError(f"it ends, after {end} bytes, within record {n}, which begins at byte {at}.")
        yield Span(at + 12, length)
        at, n = at + 16 + length, n + 1


def example(file: BinaryIO, record: Span) -> dict[str, tuple[int, Span]]:
    """The features of a tf.train.Example, each as its kind and where the first of its values lies: a string's bytes, or
    an integer for `integer`. A feature without values is left out.

    Raises ValueError where it is no such message.
    """
    found = {}
    for _, features in fields(file, record, 1):
        for _, entry in fields(file, features, 1):
            parts = dict(fields(file, entry, 1, 2))
            if 1 not in parts or 2 not in parts:
                continue
            name = read(file, parts[1]).decode(errors="replace")
            for kind, values in fields(file, parts[2], 1, 2, 3):
                first = next((value for _, value in fields(file, values, 1)), None)
                if first is not None and (first.length or kind == BYTES):
                    found[name] = kind, first
    return found


def fields(file: BinaryIO, message: Span, *numbers: int) -> Iterator[tuple[int, Span]]:
    """The fields of a message that have one of these numbers, each as its number and where its value lies."""
    at, end = message.start, sum(message)
    while at < end:
        file.seek(at)
        tag = varint(file)
        wire = tag & 7
        if wire == 0:  # an integer
            start = file.tell()
            varint(file)
            value = Span(start, file.tell() - start)
        elif wire in (1, 2, 5):
            length = varint(file) if wire == 2 else {1: 8, 5: 4}[wire]
            value = Span(file.tell(), length)
        else:
            raise ValueError("it is no tf.train.Example")
        at = sum(value)
        if at > end:
            raise ValueError("it is no tf.train.Example: one of its parts is longer than the whole")
        if tag >> 3 in numbers:
            yield tag >> 3, value


def integer(file: BinaryIO, value: Span) -> int:
    """The (first) integer that is written there, as signed 64 bits."""
    file.seek(value.start)
    return ((varint(file) + 2**63) % 2**64) - 2**63


def read(file: BinaryIO, span: Span) -> bytes:
    """Raises ValueError where the file ends before."""
    file.seek(span.start)
    content = file.read(span.length)
    if len(content) < span.length:
        raise ValueError(f"the file ends {span.length - len(content)} bytes too early")
    return content


def varint(file: BinaryIO) -> int:
    """Seven bits a byte, the lowest first; the eighth bit says that more follow."""
    value = shift = 0
    for byte in iter(partial(file.read, 1), b""):
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
        shift += 7
        if shift == 70:
            break
    raise ValueError("it is no tf.train.Example")


def checksum(content: bytes) -> int:
    """TFRecord's: CRC-32C (Castagnoli's polynomial), rotated by 15 bits, and a constant added.

    >>> hex(checksum((112).to_bytes(8, "little")))
    '0xcdad2994'
    """
    crc = 0xFFFFFFFF
    for byte in content:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _table() -> list[int]:
    rows = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        rows.append(value)
    return rows


TABLE = _table()


class Window:
    """A part of a file as a file of its own, for Pillow to look at the head of an image that lies in it."""

    def __init__(self, file: BinaryIO, span: Span):
        self.file, self.span, self.at = file, span, 0

    def seek(self, to: int, whence: int = os.SEEK_SET) -> int:
        self.at = to + (0, self.at, self.span.length)[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def read(self, n: int = -1) -> bytes:
        left = max(0, self.span.length - self.at)
        n = left if n is None or n < 0 else min(n, left)
        self.file.seek(self.span.start + self.at)
        content = self.file.read(n)
        self.at += len(content)
        return content
