"""A subject in a process of its own, as gpt2x sees it."""

import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from gpt2x.checkpoints.names import dtype_name
from gpt2x.config.subject import SubjectConfig
from gpt2x.errors import DoesNotFitError, UserError
from gpt2x.memory import available_memory
from gpt2x.model.config import GPT2Config
from gpt2x.parity.process.channel import Channel, ClosedError, UnreadableError
from gpt2x.parity.process.fork_server import Forked, server_error
from gpt2x.parity.subject.code import SubjectError
from gpt2x.parity.subject.constructing.make import FixedSizeError
from gpt2x.parity.subject.examined import UNCHANGED, Changes, Gradient, Parts
from gpt2x.parity.trace import Trace

_GRACE = 5.0  # seconds in which the process can say where it is when its time is up, before it is killed
_ENDING = 10.0  # seconds until a process that has closed its connection has ended
_STARTING = 300.0  # seconds in which the server must have imported torch, which is no fault of the subject
_GIB = 1 << 30
T = TypeVar("T")
Replaced = Mapping[str, Callable[[Tensor], Tensor | None]]
"""Site -> what gives the output of its module."""


class RemoteTarget:
    """What subject.target names, imported in a process of its own, which this object starts and can close."""

    def __init__(self, asked: SubjectConfig, texts: Mapping[str, str] | None = None) -> None:
        """Begins the import; `check` waits for its end. With `texts`, files have other texts than on the disk."""
        self.asked = asked
        self.notes: list[str] = []
        """What the model was made with, and what was left out when the file was imported."""
        limit = int(asked.memory_gib * _GIB) if asked.memory_gib is not None else available_memory()
        self._memory = limit / _GIB
        self._process = Forked()
        self._channel = Channel(self._process.connection)
        self._over: SubjectError | None = None
        self._send(
            {
                "folder": str(Path.cwd()),
                "path": [str(folder) for folder in sys.path],
                "environment": dict(os.environ),
                "threads": torch.get_num_threads(),
                "memory": limit,
            }
        )
        given = {key: value for key, value in vars(asked).items() if key != "import"}
        seconds = asked.import_seconds + _GRACE / 2  # the import ends itself at its limit
        self._send(self._request("load", seconds, asked=given, import_mode=asked.import_mode, texts=dict(texts or {})))
        self._is_loading = True

    @property
    def name(self) -> str:
        return str(self.asked.target)

    def check(self) -> None:
        """Waits until the target is imported. Raises UserError if it cannot be."""
        if self._is_loading:
            self._is_loading = False
            try:
                with self._ending(f"{_STARTING:g} seconds"):
                    self._channel.receive(_STARTING)
                seconds = self.asked.import_seconds
                self._receive(f"subject.import_seconds={seconds:g}", seconds, lambda reply: None)
            except SubjectError as error:
                raise UserError(f"subject.target={self.name}: cannot be imported: it {error}") from error

    def build(
        self,
        config: GPT2Config,
        parameters: Mapping[str, Tensor],
        places: list[tuple[torch.dtype, torch.device]],
    ) -> list["RemoteSubject"]:
        """One subject per dtype and device, with the reference's weights `parameters`, if it is to be given them.

        Raises what gpt2x.parity.subject.build.build_user_models raises.
        """
        self.check()
        shapes = {name: tensor.shape for name, tensor in parameters.items()}
        parts = self.ask(
            "build",
            lambda reply: [_parts(each) for each in reply["value"]],
            config=asdict(config),
            shapes=shapes,
            weights_dtype=dtype_name(next(iter(parameters.values())).dtype),
            weights=parameters if self.asked.weights == "copy" else {},
            places=[(dtype_name(dtype), str(device)) for dtype, device in places],
        )
        return [RemoteSubject(self, number, each, shapes) for number, each in enumerate(parts)]

    def ask(
        self,
        method: str,
        read: Callable[[dict[str, Any]], T],
        replaced: Replaced | None = None,
        **arguments: Any,
    ) -> T:
        """What `read` makes of the reply to a request; any error that it raises means that it cannot be read.

        Raises SubjectError if there is no answer, also if the process has ended; UserError for bad settings.
        """
        self._send(self._request(method, self.asked.answer_seconds, **arguments))
        limit = f"subject.answer_seconds={self.asked.answer_seconds:g}"
        return self._receive(limit, self.asked.answer_seconds, read, replaced or {})

    def close(self) -> str:
        """Ends the process; returns what it has printed, or the end of that."""
        self._over = self._over or SubjectError("has been closed")
        return self._process.close()

    def _request(self, method: str, seconds: float, **arguments: Any) -> dict[str, Any]:
        return {"method": method, "seconds": seconds, "arguments": arguments}

    def _send(self, message: Any) -> None:
        if self._over is not None:
            raise self._over
        with suppress(ClosedError):  # the next receive says how it has ended
            self._channel.send(message)

    def _receive(
        self, limit: str, seconds: float, read: Callable[[dict[str, Any]], T], replaced: Replaced | None = None
    ) -> T:
        until = time.monotonic() + seconds + _GRACE
        while True:
            with self._ending(limit):
                reply = self._channel.receive(until - time.monotonic())
                if "replace" not in reply:
                    break
                answer, x = (replaced or {})[reply["replace"]], _tensor(reply["x"])
            start = time.monotonic()
            self._send(answer(x))
            until += time.monotonic() - start
        with self._ending(limit):
            if "error" not in reply:
                self.notes = [str(note) for note in reply["notes"]]
                return read(reply)
            error = self._error(reply["error"], limit)
        raise error

    @contextmanager
    def _ending(self, limit: str) -> Iterator[None]:
        """Ends the process if it does not answer, or with what is no answer."""
        try:
            yield
        except Exception as error:
            if isinstance(error, ClosedError):
                text = _ending_in_words(self._process.ended(_ENDING))
            elif isinstance(error, TimeoutError):
                text = f"has not answered within {limit}, and its process was ended"
            else:
                text = "answers what gpt2x cannot read, and its process was ended"
            self._process.kill()
            self._over = SubjectError(text)
            raise self._over from error

    def _error(self, found: dict[str, Any], limit: str) -> Exception:
        match found["kind"]:
            case "user":
                return UserError(str(found["text"]))
            case "size":
                own = GPT2Config(**found["own"]) if found["own"] is not None else None
                return FixedSizeError(self.name, own, found["sizes"])
            case "memory":
                return DoesNotFitError(
                    f"{self.name} needs more memory than its process may use, which is {self._memory:.3g} GiB; "
                    "raise subject.memory_gib, or give a smaller model"
                )
            case "time":
                return SubjectError(f"has not answered within {limit}; it was at {found['text']}")
            case _:
                return SubjectError(str(found["text"]))


class RemoteSubject:
    """Answers what the protocol Examined asks, by asking the process."""

    def __init__(self, target: RemoteTarget, number: int, parts: Parts, shapes: Mapping[str, torch.Size]) -> None:
        self._target = target
        self._number = number
        self.parts = parts
        self.shapes = shapes
        self.notes: list[str] = []
        self.changes_input = False

    def seed(self, seed: int) -> None:
        self._ask("seed", lambda value: None, seed=seed)

    def logits(self, input_ids: Tensor, nan_in: str = "") -> Tensor:
        return self._ask("logits", self._logits_for(input_ids), input_ids=input_ids, nan_in=nan_in)

    def trace(self, input_ids: Tensor, sites: Collection[str], changes: Changes = UNCHANGED) -> tuple[Trace, Tensor]:
        logits = self._logits_for(input_ids)

        def read(value: Any) -> tuple[Trace, Tensor]:
            seen = value[0]
            calls = [str(site) for site in seen["calls"]]
            return Trace(_tensors(seen["inputs"]), _tensors(seen["outputs"]), calls), logits(value[1])

        return self._ask("trace", read, changes, input_ids=input_ids, sites=list(sites))

    def isolate(
        self, input_ids: Tensor, inputs: Mapping[str, Tensor], sites: Collection[str], changes: Changes = UNCHANGED
    ) -> dict[str, Tensor]:
        known = {site: inputs[site] for site in sites if site in inputs}
        return self._ask("isolate", _tensors, changes, input_ids=input_ids, inputs=known, sites=list(sites))

    def gradients(self, ids: list[int]) -> dict[str, Gradient] | None:
        def read(value: Any) -> dict[str, Gradient] | None:
            return None if value is None else {name: _gradient(**each) for name, each in value.items()}

        return self._ask("gradients", read, ids=ids)

    def tensors(self) -> dict[str, Tensor]:
        return self._ask("tensors", _tensors)

    def tensor(self, name: str) -> Tensor:
        return self._ask("tensor", _tensor, name=name)

    def _ask(self, method: str, read: Callable[[Any], T], changes: Changes | None = None, **arguments: Any) -> T:
        replaced: Replaced = {}
        if changes is not None:
            replaced = changes.replaced
            arguments["changes"] = vars(changes) | {"replaced": list(replaced)}

        def read_all(reply: dict[str, Any]) -> T:
            self.notes = [str(note) for note in reply["subject_notes"]]
            self.changes_input = bool(reply["changes_input"])
            return read(reply["value"])

        return self._target.ask(method, read_all, replaced, number=self._number, **arguments)

    def _logits_for(self, input_ids: Tensor) -> Callable[[Any], Tensor]:
        expected = (*input_ids.shape, self.shapes["wte.weight"][0])

        def read(value: Any) -> Tensor:
            if _tensor(value).shape != expected or not value.is_floating_point():
                raise UnreadableError
            return _tensor(value)

        return read


def _tensor(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise UnreadableError
    return value


def _tensors(value: Any) -> dict[str, Tensor]:
    return {name: _tensor(each) for name, each in value.items()}


def _gradient(shape: list[int], norm: float, entries: Any) -> Gradient:
    return Gradient(torch.Size(shape), float(norm), _tensor(entries))


def _parts(found: dict[str, Any]) -> Parts:
    shapes = {name: torch.Size(shape) for name, shape in found["parameters"].items()}
    return Parts(
        sites=[str(site) for site in found["sites"]],
        parameters=shapes,
        unexpected=[name for name in found["unexpected"] if name in shapes],
        n_parameters=int(found["n_parameters"]),
        untied_head=bool(found["untied_head"]),
        named_by_structure=[[str(own), str(name)] for own, name in found["named_by_structure"]],
    )


def _ending_in_words(code: int | None) -> str:
    """How a process has ended: `ended its process with exit code 0`, `ended its process by SIGSEGV`."""
    if code is None:
        error = server_error()
        return f"has no process: the server could not start ({error})" if error else "closed its connection to gpt2x"
    if code >= 0:
        return f"ended its process with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", perhaps as memory was short" if -code == signal.SIGKILL else ""
    return f"ended its process by {name}{hint}"
