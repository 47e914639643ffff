"""The folder that task=download fills: what an interruption leaves, and the files of others. It needs no hub."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt2x.checkpoints import download as module
from gpt2x.checkpoints.download import download, missing_files
from gpt2x.checkpoints.hub import RemoteFile, Snapshot
from gpt2x.checkpoints.locate import find_local_weights
from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.errors import UserError
from tests.checkpoints.loopback_hub import COMMIT, blob_id, is_lfs, sha256
from tests.checkpoints.test_download import FOLDER, REPOSITORY, STAGING, contents, wanted


@pytest.fixture
def snapshot(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Snapshot:
    """What the hub has, which is copied here instead of downloaded."""

    def copied(snapshot: Snapshot, file: RemoteFile, part: Path, progress: object) -> None:
        shutil.copyfile(model / file.name, part)

    monkeypatch.setattr(module, "_continue", copied)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return snapshot_of(model)


def snapshot_of(folder: Path) -> Snapshot:
    """As gpt2x.checkpoints.hub.look_up finds it: the weights are last."""
    names = sorted(wanted(folder), key=lambda name: (is_lfs(name), name))
    files = [
        RemoteFile(name, (folder / name).stat().st_size, (sha256 if is_lfs(name) else blob_id)(folder / name))
        for name in names
    ]
    return Snapshot(REPOSITORY, COMMIT, tuple(files))


def run(snapshot: Snapshot) -> list[int]:
    """Downloads into FOLDER; returns what the progress bar was told."""
    told: list[int] = []
    download(snapshot, missing_files(snapshot, FOLDER), FOLDER, told.append)
    return told


@pytest.mark.parametrize("exists", [False, True], ids=["new folder", "folder with a vocabulary"])
def test_an_interruption_leaves_nothing_that_looks_whole(
    snapshot: Snapshot, model: Path, launch: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    """Before each step in which something is moved, and after the last one."""
    interrupted = 0
    while True:
        shutil.rmtree("data", ignore_errors=True)
        if exists:
            FOLDER.mkdir(parents=True)
            shutil.copy(model / "tokenizer.json", FOLDER)
        with monkeypatch.context() as patch:
            left = [interrupted]
            for owner, name in ((module.os, "replace"), (Path, "rename"), (module.shutil, "rmtree")):
                patch.setattr(owner, name, interrupting(getattr(owner, name), left))
            try:
                run(snapshot)
            except KeyboardInterrupt:
                interrupted += 1
            else:
                break
        if (FOLDER / "model.safetensors").exists():
            assert contents(FOLDER) == wanted(model)
        run(snapshot)
        assert contents(FOLDER) == wanted(model)
        assert [each.name for each in Path("data").iterdir()] == ["gpt2"]
    assert interrupted == (3 + 3 + 1 if exists else 4 + 1 + 1)


def interrupting(move: Callable[..., object], left: list[int]) -> Callable[..., object]:
    """The function, with Ctrl-C before it does anything once as many calls as are left were made."""

    def counted(*args: object, **options: object) -> object:
        left[0] -= 1
        if left[0] == -1:
            raise KeyboardInterrupt
        return move(*args, **options)

    return counted


def test_files_that_are_not_the_hubs_are_kept(snapshot: Snapshot, model: Path, launch: Path) -> None:
    FOLDER.mkdir(parents=True)
    for name in ("model.safetensors", "merges.txt", "config.json"):
        own = FOLDER / name
        own.write_bytes(wanted(model).get(name, b"my own")[::-1])  # with the right size
        with pytest.raises(UserError, match=f"{own}: not the file of .*; to download that, move data/gpt2 away"):
            missing_files(snapshot, FOLDER)
        own.unlink()
    (FOLDER / "LICENSE").write_text("a file that no model has")
    run(snapshot)
    assert contents(FOLDER).keys() - wanted(model).keys() == {"LICENSE"}


def test_files_of_another_revision_are_not_mixed_in(snapshot: Snapshot, model: Path, launch: Path) -> None:
    whole = STAGING / "whole"
    whole.mkdir(parents=True)
    (whole / "merges.txt").write_text("of another revision")
    (whole / "config.json").write_text("of another revision")
    run(snapshot)
    assert contents(FOLDER) == wanted(model)


def test_too_little_space_is_said_before_the_download(
    snapshot: Snapshot, launch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=10_000_000))
    with pytest.raises(UserError, match=r"^data: the download needs .* MB, and 10 MB are free"):
        run(snapshot)
    assert not FOLDER.exists()


def test_a_folder_that_is_a_link_is_filled_where_it_is(
    snapshot: Snapshot, model: Path, launch: Path, tmp_path: Path
) -> None:
    other_disk = tmp_path / "disk" / "gpt2"
    other_disk.mkdir(parents=True)
    FOLDER.parent.mkdir()
    FOLDER.symlink_to(other_disk)
    run(snapshot)
    assert contents(other_disk) == wanted(model)
    assert [each.name for each in other_disk.parent.iterdir()] == ["gpt2"]


def test_what_is_whole_is_found(snapshot: Snapshot, launch: Path) -> None:
    local = WeightsConfig("local")
    assert find_local_weights(ModelConfig("gpt2"), local) is None
    run(snapshot)
    assert find_local_weights(ModelConfig("gpt2"), local) == FOLDER


def test_progress_ends_at_the_size_of_what_was_missing(snapshot: Snapshot, model: Path, launch: Path) -> None:
    FOLDER.mkdir(parents=True)
    shutil.copy(model / "tokenizer.json", FOLDER)
    (STAGING / "whole").mkdir(parents=True)
    shutil.copy(model / "config.json", STAGING / "whole")
    assert run(snapshot)[0] == (model / "config.json").stat().st_size
