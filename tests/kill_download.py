"""Kills a download again and again, and checks that it ends as if nothing had happened.

    python -m tests.kill_download [KILLS]

task=download downloads a small repository from a slow hub on loopback, and is killed (SIGKILL) at a random moment:
most often while files arrive, and else at any time from its start on. This is repeated until the download is whole;
then the next one begins, half of the time into a folder that has a part of the files. After each kill, the folder has
the weights only if it has all files with their right bytes. At the end of each download, the folder has the bytes of
the hub and nothing else is left; and one more run changes nothing.

Each attempt is a fork of this process, which has imported gpt2x before, so that an attempt takes no second to start.
pytest does not collect this file; tests/checkpoints/test_download.py runs a small form of it.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = "openai-community/gpt2-medium"
_SIZES = {
    "config.json": 700,
    "tokenizer.json": 300_000,
    "vocab.json": 200_000,
    "merges.txt": 100_000,
    "tokenizer_config.json": 26,
    "model.safetensors": 2_500_000,
}
_SECONDS_PER_BLOCK = 0.004
_SECONDS_OF_DOWNLOAD = 0.5
_SECONDS_TO_START = 0.6


@dataclass
class Report:
    """What has happened."""

    kills: int = 0
    with_a_part: int = 0
    """Kills after which a part of a file was there, for the next attempt to continue."""
    with_whole_files: int = 0
    """Kills after which some files had arrived, and others had not."""
    after_the_end: int = 0
    """Kills after which the folder was whole."""
    downloads: int = 0
    """How often the files became whole."""
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills in {self.seconds:.0f} s, {self.downloads} downloads became whole with the right bytes;"
            f" after {self.with_a_part} kills there was a part of a file, after {self.with_whole_files} some whole "
            f"files, after {self.after_the_end} all of them"
        )


def kill_download(root: Path, kills: int, chance: random.Random) -> Report:
    """Does what the module describes, in an empty folder. Raises AssertionError if a download does not end well."""
    start = time.time()
    hub = _make_repository(root / "hub", chance)
    command = [sys.executable, "-m", "tests.checkpoints.loopback_hub", str(root / "hub"), str(_SECONDS_PER_BLOCK)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        os.environ |= {
            "HF_ENDPOINT": server.stdout.readline().strip(),
            "HF_HOME": str(root / "home"),
            "HF_HUB_OFFLINE": "0",
        }
        _import_all()  # huggingface_hub reads the environment when it is imported
        report = Report()
        while report.kills < kills:
            _download_once(root, hub, kills, chance, report)
        report.seconds = time.time() - start
        return report
    finally:
        server.terminate()
        server.wait()


def _download_once(root: Path, hub: Path, kills: int, chance: random.Random, report: Report) -> None:
    """Kills one download until it is whole, or until the number of kills is reached and it may end."""
    launch = root / "launch"
    folder = launch / "data" / hub.name
    staging = folder.with_name(f".{hub.name}.download")
    shutil.rmtree(launch, ignore_errors=True)
    launch.mkdir()
    if chance.random() < 0.5:
        folder.mkdir(parents=True)
        shutil.copy(hub / "vocab.json", folder)
    while report.kills < kills:
        shutil.rmtree(launch / "run", ignore_errors=True)
        attempt = _Attempt(launch)
        if chance.random() < 0.8:
            while not (launch / "run" / "job.json").exists() and attempt.is_running():
                time.sleep(0.002)
            time.sleep(chance.uniform(0, _SECONDS_OF_DOWNLOAD))
        else:
            time.sleep(chance.uniform(0, _SECONDS_TO_START))
        if not attempt.is_running():
            break
        attempt.kill()
        report.kills += 1
        _check_after_kill(folder, staging, hub, report)
    else:
        _Attempt(launch).wait()
    before = _contents(folder)
    assert before == _contents(hub), "other bytes"
    _Attempt(launch).wait()
    assert _contents(folder) == before
    assert [each.name for each in folder.parent.iterdir()] == [folder.name]
    report.downloads += 1


def _check_after_kill(folder: Path, staging: Path, hub: Path, report: Report) -> None:
    is_whole = (folder / "model.safetensors").exists()
    if is_whole:
        assert _contents(folder) == _contents(hub), "it looks whole, and is not"
    report.after_the_end += is_whole
    report.with_a_part += any(part.stat().st_size > 0 for part in staging.glob("*.part"))
    report.with_whole_files += not is_whole and any(staging.glob("whole/*"))


class _Attempt:
    """A process of its own that runs `gpt2x task=download` in the launch directory."""

    def __init__(self, launch: Path) -> None:
        self._output = launch.parent / "output.txt"
        self._code: int | None = None
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._run(launch)
            finally:
                os._exit(99)

    def _run(self, launch: Path) -> None:
        os.chdir(launch)
        with self._output.open("w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        sys.argv[1:] = ["task=download", "model=gpt2-medium", "hydra.run.dir=run"]
        from gpt2x.cli.main import main

        os._exit(main())

    def is_running(self) -> bool:
        """Raises AssertionError if it has failed."""
        if self._code is None:
            found, status = os.waitpid(self._pid, os.WNOHANG)
            if found == 0:
                return True
            self._code = os.waitstatus_to_exitcode(status)
        assert self._code == 0, f"exit code {self._code}: {self._output.read_text()}"
        return False

    def wait(self) -> None:
        """Raises AssertionError if it fails."""
        while self.is_running():
            time.sleep(0.005)

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def _make_repository(root: Path, chance: random.Random) -> Path:
    folder = root / REPOSITORY
    folder.mkdir(parents=True)
    for name, size in _SIZES.items():
        (folder / name).write_bytes(chance.randbytes(size))
    return folder


def _import_all() -> Any:
    """Imports what an attempt needs. The functions are not called: their libraries may start threads."""
    import huggingface_hub.file_download
    import huggingface_hub.hf_api
    import huggingface_hub.utils.logging
    import hydra.core.plugins

    import gpt2x.cli.main
    import gpt2x.reports.console
    import gpt2x.runs.manifest
    import gpt2x.tasks.download

    return gpt2x, huggingface_hub, hydra


if __name__ == "__main__":
    n_kills = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as temporary:
        print(kill_download(Path(temporary), n_kills, random.Random()))
