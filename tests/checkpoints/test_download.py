"""task=download, against a hub on loopback, and what an interruption leaves."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoints.loopback_hub import COMMIT, Hub, blob_id, serve, sha256
from tests.conftest import REPO, Cli, assert_in, read_csv, run_dir

REPOSITORY = "openai-community/gpt2"
FOLDER = Path("data/gpt2")
STAGING = Path("data/.gpt2.download")


@pytest.fixture
def hub(model: Path) -> Iterator[Hub]:
    with serve(Hub(model.parents[1])) as served:
        yield served


@pytest.fixture
def env(hub: Hub, tmp_path: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}


def wanted(repository: Path) -> dict[str, bytes]:
    """The files that a download is to have."""
    other = ("README.md", "pytorch_model.bin")
    return {file.name: file.read_bytes() for file in repository.iterdir() if file.name not in other}


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_what_is_downloaded_is_found_and_not_downloaded_again(
    gpt2x_process: Cli, gpt2x: Cli, hub: Hub, env: dict[str, str], model: Path, launch: Path
) -> None:
    first = gpt2x_process("task=download", **env)
    assert (first.code, first.err) == (0, "")
    assert contents(FOLDER) == wanted(model)
    assert [each.name for each in Path("data").iterdir()] == ["gpt2"]
    rows = {row["file"]: row for row in read_csv(run_dir(launch, "download") / "download.csv")}
    assert rows.keys() == wanted(model).keys()
    assert rows["model.safetensors"]["checksum"] == sha256(model / "model.safetensors")
    assert {row["commit"] for row in rows.values()} == {COMMIT}

    hub.requests.clear()
    again = gpt2x_process("task=download", **env, PYTHONPROFILEIMPORTTIME="1")
    assert again.code == 0, again.err
    assert_in(again.out, "nothing to download", "task=generate model=gpt2")
    assert hub.of("resolve") == []
    imported = {line.rpartition("|")[2].strip() for line in again.err.splitlines()}
    assert "huggingface_hub" in imported
    assert not {"torch", "tokenizers", "transformers", "pandas"} & imported

    used = gpt2x("task=generate", "prompt=be", "decode.max_new_tokens=2", "hydra.run.dir=run")
    assert used.code == 0, used.err
    (row,) = read_csv(launch / "run" / "generations.csv")
    assert row["weights"] == str(FOLDER)


def test_a_part_is_continued_and_a_wrong_part_is_replaced(
    gpt2x_process: Cli, hub: Hub, env: dict[str, str], model: Path, launch: Path
) -> None:
    weights = model / "model.safetensors"
    part = STAGING / f"{sha256(weights)}.part"
    for content, starts in (
        (weights.read_bytes()[:1000], [1000]),
        (b"\0" * 1000, [1000, 0]),
        (b"\0" * 10**6, [0]),
    ):
        shutil.rmtree("data", ignore_errors=True)
        hub.requests.clear()
        part.parent.mkdir(parents=True)
        part.write_bytes(content)
        result = gpt2x_process("task=download", "hydra.run.dir=run", **env)
        assert result.code == 0, result.err
        content_requests = [request for request in hub.of("GET", "model.safetensors") if "resolve" not in request]
        assert [int(request.split()[-1]) for request in content_requests] == starts
        assert contents(FOLDER) == wanted(model)
        assert not STAGING.exists()


def test_a_connection_that_breaks_is_continued(
    gpt2x_process: Cli, hub: Hub, env: dict[str, str], model: Path, launch: Path
) -> None:
    hub.cut_after["model.safetensors"] = 5000
    result = gpt2x_process("task=download", **env)
    assert (result.code, result.err) == (0, "")
    assert len([request for request in hub.of("GET", "model.safetensors") if "resolve" not in request]) == 2
    assert contents(FOLDER) == wanted(model)


def test_a_file_with_another_checksum_is_refused(
    gpt2x_process: Cli, hub: Hub, env: dict[str, str], launch: Path
) -> None:
    hub.spoiled.add("model.safetensors")
    assert_in(gpt2x_process("task=download", **env).error(), "model.safetensors", "checksum")
    assert not FOLDER.exists()


def test_a_checksum_that_is_none_is_refused(gpt2x_process: Cli, hub: Hub, env: dict[str, str], launch: Path) -> None:
    hub.stated["tokenizer.json"] = "../../tokenizer"
    assert_in(gpt2x_process("task=download", **env).error(), "does not state the checksum of tokenizer.json")
    assert list(launch.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "changed", "words"),
    [
        (["model=gpt2-large"], {}, ["openai-community/gpt2-large", "no such repository", "HF_TOKEN"]),
        (["weights.revision=v9"], {}, ["revision v9", "weights.revision"]),
        (["model=nano"], {}, ["nano", "none on the hub"]),
        (["model.hub=a/../b"], {}, ["model.hub=a/../b: not the name of a repository"]),
        ([], {"HF_ENDPOINT": "http://127.0.0.1:9"}, ["http://127.0.0.1:9", "Connection refused"]),
        ([], {"HF_HUB_OFFLINE": "1"}, ["HF_HUB_OFFLINE is set"]),
    ],
    ids=["repository", "revision", "nano", "name", "endpoint", "offline"],
)
def test_errors_are_one_line_and_leave_nothing(
    gpt2x_process: Cli,
    env: dict[str, str],
    launch: Path,
    arguments: list[str],
    changed: dict[str, str],
    words: list[str],
) -> None:
    assert_in(gpt2x_process("task=download", *arguments, **env | changed).error(), *words)
    assert list(launch.iterdir()) == []


def test_a_gated_repository_needs_the_token_which_no_other_host_gets(
    gpt2x_process: Cli, hub: Hub, env: dict[str, str], model: Path, launch: Path
) -> None:
    hub.gated = "hf_secret"
    line = gpt2x_process("task=download", **env).error()
    assert_in(line, "accept its terms", f"{hub.address}/{REPOSITORY}", "HF_TOKEN")
    hub.tokens.clear()
    result = gpt2x_process("task=download", f"weights.revision={COMMIT}", **env | {"HF_TOKEN": "hf_secret"})
    assert result.code == 0, result.err  # the server fails where a token reaches the host of the contents
    assert hub.tokens == {"hf_secret"}
    assert contents(FOLDER) == wanted(model)


def test_a_proxy_is_used(gpt2x_process: Cli, hub: Hub, env: dict[str, str], model: Path, launch: Path) -> None:
    behind = {"HF_ENDPOINT": "http://hub.invalid", "HTTP_PROXY": hub.address, "NO_PROXY": "localhost"}
    result = gpt2x_process("task=download", **env | behind)
    assert result.code == 0, result.err
    assert contents(FOLDER) == wanted(model)


def test_a_full_disk_is_one_line(gpt2x_process: Cli, env: dict[str, str], model: Path, launch: Path) -> None:
    STAGING.mkdir(parents=True)
    (STAGING / f"{blob_id(model / 'tokenizer.json')}.part").symlink_to("/dev/full")
    assert_in(gpt2x_process("task=download", **env).error(), "cannot write", "No space left on device")
    assert not FOLDER.exists()


def test_a_file_in_the_cache_is_not_downloaded(
    gpt2x_process: Cli, hub: Hub, env: dict[str, str], model: Path, launch: Path
) -> None:
    cached = Path(env["HF_HOME"]) / "hub" / "models--openai-community--gpt2" / "snapshots" / COMMIT
    cached.mkdir(parents=True)
    shutil.copy(model / "model.safetensors", cached)
    (cached / "tokenizer.json").write_text("damaged")
    result = gpt2x_process("task=download", **env)
    assert result.code == 0, result.err
    assert hub.of("GET", "model.safetensors") == []
    assert contents(FOLDER) == wanted(model)


def test_another_repository_gets_a_folder_of_its_own(
    gpt2x_process: Cli, hub: Hub, env: dict[str, str], model: Path, tmp_path: Path, launch: Path
) -> None:
    """In shards, too."""
    shards = tmp_path / "repositories" / "someone" / "my-gpt2"
    shutil.copytree(model, shards)
    (shards / "model.safetensors").unlink()
    for i in (1, 2):
        (shards / f"model-0000{i}-of-00002.safetensors").write_bytes(bytes([i]) * 1000)
    (shards / "model.safetensors.index.json").write_text("{}")
    hub.folder = tmp_path / "repositories"
    result = gpt2x_process("task=download", "model.hub=someone/my-gpt2", **env)
    assert result.code == 0, result.err
    assert "weights.path=data/my-gpt2" in result.out
    assert contents(Path("data/my-gpt2")) == wanted(shards)


def test_two_commands_take_turns(env: dict[str, str], hub: Hub, model: Path, launch: Path) -> None:
    hub.seconds_per_block = 0.2
    command = [sys.executable, "-m", "gpt2x", "task=download"]
    processes = [
        subprocess.Popen(command, cwd=launch, env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sum("nothing to download" in output for output in outputs) == 1
    assert len([request for request in hub.of("GET", "model.safetensors") if "resolve" not in request]) == 1
    assert contents(FOLDER) == wanted(model)
    assert [each.name for each in Path("data").iterdir()] == ["gpt2"]


def test_an_interruption_says_how_to_continue(env: dict[str, str], hub: Hub, model: Path, launch: Path) -> None:
    hub.seconds_per_block = 60
    command = [sys.executable, "-m", "gpt2x", "task=download"]
    process = subprocess.Popen(command, cwd=launch, env=os.environ | env, stderr=subprocess.PIPE, text=True)
    while not list(STAGING.glob("*.part")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (130, "gpt2x: the download was interrupted; the same command continues it\n")
    assert [each.name for each in launch.iterdir()] == ["data"]


def test_a_folder_that_cannot_be_written_is_one_line(gpt2x_process: Cli, env: dict[str, str], launch: Path) -> None:
    Path("data").write_text("a file")
    assert_in(gpt2x_process("task=download", **env).error(), "cannot write data/gpt2: ", "File exists")


def test_other_weights_of_the_name_are_moved_first(gpt2x_process: Cli, env: dict[str, str], launch: Path) -> None:
    FOLDER.parent.mkdir()
    (FOLDER.parent / "gpt2_weights.pt").write_bytes(b"my own")
    line = gpt2x_process("task=download", **env).error()
    assert_in(line, "data/gpt2_weights.pt", "would be used before data/gpt2", "move it away")


def test_kills_at_random_moments_end_in_the_same_bytes() -> None:
    """python -m tests.kill_download runs a large form of this."""
    command = [sys.executable, "-m", "tests.kill_download", "6"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6 kills in ")
