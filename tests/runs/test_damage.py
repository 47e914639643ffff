"""A run folder whose files were damaged: one line, or a correct continuation; never a traceback or wrong rows."""

import json
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpt2x.cli.main import main
from gpt2x.runs import journal
from gpt2x.tasks import train
from tests.conftest import Cli, interrupt_at, read_csv

GENERATE = (
    *("task=generate", "decode.num_samples=2", "decode.max_new_tokens=3", "batch_size=1", "decode.logprobs=2"),
    "prompt=[to,or not,that is the question]",  # parts of two samples, of which two are complete
    "hydra.run.dir=out",
)
TRAIN = (
    *("task=train", "model=nano", "task.data=text", "task.steps=4", "task.eval_every=1", "task.batch_size=1"),
    *("model.n_layer=1", "model.n_embd=16", "model.n_head=2", "model.n_positions=16", "model.vocab_size=260"),
    "hydra.run.dir=out",
)
SWEEP = ("-m", "task=generate", "decode.max_new_tokens=2", "seed=1,2", "hydra.sweep.dir=out")
RUNS = {"generate": GENERATE, "train": TRAIN, "sweep": SWEEP}
TABLES = {"generate": ("generations.csv", "tokens.csv"), "train": ("train.csv",), "sweep": ("generations.csv",)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each kind of run a folder: KIND/whole and, stopped half-way, KIND/out. A sweep is whole in both."""
    folder = tmp_path_factory.mktemp("runs")
    stops: dict[str, tuple[Any, str, int]] = {"generate": (journal, "to_csv", 9), "train": (train, "save_state", 3)}
    for kind, args in RUNS.items():
        for name in ("out", "whole"):
            with pytest.MonkeyPatch.context() as patch:
                (folder / kind).mkdir(exist_ok=True)
                patch.chdir(folder / kind)
                Path("text").write_text("to be, or not to be, that is the question. " * 50)
                patch.setattr(
                    "sys.argv", ["gpt2x", *args[:-1], f"hydra.{'sweep' if kind == 'sweep' else 'run'}.dir={name}"]
                )
                if name == "out" and kind in stops:
                    interrupt_at(*stops[kind], patch)
                assert main() == (130 if name == "out" and kind in stops else 0)
    return folder


def truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(3):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def shuffled(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    rng.shuffle(lines)
    return b"\n".join(lines)


def doubled(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    place = rng.randrange(len(lines))
    return b"\n".join([*lines[:place], lines[place], *lines[place:]])


def replaced(content: bytes, rng: random.Random) -> bytes:
    return rng.choice([b"", b"junk", b"{}", b"[]", b"null", b"\xff\xfe", b"\x00" * 100])


DAMAGE = (truncated, flipped, shuffled, doubled, replaced)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", RUNS)
def test_a_damaged_file(
    gpt2x: Cli, launch: Path, runs: Path, kind: str, damage: Callable[[bytes, random.Random], bytes]
) -> None:
    rng = random.Random(f"{kind} {damage.__name__}")
    shutil.copy(runs / kind / "text", launch)
    files = [file for file in (runs / kind / "out").rglob("*") if file.suffix in (".json", ".pt")]
    if damage is not flipped:  # no checksum shows that the text of a row was changed
        files += (runs / kind / "out").rglob("*.csv")
    for file in sorted(files):
        shutil.rmtree(launch / "out", ignore_errors=True)
        shutil.copytree(runs / kind / "out", launch / "out")
        damaged = launch / "out" / file.relative_to(runs / kind / "out")
        damaged.write_bytes(damage(damaged.read_bytes(), rng))
        result = gpt2x(*RUNS[kind])
        assert result.code in ((0, 2, 3) if kind == "sweep" else (0, 2)), (file, result)
        if result.code == 2:
            assert str(damaged.relative_to(launch).parts[0]) in result.error()
        elif result.code == 0:
            for name in TABLES[kind]:
                expected = (runs / kind / "whole" / name).read_bytes()
                assert (launch / "out" / name).read_bytes() == expected, file


@pytest.mark.parametrize("name", TABLES["generate"])
def test_each_row_twice(gpt2x: Cli, launch: Path, runs: Path, name: str) -> None:
    shutil.copytree(runs / "generate" / "out", launch / "out")
    table = launch / "out" / name
    header, rows = table.read_bytes().split(b"\r\n", 1)
    table.write_bytes(header + b"\r\n" + rows + rows)
    assert gpt2x(*GENERATE).code == 0
    assert table.read_bytes() == (runs / "generate" / "whole" / name).read_bytes()


def test_a_row_is_gone_in_the_middle(gpt2x: Cli, launch: Path, runs: Path) -> None:
    """The row is that of a token that was not chosen, in a sample that is otherwise complete."""
    lines = (runs / "generate" / "out" / "tokens.csv").read_bytes().splitlines(keepends=True)
    others = [line for line in lines[: len(lines) // 2] if line.rstrip().split(b",")[-2] == b"False"]
    for line in others[:3]:
        shutil.rmtree(launch / "out", ignore_errors=True)
        shutil.copytree(runs / "generate" / "out", launch / "out")
        (launch / "out" / "tokens.csv").write_bytes(b"".join(each for each in lines if each != line))
        assert gpt2x(*GENERATE).code == 0
        for name in TABLES["generate"]:
            assert (launch / "out" / name).read_bytes() == (runs / "generate" / "whole" / name).read_bytes()


def test_a_weight_with_another_bit(gpt2x: Cli, launch: Path, runs: Path) -> None:
    """torch itself would load it."""
    shutil.copytree(runs / "train" / "out", launch / "out")
    shutil.copy(runs / "train" / "text", launch)
    state = launch / "out" / "state.pt"
    with zipfile.ZipFile(state) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(state.read_bytes())
    content[largest.header_offset + largest.file_size // 2] ^= 1
    state.write_bytes(content)
    assert "out/state.pt: cannot be read" in gpt2x(*TRAIN).error()


@pytest.mark.parametrize("value", [None, 1.5, "x", [], {"a": 1}, 0, -1])
@pytest.mark.parametrize("name", ["job.json", "state.json"])
def test_values_of_another_type(gpt2x: Cli, launch: Path, runs: Path, name: str, value: Any) -> None:
    content = json.loads((runs / "generate" / "out" / name).read_text())
    for key in content:
        shutil.rmtree(launch / "out", ignore_errors=True)
        shutil.copytree(runs / "generate" / "out", launch / "out")
        (launch / "out" / name).write_text(json.dumps(content | {key: value}))
        result = gpt2x(*GENERATE)
        if result.code != 0:
            assert "out" in result.error(), key
        else:
            rows = read_csv(launch / "out" / "generations.csv")
            assert rows == read_csv(runs / "generate" / "whole" / "generations.csv"), key
