"""Downloads a repository of the hub into a folder, so that a kill at any moment leaves nothing that looks whole.

Files arrive in a hidden folder beside the target, each as `CHECKSUM.part`. A part is continued by the next download,
and is moved to `whole/` once its size and checksum are those that the hub states. When all files are there, they are
moved into the target: at once if there is no such folder, or else one by one, with the weights last.
"""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from gpt2x.checkpoints.hub import NAMES, RemoteFile, Snapshot, explained
from gpt2x.errors import UserError
from gpt2x.paths import shown

_CHUNK = 1 << 18  # bytes that are received between two writes; a kill loses no more than these
_OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_MARGIN = 10_000_000  # bytes of the disk that are left free


def missing_files(snapshot: Snapshot, folder: Path) -> list[RemoteFile]:
    """Those of the snapshot's files that the folder lacks, after the checksums of the others were compared.

    Raises UserError if the folder holds a file of such a name that is not the snapshot's.
    """
    of_hub = {file.name: file for file in snapshot.files}
    for name in dict.fromkeys((*NAMES, *of_hub)):
        path = folder / name
        if os.path.lexists(path) and not (name in of_hub and of_hub[name].is_at(path)):
            raise UserError(
                f"{shown(path)}: not the file of {snapshot.repository} at {snapshot.commit[:12]}; "
                f"to download that, move {shown(folder)} away"
            )
    return [file for file in snapshot.files if not (folder / file.name).exists()]


def staging_of(folder: Path) -> Path:
    """Where the files of this folder arrive: beside it, on the same disk, also if it is a link."""
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.download")


def download(snapshot: Snapshot, missing: list[RemoteFile], folder: Path, progress: Callable[[int], None]) -> None:
    """Downloads the missing files into the folder. `progress` is called with the number of bytes that are there.

    Files that the cache of huggingface_hub has are copied. Raises UserError if there is not enough space, or the
    download fails; the next one continues it.
    """
    staging = staging_of(folder)
    whole = staging / "whole"
    whole.mkdir(parents=True, exist_ok=True)
    names = {file.name for file in missing}
    for stale in [each for each in whole.iterdir() if each.name not in names]:  # of another revision
        stale.unlink()
    todo = [file for file in missing if not file.is_at(whole / file.name)]
    _check_space(todo, staging)
    _quiet_library()
    done = sum(file.size for file in missing) - sum(file.size for file in todo)
    progress(done)
    for file in todo:
        _receive(snapshot, file, staging, lambda n, before=done: progress(before + n))  # type: ignore[misc]
        done += file.size
    _publish(whole, missing, folder.resolve())
    shutil.rmtree(staging)


def _part(file: RemoteFile, staging: Path) -> Path:
    """Where a file arrives. With another content, it has another name."""
    return staging / f"{file.checksum}.part"


def _check_space(files: list[RemoteFile], staging: Path) -> None:
    parts = [_part(file, staging) for file in files]
    needed = sum(file.size for file in files) - sum(part.stat().st_size for part in parts if part.exists())
    free = shutil.disk_usage(staging).free
    if needed + _MARGIN > free:
        raise UserError(
            f"{shown(staging.parent)}: the download needs {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free; "
            "make room on this disk"
        )


def _receive(snapshot: Snapshot, file: RemoteFile, staging: Path, progress: Callable[[int], None]) -> None:
    """Has the file in staging/whole. Raises UserError if it does not arrive as the hub states it."""
    from huggingface_hub import try_to_load_from_cache

    part = _part(file, staging)
    cached = try_to_load_from_cache(snapshot.repository, file.name, revision=snapshot.commit)
    if isinstance(cached, str) and file.is_at(Path(cached)):
        shutil.copyfile(cached, part)
    for _ in range(2):  # a part that another program has changed is received again
        if part.exists() and part.stat().st_size > file.size:
            part.unlink()
        _continue(snapshot, file, part, progress)
        if file.is_at(part):
            os.replace(part, staging / "whole" / file.name)
            return
        part.unlink()
    raise UserError(
        f"cannot download {file.name} of {snapshot.repository}: what arrives has not the checksum that the hub states"
    )


def _continue(snapshot: Snapshot, file: RemoteFile, part: Path, progress: Callable[[int], None]) -> None:
    """Receives what the part lacks."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # it is public in the manual

    url = hf_hub_url(snapshot.repository, file.name, revision=snapshot.commit)
    with part.open("ab", buffering=0) as stream:
        counted = cast(BinaryIO, _Counted(stream, progress))
        try:
            http_get(url, counted, resume_size=stream.tell(), headers=build_hf_headers(), expected_size=file.size)
        except Exception as error:  # many kinds, from two HTTP libraries
            if isinstance(error, OSError) and error.errno in _OF_DISK:
                raise UserError(f"cannot write {shown(part)}: {error.strerror}") from None
            raise explained(error, snapshot.repository, snapshot.commit) from None
        os.fsync(stream.fileno())


class _Counted:
    """A file that says after each write how long it is. It has what huggingface_hub needs of a file."""

    def __init__(self, stream: "BinaryIO", progress: Callable[[int], None]) -> None:
        self._stream, self._progress = stream, progress
        self.tell, self.seek, self.truncate = stream.tell, stream.seek, stream.truncate

    def write(self, content: bytes) -> int:
        rest = memoryview(content)
        while rest:  # a file without a buffer may write a part only
            rest = rest[self._stream.write(rest) :]
        self._progress(self._stream.tell())
        return len(content)


def _quiet_library() -> None:
    """Has huggingface_hub print nothing, and write what it has received without waiting for 10 MB."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]
    from huggingface_hub.utils.logging import set_verbosity_error

    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK
    disable_progress_bars()
    set_verbosity_error()


def _publish(whole: Path, files: list[RemoteFile], folder: Path) -> None:
    if not folder.exists():
        whole.rename(folder)
        return
    for file in files:
        os.replace(whole / file.name, folder / file.name)
