"""Named arrays in a safetensors file: as the format is written down, and no other."""

import json
import struct

import numpy as np
import pytest

from jaxcl import tensors

ARRAYS = {
    "a": np.float32([[1.5, -2], [0, 3e38]]),
    "b/c": np.arange(3, dtype=np.int64),
    "one": np.float64(7.0),
    "none": np.zeros((0, 2), np.float16),
    "yes": np.array([True, False]),
}


def test_what_is_written_is_read(tmp_path):
    tensors.write(tmp_path / "x.safetensors", ARRAYS, about={"who": "ä"})
    found = tensors.read(tmp_path / "x.safetensors")
    assert found.about == {"who": "ä"}
    for name, x in ARRAYS.items():
        assert found.arrays[name].dtype == x.dtype
        np.testing.assert_array_equal(found.arrays[name], x)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_bytes_lie_as_the_format_says(tmp_path):
    """Written by hand: a header's length in 8 bytes, the header, the bytes."""
    header = {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    header["y"] = {"dtype": "BF16", "shape": [1, 1], "data_offsets": [8, 10]}
    text = json.dumps(header).encode()
    data = struct.pack("<ff", 1.0, -0.5) + b"\x40\x40"  # bfloat16 0x4040 is 3
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    found = tensors.read(tmp_path / "x.safetensors").arrays
    assert (found["x"].tolist(), found["y"].tolist()) == ([1.0, -0.5], [[3.0]])
    tensors.write(tmp_path / "y.safetensors", {"x": found["x"]})
    assert (tmp_path / "y.safetensors").read_bytes().endswith(data[:8])


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 8000]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [True, 2], "data_offsets": [0, 8]},
        {"dtype": "X1", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2]},
        7,
    ],
)
def test_an_entry_that_does_not_fit_the_bytes_is_refused(tmp_path, entry):
    text = json.dumps({"x": entry}).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(ValueError, match=r"is no safetensors file, or is damaged: .*x"):
        tensors.read(tmp_path / "x")


@pytest.mark.parametrize(
    "content", [b"", b"12345678{}", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 3) + b"{,}"]
)
def test_a_file_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="is no safetensors file"):
        tensors.read(tmp_path / "x")
