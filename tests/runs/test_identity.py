"""Which run a command describes, as the folders of a sweep show it."""

import shutil
from pathlib import Path

from tests.conftest import NANO, Cli, read_csv


def test_local_weights_count_by_content_with_weights_auto_too(gpt2x: Cli, launch: Path) -> None:
    """weights=auto takes a file in data/ before it asks the hub."""
    shutil.copytree(NANO, launch / "data" / "nano")
    sweep = ("-m", "task=generate", "decode.max_new_tokens=1", "model=nano", "weights=auto", "hydra.sweep.dir=out")
    assert gpt2x(*sweep).code == 0
    file = launch / "data" / "nano" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert gpt2x(*sweep, "rerun=stale").code == 0
    jobs = read_csv(launch / "out" / "jobs.csv")
    assert [row["attempts"] for row in jobs] == ["1", "1"]
    assert [row["stale"] for row in jobs] == [f"replaced by {jobs[1]['job']}", ""]
