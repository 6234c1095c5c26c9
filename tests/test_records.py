"""What is written into a run directory is there whole, or not at all."""

from pathlib import Path

import pytest

from jaxcl.records import read_json, write_whole


def test_a_write_that_fails_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    file = tmp_path / "knobs.json"
    write_whole(file, '{"seed": 0}\n')

    def full(path, data):
        with open(path, "wb") as part:
            part.write(data[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, '{"seed": 1}\n')
    assert read_json(file) == {"seed": 0}


def test_what_is_written_is_utf8_and_nothing_is_left_beside_it(tmp_path):
    write_whole(tmp_path / "page.md", "± 1\n")
    write_whole(tmp_path / "page.md", "± 2\n")
    assert (tmp_path / "page.md").read_bytes() == b"\xc2\xb1 2\n"
    assert [file.name for file in tmp_path.iterdir()] == ["page.md"]
