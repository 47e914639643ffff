"""Reads damaged and hostile checkpoints: each is loaded, or refused in one line, soon and in little memory.

    python -m tests.fuzz_checkpoints [CASES] [SEED]

A case is a small valid checkpoint of one format, of which one file is changed: cut short, bytes replaced, numbers
replaced by extreme ones, parts repeated or left out, values of a JSON file replaced, the file replaced by a folder, a
link to itself or a FIFO. It is read in a fork of this process with a limit of time and memory. The number of a case
gives the same case again. pytest does not collect this file; tests/checkpoints/test_fuzz.py runs a small form of it.
"""

import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from safetensors.torch import save_file

from gpt2x.checkpoints.load import load_checkpoint
from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.errors import UserError
from gpt2x.tokenizer import train_tokenizer
from tests.checkpoints import writers
from tests.conftest import tiny_hf

SECONDS = 10
_MEMORY = 1 << 30  # bytes, beyond what this process has
_LONGEST = 1000  # characters of a refusal
_LOADED, _REFUSED, _WRONG = 0, 3, 4

Random = random.Random
EXTREMES = (0, 1, -1, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**64 - 1)
VALUES: tuple[Any, ...] = (None, True, "", "\x1b[2J", "x" * 10**5, [], {}, [[]] * 1000, -1, 0, 1.5, 1e308, *EXTREMES)


# The valid checkpoints: each writes into an empty folder and returns the path to read.


def _hugging_face(folder: Path, hf: Any) -> Path:
    hf.save_pretrained(folder)
    return folder


def _shards(folder: Path, hf: Any) -> Path:
    hf.save_pretrained(folder, max_shard_size="60KB")
    return folder


def _safetensors(folder: Path, hf: Any) -> Path:
    save_file({name: tensor.clone() for name, tensor in hf.state_dict().items()}, folder / "model.safetensors")
    return folder / "model.safetensors"


def _pickle(folder: Path, hf: Any) -> Path:
    torch.save(hf.state_dict(), folder / "model.pt")
    return folder / "model.pt"


def _old_pickle(folder: Path, hf: Any) -> Path:
    torch.save(hf.state_dict(), folder / "model.pt", _use_new_zipfile_serialization=False)
    return folder / "model.pt"


def _nanogpt(folder: Path, hf: Any) -> Path:
    config = hf.config
    args = {"n_layer": config.n_layer, "n_head": config.n_head, "n_embd": config.n_embd, "bias": True}
    args |= {"block_size": config.n_positions, "vocab_size": config.vocab_size, "dropout": 0.0}
    state = writers.as_linear(writers.parameters(hf))
    state = {f"_orig_mod.transformer.{name}": tensor for name, tensor in state.items()}
    torch.save({"model": state, "model_args": args, "iter_num": 7}, folder / "ckpt.pt")
    return folder / "ckpt.pt"


def _adapter(folder: Path, hf: Any) -> Path:
    hf.save_pretrained(folder / "base")
    (folder / "adapter").mkdir()
    factors = {}
    for i in range(hf.config.n_layer):
        name, C = f"base_model.model.transformer.h.{i}.attn.c_attn", hf.config.n_embd
        factors |= {f"{name}.lora_A.weight": torch.ones(4, C), f"{name}.lora_B.weight": torch.ones(3 * C, 4)}
    save_file(factors, folder / "adapter" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "../base"}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config | {"fan_in_fan_out": True}))
    return folder / "adapter"


def _written(name: str, write: Callable[[Path, Any], None]) -> Callable[[Path, Any], Path]:
    def make(folder: Path, hf: Any) -> Path:
        write(folder / name, hf)
        return folder / name

    return make


CHECKPOINTS: dict[str, Callable[[Path, Any], Path]] = {
    "hf": _hugging_face,
    "hf shards": _shards,
    "safetensors": _safetensors,
    "pickle": _pickle,
    "old pickle": _old_pickle,
    "nanogpt": _nanogpt,
    "adapter": _adapter,
    "llm.c": _written("model.bin", writers.write_llmc),
    "gguf": _written("model.gguf", lambda file, hf: writers.write_gguf(file, hf, "F32")),
    "gguf q8_0": _written("model.gguf", lambda file, hf: writers.write_gguf(file, hf, "Q8_0")),
    "flax": _written("flax_model.msgpack", writers.write_flax),
    "keras": _written("tf_model.h5", writers.write_keras),
    "openai": _written("model.ckpt.index", lambda file, hf: writers.write_openai(file.parent, hf)),
}


# The changes: each returns the new bytes of a file, or None where it has replaced the file itself.


def _cut(content: bytearray, draw: Random) -> bytearray:
    return content[: draw.choice((draw.randrange(len(content)), draw.randrange(min(len(content), 600))))]


def _bytes(content: bytearray, draw: Random) -> bytearray:
    for _ in range(draw.choice((1, 1, 4, 16))):
        content[_place(content, draw, 1)] = draw.randrange(256)
    return content


def _number(content: bytearray, draw: Random) -> bytearray:
    width = draw.choice((4, 8))
    value = draw.choice(EXTREMES) % 2 ** (8 * width)
    place = _place(content, draw, width)
    content[place : place + width] = struct.pack(draw.choice("<>") + ("I" if width == 4 else "Q"), value)
    return content


def _repeated(content: bytearray, draw: Random) -> bytearray:
    place, length = _place(content, draw, 1), draw.choice((1, 8, 100, 5000))
    return content[:place] + content[place : place + length] * draw.choice((0, 2, 50)) + content[place + length :]


def _digits(content: bytearray, draw: Random) -> bytearray:
    """Replaces a number that is written in digits, in JSON or in the header of safetensors."""
    places = [i for i, byte in enumerate(content[:20000]) if 48 <= byte <= 57]
    if not places:
        return _number(content, draw)
    place = draw.choice(places)
    return content[:place] + str(draw.choice(EXTREMES)).encode() + content[place + 1 :]


def _json(content: bytearray, draw: Random) -> bytearray:
    """Replaces one value of a JSON file, or the key of one."""
    try:
        whole = json.loads(content)
    except ValueError:
        return _digits(content, draw)
    inner = whole
    while isinstance(inner, dict) and inner:
        key = draw.choice(list(inner))
        if isinstance(inner[key], dict) and inner[key] and draw.random() < 0.8:
            inner = inner[key]
            continue
        if draw.random() < 0.3:
            inner[draw.choice(("", "../../x", "\x1b", "h.99999999.ln_1.weight", "x" * 5000))] = inner.pop(key)
        else:
            inner[key] = draw.choice((*VALUES, "../../../etc/passwd", "/dev/zero"))
        break
    return bytearray(json.dumps(whole).encode())


def _place(content: bytearray, draw: Random, width: int) -> int:
    """A place in the content, mostly near its begin or end, where formats keep what they say about themselves."""
    last = max(0, len(content) - width)
    near = (draw.randint(0, min(last, 64)), draw.randint(0, min(last, 2000)), draw.randint(max(0, last - 2000), last))
    return draw.choice((*near, draw.randint(0, last)))


def _folder(file: Path) -> None:
    file.mkdir()


def _link(file: Path) -> None:
    file.symlink_to(file.name)


def _fifo(file: Path) -> None:
    os.mkfifo(file)


def _zeros(file: Path) -> None:
    file.symlink_to("/dev/zero")


CHANGES = (_cut, _bytes, _bytes, _number, _number, _repeated, _digits, _json, _json)
REPLACEMENTS = (_folder, _link, _fifo, _zeros, Path.touch, lambda file: None)


def damage(folder: Path, draw: Random) -> str:
    """Changes one file of a checkpoint; returns what was done."""
    file = draw.choice(sorted(file for file in folder.rglob("*") if file.is_file()))
    if draw.random() < 0.05:
        file.unlink()
        replace = draw.choice(REPLACEMENTS)
        replace(file)
        return f"{file.name} replaced ({replace.__name__})"
    change = draw.choice(CHANGES)
    content = bytearray(file.read_bytes())
    file.write_bytes(change(content, draw) if content else b"\0")
    return f"{file.name} changed ({change.__name__})"


def read(path: Path, output: int) -> NoReturn:
    """Loads the checkpoint in this process, a fork, and ends it; writes what is wrong to `output`."""
    code = _WRONG
    try:
        for stream in (1, 2):
            os.dup2(output, stream)
        own = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (own + _MEMORY, own + _MEMORY))
        signal.alarm(SECONDS)
        try:
            load_checkpoint(
                ModelConfig(name="auto"), WeightsConfig("local", path=str(path)), torch.float32, torch.device("cpu")
            )
            code = _LOADED
        except UserError as error:
            line = str(error)
            code = _REFUSED if line.isprintable() and len(line) <= _LONGEST else _WRONG
            if code == _WRONG:
                print(f"not a short line of text: {len(line)} characters, {ascii(line)[:300]}", flush=True)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def run_case(number: int, seeds: dict[str, tuple[Path, Path]], scratch: Path) -> tuple[str, str]:
    """How a case ended (loaded, refused or wrong), and what it was; `seeds` are folders with the path to read."""
    draw = Random(number)
    name = draw.choice(list(seeds))
    whole, path = seeds[name]
    folder = scratch / "case"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    what = f"case {number}: {name}, {damage(folder, draw)}"
    with tempfile.TemporaryFile() as output:
        process = os.fork()
        if process == 0:
            read(folder / path, output.fileno())
        _, status = os.waitpid(process, 0)
        output.seek(0)
        said = output.read().decode(errors="replace").strip()
    code = os.waitstatus_to_exitcode(status)
    if code in (_LOADED, _REFUSED):
        return ("loaded" if code == _LOADED else "refused"), what
    ending = f"ended by {signal.Signals(-code).name}" if code < 0 else said[-1500:]
    return "wrong", f"{what}: {ending}"


def fuzz(cases: range, scratch: Path) -> tuple[Counter[str], list[str]]:
    """Counts of how the cases ended, and what was wrong."""
    hf, seeds = tiny_hf(bos_token_id=0, eos_token_id=0), {}
    tokenizer = train_tokenizer(" ".join(f"line {i}: to be, or not to be {i * i}.\n" for i in range(200)), 300)
    for name, make in CHECKPOINTS.items():
        folder = scratch / name
        folder.mkdir()
        path = make(folder, hf)
        tokenizer.save(folder / "base" if name == "adapter" else path if path.is_dir() else folder)
        if path.is_file():
            hf.config.save_pretrained(folder)
        seeds[name] = (folder, path.relative_to(folder))
    counts: Counter[str] = Counter()
    wrong = []
    for number in cases:
        ending, what = run_case(number, seeds, scratch)
        counts[ending] += 1
        if ending == "wrong":
            wrong.append(what)
            print(what, flush=True)
    return counts, wrong


def main() -> None:
    n, seed = (*map(int, sys.argv[1:3]), 10_000, 0)[:2] if len(sys.argv) != 2 else (int(sys.argv[1]), 0)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        counts, wrong = fuzz(range(seed, seed + n), Path(scratch))
    print(f"{n} cases in {time.monotonic() - start:.0f} s: {dict(counts)}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
