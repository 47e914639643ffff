"""manifest.json: the commit that a result comes from, and whether the code was changed since."""

import shutil
import subprocess
from pathlib import Path

import pytest

from gpt2x.runs import manifest

GIT = ("git", "-c", "user.name=A", "-c", "user.email=a@example.org")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, which gpt2x takes for its own."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    module = tmp_path / "gpt2x" / "runs" / "manifest.py"
    module.parent.mkdir(parents=True)
    module.write_text("code")
    for command in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "one")):
        subprocess.run([*GIT, *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(manifest, "__file__", str(module))
    return module


def facts() -> tuple[object, object]:
    manifest._git.cache_clear()
    found = manifest.environment()
    manifest._git.cache_clear()
    return found["git_commit"], found["git_dirty"]


def test_a_tree_that_was_changed_is_called_dirty(checkout: Path) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout.parent, capture_output=True, text=True, check=True)
    commit = head.stdout.strip()
    assert facts() == (commit, False)
    (checkout.parent / "notes.txt").write_text("no part of the code")
    assert facts() == (commit, False)
    checkout.write_text("other code")
    assert facts() == (commit, True)


def test_outside_a_checkout_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "__file__", str(tmp_path / "gpt2x" / "runs" / "manifest.py"))
    assert facts() == (None, None)
    (tmp_path / ".git").mkdir()  # not a repository
    assert facts() == (None, None)
