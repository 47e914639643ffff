"""weights=auto, against a hub on loopback."""

import hashlib
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import Cli, read_csv, run_dir, tiny_hf

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ARGUMENTS = ("task=generate", "weights=auto", "prompt=Hello", "decode=greedy", "decode.max_new_tokens=3")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the hub has: a tiny model with GPT-2's vocabulary."""
    folder = tmp_path_factory.mktemp("hub")
    tiny_hf(vocab_size=50257, eos_token_id=50256, bos_token_id=50256).save_pretrained(folder)
    return folder


@pytest.fixture
def hub(served: Path) -> Iterator[tuple[str, list[str]]]:
    """Address of a server that speaks as much of the hub's protocol as a download needs, and its requests."""
    requests: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            requests.append(f"{self.command} {self.path}")
            prefix = "/openai-community/gpt2/resolve/"
            file = served / self.path.rpartition("/")[2]
            if not self.path.startswith(prefix) or not file.is_file():
                self.send_error(404)
                return
            content = file.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            """Keeps the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()
    server.server_close()


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_auto_downloads_once_and_then_uses_the_cache(
    gpt2x_process: Cli, hub: tuple[str, list[str]], env: dict[str, str], launch: Path
) -> None:
    endpoint, requests = hub
    first = gpt2x_process(*ARGUMENTS, **env, HF_ENDPOINT=endpoint)
    assert first.code == 0, first.err
    assert any(request.startswith("GET") and "model.safetensors" in request for request in requests)
    (row,) = read_csv(run_dir(launch, "generate") / "generations.csv")
    assert row["n_new_tokens"] == "3"
    assert COMMIT in row["weights"]

    shutil.rmtree(launch / "runs")
    offline = gpt2x_process(*ARGUMENTS, **env, HF_ENDPOINT=f"http://127.0.0.1:{closed_port()}")
    assert offline.code == 0, offline.err
    (again,) = read_csv(run_dir(launch, "generate") / "generations.csv")
    assert again == row


def test_local_weights_win_and_the_hub_is_not_asked(
    gpt2x_process: Cli, hub: tuple[str, list[str]], env: dict[str, str], launch: Path, served: Path
) -> None:
    endpoint, requests = hub
    shutil.copytree(served, launch / "data" / "gpt2")
    result = gpt2x_process(*ARGUMENTS, **env, HF_ENDPOINT=endpoint)
    assert result.code == 0, result.err
    assert requests == []


def test_local_never_asks_the_hub(gpt2x_process: Cli, hub: tuple[str, list[str]], env: dict[str, str]) -> None:
    endpoint, requests = hub
    result = gpt2x_process("task=generate", "model=gpt2", **env, HF_ENDPOINT=endpoint)
    assert "weights=auto" in result.error()
    assert requests == []


def test_no_network_says_what_to_put_where(gpt2x_process: Cli, env: dict[str, str], launch: Path) -> None:
    result = gpt2x_process("task=generate", "weights=auto", **env, HF_ENDPOINT=f"http://127.0.0.1:{closed_port()}")
    assert "data/" in result.error()
    assert "weights.path" in result.error()
    assert list(launch.iterdir()) == []


def test_a_hub_that_never_answers_is_given_up(gpt2x_process: Cli, env: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = gpt2x_process("weights=auto", **env, HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "cannot download" in result.error()


def test_a_model_the_hub_lacks_is_an_error(gpt2x_process: Cli, hub: tuple[str, list[str]], env: dict[str, str]) -> None:
    result = gpt2x_process("weights=auto", "model=gpt2-medium", **env, HF_ENDPOINT=hub[0])
    assert "openai-community/gpt2-medium" in result.error()
