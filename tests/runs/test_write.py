"""Files are written whole or not at all."""

from pathlib import Path

import pytest

from gpt2x.paths import write_whole


def test_ctrl_c_while_a_file_is_written_leaves_the_old_file_only(tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    file.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("half of the new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(file, write)
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"state.pt": "old"}
