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


def test_writers_at_the_same_time_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    used = []

    def write(temporary: Path) -> None:
        used.append(temporary)
        temporary.write_text("outer")
        if len(used) == 1:  # another writer writes the same file, from its beginning to its end
            write_whole(file, write)
            assert file.read_text() == "outer"
            assert temporary.read_text() == "outer"

    write_whole(file, write)
    assert used[0] != used[1]
    assert {each.name for each in tmp_path.iterdir()} == {"table.csv"}
