"""weights=auto, against a hub on loopback."""

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoints.loopback_hub import COMMIT, Hub, serve, sha256
from tests.conftest import REPO, Cli, assert_in, read_csv, run_dir, tiny_hf

ARGUMENTS = ("task=generate", "weights=auto", "prompt=Hello", "decode=greedy", "decode.max_new_tokens=3")


FINE_TUNE = "someone/fine-tune"


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the hub has: a tiny model with GPT-2's vocabulary, and one with as many tokens of its own."""
    root = tmp_path_factory.mktemp("hub")
    model = tiny_hf(vocab_size=50257, eos_token_id=50256, bos_token_id=50256)
    for name in ("openai-community/gpt2", FINE_TUNE):
        model.save_pretrained(root / name)
        (root / name / "generation_config.json").unlink()
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(REPO / "data" / "gpt2" / name, root / "openai-community/gpt2")
    own = {token: 50256 - id for token, id in vocabulary(root / "openai-community/gpt2").items()}
    (root / FINE_TUNE / "vocab.json").write_text(json.dumps(own))
    shutil.copy(REPO / "data" / "gpt2" / "merges.txt", root / FINE_TUNE)
    return root


def vocabulary(folder: Path) -> dict[str, int]:
    return json.loads((folder / "vocab.json").read_text(encoding="utf-8"))


@pytest.fixture
def hub(repositories: Path) -> Iterator[Hub]:
    with serve(Hub(repositories)) as served:
        yield served


@pytest.fixture
def env(tmp_path: Path, hub: Hub) -> dict[str, str]:
    return {
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_ETAG_TIMEOUT": "2",
        "HF_ENDPOINT": hub.address,
    }


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_auto_downloads_once_and_then_uses_the_cache(
    gpt2x_process: Cli, hub: Hub, env: dict[str, str], launch: Path
) -> None:
    first = gpt2x_process(*ARGUMENTS, **env)
    assert first.code == 0, first.err
    assert hub.of("GET", "model.safetensors") != []
    (row,) = read_csv(run_dir(launch, "generate") / "generations.csv")
    assert row["n_new_tokens"] == "3"
    assert COMMIT in row["weights"]

    shutil.rmtree(launch / "runs")
    offline = gpt2x_process(*ARGUMENTS, **env | {"HF_ENDPOINT": f"http://127.0.0.1:{closed_port()}"})
    assert offline.code == 0, offline.err
    (again,) = read_csv(run_dir(launch, "generate") / "generations.csv")
    assert again == row


def test_local_weights_win_and_the_hub_is_not_asked(
    gpt2x_process: Cli, hub: Hub, env: dict[str, str], launch: Path, repositories: Path
) -> None:
    shutil.copytree(repositories / "openai-community" / "gpt2", launch / "data" / "gpt2")
    result = gpt2x_process(*ARGUMENTS, **env)
    assert result.code == 0, result.err
    assert hub.requests == []


def test_local_never_asks_the_hub(gpt2x_process: Cli, hub: Hub, env: dict[str, str]) -> None:
    result = gpt2x_process("task=generate", "model=gpt2", **env)
    assert "weights=auto" in result.error()
    assert hub.requests == []


def test_no_network_says_what_to_put_where(gpt2x_process: Cli, env: dict[str, str], launch: Path) -> None:
    result = gpt2x_process(
        "task=generate", "weights=auto", **env | {"HF_ENDPOINT": f"http://127.0.0.1:{closed_port()}"}
    )
    assert "data/" in result.error()
    assert "weights.path" in result.error()
    assert list(launch.iterdir()) == []


def test_a_hub_that_never_answers_is_given_up(gpt2x_process: Cli, env: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = gpt2x_process("weights=auto", **env | {"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"})
    assert "cannot download" in result.error()


def test_a_model_the_hub_lacks_is_an_error(gpt2x_process: Cli, env: dict[str, str]) -> None:
    result = gpt2x_process("weights=auto", "model=gpt2-medium", **env)
    assert "openai-community/gpt2-medium" in result.error()


def tokenizer_of(run: Path) -> dict[str, object]:
    """What the manifest says about it."""
    return json.loads((run / "manifest.json").read_text(encoding="utf-8"))["checkpoint"]["tokenizer"]


def test_a_fine_tune_is_read_with_its_own_tokenizer(
    gpt2x_process: Cli, env: dict[str, str], launch: Path, repositories: Path
) -> None:
    """It has as many tokens as GPT-2, in another order."""
    result = gpt2x_process(*ARGUMENTS, f"model.hub={FINE_TUNE}", "decode.logprobs=1", "hydra.run.dir=run", **env)
    assert (result.code, result.warnings) == (0, "")
    tokens = {int(row["token_id"]): row["token"] for row in read_csv(launch / "run" / "tokens.csv")}
    own = {id: token for token, id in vocabulary(repositories / FINE_TUNE).items()}
    assert {id: own[id].replace("\u0120", " ") for id in tokens} == tokens
    facts = tokenizer_of(launch / "run")
    assert facts["origin"] == "its files are beside the weights"
    assert facts["sha256"] == {name: sha256(repositories / FINE_TUNE / name) for name in ("vocab.json", "merges.txt")}


def test_a_cache_without_a_tokenizer_is_completed_or_else_used_with_a_warning(
    gpt2x_process: Cli, hub: Hub, env: dict[str, str], launch: Path, repositories: Path
) -> None:
    """As transformers leaves it when it has loaded a model alone, and as an earlier gpt2x did."""
    cached = Path(env["HF_HOME"]) / "hub" / "models--someone--fine-tune"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(COMMIT)
    (cached / "snapshots" / COMMIT).mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(repositories / FINE_TUNE / name, cached / "snapshots" / COMMIT)

    of_fine_tune = (*ARGUMENTS, f"model.hub={FINE_TUNE}", "hydra.run.dir=run")
    offline = gpt2x_process(*of_fine_tune, **env | {"HF_ENDPOINT": f"http://127.0.0.1:{closed_port()}"})
    assert offline.code == 0
    (line,) = offline.warnings.splitlines()
    assert_in(line, "gpt2x: warning: ", COMMIT, "no tokenizer", "weights.tokenizer=gpt2", "weights.tokenizer=DIR")
    assert tokenizer_of(launch / "run")["origin"] == "assumed, because it has as many tokens as the model"

    online = gpt2x_process(*of_fine_tune, **env)
    assert (online.code, online.warnings) == (0, "")
    assert hub.of("GET", "model.safetensors") == []
    assert tokenizer_of(launch / "run")["origin"] == "its files are beside the weights"
