"""A Hugging Face hub on loopback: as much of its protocol as a download needs.

    python -m tests.checkpoints.loopback_hub FOLDER SECONDS_PER_BLOCK

serves FOLDER/OWNER/NAME/... in a process of its own, and prints its address.
"""

import hashlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_BLOCK = 1 << 16


@dataclass
class Hub:
    """A hub that is served, and what tests do to it."""

    folder: Path
    """Its repositories, as OWNER/NAME/FILE."""
    seconds_per_block: float = 0.0
    """How long it waits after each 64 KiB."""
    commit: str = COMMIT
    requests: list[str] = field(default_factory=list)
    """Method, path and range of each request."""
    tokens: set[str | None] = field(default_factory=set)
    """The tokens that requests for repositories had. The host of the contents must not get them."""
    gated: str | None = None
    """A token without which the hub refuses."""
    cut_after: dict[str, int] = field(default_factory=dict)
    """File -> bytes after which its first answer ends."""
    spoiled: set[str] = field(default_factory=set)
    """Files whose content is not the one that the hub states."""
    stated: dict[str, str] = field(default_factory=dict)
    """File -> what the hub states as its name in git, if that is not true."""
    address: str = ""
    content_address: str = ""

    def of(self, *words: str) -> list[str]:
        """The requests in which all these words are."""
        return [request for request in self.requests if all(word in request for word in words)]


def is_lfs(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serves the hub, and files in LFS from another address, as huggingface.co does."""

    class Handler(BaseHTTPRequestHandler):
        is_content = False

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = urlsplit(self.path).path
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            hub.requests.append(f"{self.command} {path} {start}")
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
            if self.is_content:
                assert token is None, "a token was sent to another host"
                self.send_file(hub.folder / path.lstrip("/"), start, body)
                return
            parts = path.strip("/").split("/")
            is_api = parts[:2] == ["api", "models"]
            owner, name, *rest = parts[2:] if is_api else parts
            folder, revision = hub.folder / owner / name, rest[1] if rest else "main"
            if not folder.is_dir():
                self.refuse(401 if token is None else 404, "RepoNotFound")
                return
            hub.tokens.add(token)
            if hub.gated is not None and token != hub.gated:
                self.refuse(403, "GatedRepo")
            elif revision not in ("main", hub.commit):
                self.refuse(404, "RevisionNotFound")
            elif is_api:
                content = json.dumps(self.described(owner, name)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(content)
            elif not (folder / rest[2]).is_file():
                self.refuse(404, "EntryNotFound")
            elif is_lfs(rest[2]):
                self.send_response(302)
                self.send_header("Location", f"{hub.content_address}/{owner}/{name}/{rest[2]}")
                self.send_header("X-Linked-Size", str((folder / rest[2]).stat().st_size))
                self.send_header("X-Linked-ETag", f'"{sha256(folder / rest[2])}"')
                self.send_header("X-Repo-Commit", hub.commit)
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self.send_file(folder / rest[2], start, body)

        def described(self, owner: str, name: str) -> dict[str, Any]:
            siblings = []
            for file in sorted((hub.folder / owner / name).iterdir()):
                each: dict[str, Any] = {"rfilename": file.name, "size": file.stat().st_size}
                each["blobId"] = hub.stated.get(file.name, blob_id(file))
                if is_lfs(file.name):
                    each["lfs"] = {"size": file.stat().st_size, "sha256": sha256(file), "pointerSize": 134}
                siblings.append(each)
            return {"id": f"{owner}/{name}", "modelId": f"{owner}/{name}", "sha": hub.commit, "siblings": siblings}

        def refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send_file(self, file: Path, start: int, body: bool) -> None:
            content = file.read_bytes()
            if file.name in hub.spoiled:
                content = content[::-1]
            etag = sha256(file) if is_lfs(file.name) else blob_id(file)
            rest = content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(rest)))
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", hub.commit)
            self.end_headers()
            if not body:
                return
            end = hub.cut_after.pop(file.name, len(rest))
            for at in range(0, min(end, len(rest)), _BLOCK):
                self.wfile.write(rest[at : min(at + _BLOCK, end)])
                time.sleep(hub.seconds_per_block)
            if end < len(rest):
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            """Keeps the output clean."""

    class Content(Handler):
        is_content = True

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args: object) -> None:
            """A client that was killed is no error."""

    with Server(("127.0.0.1", 0), Handler) as hub_server, Server(("127.0.0.1", 0), Content) as content_server:
        for server in (hub_server, content_server):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        hub.address = f"http://127.0.0.1:{hub_server.server_port}"
        hub.content_address = f"http://localhost:{content_server.server_port}"
        yield hub
        hub_server.shutdown()
        content_server.shutdown()


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def blob_id(file: Path) -> str:
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


if __name__ == "__main__":
    with serve(Hub(Path(sys.argv[1]), float(sys.argv[2]))) as served:
        print(served.address, flush=True)
        sys.stdin.read()  # until its reader ends
