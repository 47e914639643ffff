"""A subject runs in a process of its own: whatever its code does there, the verdict is right, or there is one line."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from gpt2x.parity.process import fork_server
from tests.conftest import Cli, Result, assert_in, read_csv, run_dir
from tests.parity.conftest import PLAIN

SIZES = ("model.n_layer=2", "model.n_embd=32", "model.n_head=2", "model.n_positions=64")
SMALL = ("model=nano", "weights=random", *SIZES, "decode.max_new_tokens=2")
STAGES = "task.stages=[config,weights,logits]"
START = f"""
import os, sys, time, signal, threading
sys.path.append({str(PLAIN.parent)!r})
import torch
from torch.nn import functional as F
from plain import GPT2
"""
Validated = Callable[..., Result]
FORWARD = """
class Model(GPT2):
    def forward(self, ids):
{code}
        return super().forward(ids)
"""


@pytest.fixture
def validated(gpt2x: Cli, launch: Path) -> Validated:
    """validate with a subject of this code, whose name is Model."""

    def run(code: str, *args: str) -> Result:
        (launch / "mine.py").write_text(START + code)
        result = gpt2x(*SMALL, STAGES, "subject.target=mine.py:Model", *args)
        assert "Traceback" not in result.err, result.err
        return result

    return run


def in_forward(code: str) -> str:
    """A right model whose forward function runs this first."""
    return FORWARD.format(code="\n".join(f"        {line}" for line in code.splitlines()))


ENDINGS = {
    "os._exit": ("os._exit(0)", "ended its process with exit code 0"),
    "a segfault": ("import ctypes\nctypes.string_at(0)", "ended its process by SIGSEGV"),
    "a signal": ("os.kill(os.getpid(), signal.SIGKILL)", "ended its process by SIGKILL"),
    "closed descriptors": ("os.closerange(3, 200)", "ended its process"),
    "a BaseException": ("raise type('Odd', (BaseException,), {})('no')", "Odd: no (mine.py, line"),
    "an interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "recursion": ("sys.setrecursionlimit(60)\n(f := lambda: f())()", "RecursionError"),
}


@pytest.mark.parametrize(("code", "words"), ENDINGS.values(), ids=ENDINGS)
def test_no_answer_is_one_line(validated: Validated, launch: Path, code: str, words: str) -> None:
    line = validated(in_forward(code)).error()
    assert_in(line, "mine.py:Model could not be compared: ", words)
    assert not list(launch.glob("runs/*/*/summary.csv"))


@pytest.mark.parametrize(("code", "words"), ENDINGS.values(), ids=ENDINGS)
def test_no_import_is_one_line(validated: Validated, launch: Path, code: str, words: str) -> None:
    block = "\n".join(f"    {line}" for line in code.splitlines())
    line = validated(f"if True:\n{block}\n    class Model(GPT2): pass\n", "subject.import=whole").error()
    assert_in(line, "subject.target=mine.py:Model", "import", words.partition(" (")[0])
    assert not (launch / "runs").exists()


def test_an_end_in_the_middle_is_a_failed_check(validated: Validated, launch: Path) -> None:
    result = validated(in_forward("self.calls = getattr(self, 'calls', 0) + 1\nif self.calls == 5: os._exit(0)"))
    assert result.code == 1, result.err
    assert "FAIL" in result.out
    rows = read_csv(run_dir(launch, "validate") / "parity.csv")
    (bad,) = [row for row in rows if row["metric"] == "raises"]
    assert_in(bad["note"], "ended its process with exit code 0")


@pytest.mark.parametrize(
    "code", ["while True: time.sleep(0.01)", "signal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass"]
)
def test_an_endless_loop_ends(validated: Validated, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr("gpt2x.parity.process.remote._GRACE", 0.5)
    line = validated(in_forward(code), "subject.answer_seconds=1").error()
    assert_in(line, "mine.py:Model could not be compared: ", "subject.answer_seconds=1")
    if "sleep" in code:
        assert_in(line, "it was at mine.py, line 10: while True: time.sleep(0.01)")


def test_an_endless_import_ends(validated: Validated) -> None:
    line = validated(
        "while True: pass\nclass Model(GPT2): pass\n", "subject.import=whole", "subject.import_seconds=1"
    ).error()
    assert_in(line, "not done after subject.import_seconds=1; it was at mine.py, line 7: while True: pass")


def test_memory_has_a_limit(validated: Validated) -> None:
    line = validated(in_forward("self.kept = torch.empty(1 << 28)"), "subject.memory_gib=1").error()
    assert_in(
        line, "mine.py:Model needs more memory than its process may use, which is 1 GiB; raise subject.memory_gib"
    )


CHEATS = {
    "the reference": """
import transformers
call = transformers.GPT2LMHeadModel.__call__
transformers.GPT2LMHeadModel.__call__ = lambda self, ids: call(self, ids).logits * 1.01
""",
    "torch": "F.layer_norm = lambda x, *more, old=F.layer_norm: old(x, *more) * 1.01\n",
    "torch.equal": "torch.equal = lambda a, b: True\ntorch.Tensor.abs = lambda self: self * 0\n",
    "gpt2x": """
import gpt2x.parity.measures as measures, gpt2x.parity.stages.logits as logits, gpt2x.parity.validation as validation
measures.relative_difference = logits.relative_difference = lambda *args: 0.0
validation.Validation.passed = property(lambda self: True)
""",
}


@pytest.mark.parametrize("code", CHEATS.values(), ids=CHEATS)
def test_a_wrong_model_cannot_change_its_judge(validated: Validated, code: str) -> None:
    body = "class Model(GPT2):\n    def forward(self, ids):\n        return super().forward(ids) * 1.01\n"
    result = validated(body + code, "subject.import=whole")
    assert result.code == 1, result.out
    assert "PASS" not in result.out


HARMLESS = {
    "sys.path": "sys.path.clear()",
    "open": "import builtins\nbuiltins.open = None",
    "print": "import builtins\nbuiltins.print = None",
    "modules": "for name in ('json', 'struct', 'mmap'): sys.modules.pop(name, None)",
    "recursion limit": "sys.setrecursionlimit(200)",
    "a thread": "threading.Thread(target=time.sleep, args=(1000,)).start()",
    "atexit": "import atexit\natexit.register(os.abort)",
    "signal handlers": "for number in (1, 2, 3, 13, 14, 15): signal.signal(number, signal.SIG_IGN)",
    "number of threads": "torch.set_num_threads(1 + torch.get_num_threads())",
    "default dtype": "torch.set_default_dtype(torch.float16)",
    "gradients": "torch.set_grad_enabled(False)",
    "random numbers": "torch.manual_seed(3)",
    "deterministic": "torch.use_deterministic_algorithms(True)",
    "a trace": "sys.settrace(lambda *args: None)",
    "a copy": "os.fork() or os._exit(0)",
    "environment": "os.environ.clear()",
    "the working directory": "os.chdir('/')",
    "closed output": "os.closerange(1, 3)",
    "much output": "print('x' * 100_000)",
}


@pytest.mark.parametrize("code", HARMLESS.values(), ids=HARMLESS)
def test_what_it_does_to_its_process_changes_no_verdict(validated: Validated, code: str) -> None:
    environment, path, folder = dict(os.environ), list(sys.path), Path.cwd()
    result = validated(in_forward(code))
    assert result.code == 0, result.out + result.err
    assert "PASS" in result.out
    assert (dict(os.environ), sys.path, Path.cwd()) == (environment, path, folder)


def test_a_model_on_the_meta_device_is_one_line(validated: Validated) -> None:
    line = validated("def Model(config):\n    with torch.device('meta'):\n        return GPT2(config)\n").error()
    assert_in(line, "mine.py:Model could not be compared: ", "meta")


def test_what_it_prints_comes_apart_from_the_verdict(validated: Validated) -> None:
    code = in_forward("print(*['to stdout'] * 20, sep='\\n')\nos.write(2, b'to stderr\\n')") + "\nprint('at import')\n"
    result = validated(code, "subject.import=whole")
    assert result.code == 0
    assert "to std" not in result.out
    first, *others = result.warnings.splitlines()
    assert "more lines before these" in first
    assert set(others) == {"subject: to stdout", "subject: to stderr"}


def test_a_subject_that_answers_anything_else_is_one_line(validated: Validated) -> None:
    code = "import gpt2x.parity.process.channel as channel\nchannel.json.dumps = lambda value: '[' * 100_000"
    assert_in(validated(in_forward(code)).error(), "answers what gpt2x cannot read")
    code = "import gpt2x.parity.process.channel as channel\nchannel._TENSOR = 'tensor'"
    assert_in(validated(in_forward(code)).error(), "answers what gpt2x cannot read")


def has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_no_process_is_left(launch: Path) -> None:
    """If gpt2x is killed, also one that does not notice, here because another process holds its connection."""
    code = """
import os, subprocess
from gpt2x.parity.process import fork_server
forked = fork_server.Forked()
holder = subprocess.Popen(["sleep", "100"], pass_fds=[forked.connection.fileno()], stdout=subprocess.DEVNULL)
print(fork_server._server.process.pid, holder.pid, flush=True)
os.read(0, 1)
"""
    program = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    server, holder = (psutil.Process(int(pid)) for pid in program.stdout.readline().split())
    while not (forked := server.children()):
        assert server.is_running()
    program.kill()
    program.communicate()
    while not all(map(has_ended, [server, *forked])):
        time.sleep(0.05)
    holder.kill()


def test_the_server_runs_nothing(validated: Validated) -> None:
    """What one subject changes, the next one does not find; the server is started once."""
    assert validated(in_forward("torch.nn.Linear.forward = None")).code == 2
    assert fork_server._server is not None
    before = fork_server._server.process.pid
    assert validated(in_forward("pass")).code == 0
    assert fork_server._server.process.pid == before
    fork_server._server.process.kill()
    fork_server._server.process.wait()
    assert validated(in_forward("pass")).code == 0


def test_a_server_that_cannot_start_is_one_line(validated: Validated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_server, "_server", None)
    monkeypatch.setattr(fork_server, "_PROGRAM", "raise SystemExit('no room for {descriptor}')")
    assert_in(validated(in_forward("pass")).error(), "has no process: the server could not start (no room for ")
