"""What task=download shows on the console: a progress bar, and then what is in the folder and how it is used."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from gpt2x.checkpoints.hub import Snapshot
from gpt2x.paths import shown
from gpt2x.reports import console


@contextmanager
def progress_bar(n_bytes: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, if that is a terminal; yields the function that takes the bytes that are there."""
    columns = (TextColumn("download"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with console.progress(*columns) as bar:
        task = bar.add_task("download", total=n_bytes)
        yield lambda done: bar.update(task, completed=done)


def show_interrupted() -> None:
    console.err.print("gpt2x: the download was interrupted; the same command continues it", soft_wrap=True)


def show(snapshot: Snapshot, n_downloaded: int, folder: Path, setting: str) -> None:
    """Two lines: what was downloaded, and the command that generates with it."""
    megabytes = sum(file.size for file in snapshot.files) / 1e6
    what = (
        f"{n_downloaded} of {len(snapshot.files)} files downloaded, the others were there"
        if 0 < n_downloaded < len(snapshot.files)
        else f"{n_downloaded} files downloaded"
        if n_downloaded
        else "nothing to download: all files are there"
    )
    console.out.print(
        f"{shown(folder)}: {what} ({megabytes:,.0f} MB, checksums compared) · {snapshot.repository} at "
        f"{snapshot.commit[:12]}",
        soft_wrap=True,
    )
    console.out.print(f"use it: python -m gpt2x task=generate {setting}", soft_wrap=True)
