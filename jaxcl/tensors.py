"""Named arrays in a safetensors file, read and written without pickle and without a library.

The format (huggingface/safetensors, README, "Format"): 8 bytes, the length of a header, little endian; the header, a
JSON object name -> {"dtype", "shape", "data_offsets": [begin, end]} and perhaps "__metadata__", words by words; then
the arrays' bytes, little endian and in C order, one after the other without gaps.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
LARGEST_HEADER = 100_000_000


class Tensors(NamedTuple):
    """Arrays by name, and words about them."""

    arrays: dict[str, np.ndarray]
    about: dict[str, str]


def write(path: str | Path, arrays: Mapping[str, Any], *, about: Mapping[str, str] | None = None) -> None:
    """Writes arrays by their names, and words about them; whole or not at all."""
    path, entries, at = Path(path), {}, 0
    names = {dtype: name for name, dtype in DTYPES.items()}
    data = []
    for name, x in arrays.items():
        x = np.ascontiguousarray(x).reshape(np.shape(x))  # the first makes [1] of a single number
        if x.dtype.type not in names:
            raise ValueError(f"A safetensors file holds no {x.dtype}, the type of {name}.")
        entries[name] = {
            "dtype": names[x.dtype.type],
            "shape": list(x.shape),
            "data_offsets": [at, at + x.nbytes],
        }
        data.append(x.astype(x.dtype.newbyteorder("<"), copy=False).tobytes())
        at += x.nbytes
    header: dict[str, Any] = {"__metadata__": dict(about or {})} | entries
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the arrays are aligned
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.writelines(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read(path: str | Path) -> Tensors:
    """The arrays of a safetensors file; bfloat16 ones as float32.

    Raises ValueError where the file is none or is damaged, with what is wrong.
    """
    with Path(path).open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= LARGEST_HEADER:
            raise _damaged(path, "it does not begin with the length of a header")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            raise _damaged(path, "its header is not JSON") from None
        if not isinstance(header, dict):
            raise _damaged(path, "its header is not an object")
        data = file.read()
    about = header.pop("__metadata__", {})
    found = {name: _array(path, name, entry, data) for name, entry in header.items()}
    words = {str(k): str(v) for k, v in about.items()} if isinstance(about, dict) else {}
    return Tensors(found, words)


def _array(path: str | Path, name: str, entry: Any, data: bytes) -> np.ndarray:
    try:
        kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise _damaged(path, f"nothing is said of {name}") from None
    whole = [x for x in (*shape, begin, end) if type(x) is not int or x < 0]
    if whole or kind not in (*DTYPES, "BF16"):
        raise _damaged(path, f"{name} has the type {kind!r}, shape {shape} and bytes {begin} to {end}")
    dtype = np.dtype(np.uint16 if kind == "BF16" else DTYPES[kind]).newbyteorder("<")
    if end - begin != math.prod(shape) * dtype.itemsize or end > len(data):
        raise _damaged(path, f"{name} of shape {shape} has bytes {begin} to {end} of {len(data)}")
    x = np.frombuffer(data, dtype, count=math.prod(shape), offset=begin).reshape(shape)
    if kind == "BF16":
        return (x.astype(np.uint32) << 16).view(np.float32)
    return x.astype(dtype.newbyteorder("="))


def _damaged(path: str | Path, why: str) -> ValueError:
    return ValueError(f"{path} is no safetensors file, or is damaged: {why}.")
