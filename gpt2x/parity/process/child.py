"""What runs in the process of a subject: it imports and builds the model, and answers for it."""

import os
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NoReturn

import torch
from torch import Tensor

from gpt2x.config.subject import SubjectConfig
from gpt2x.errors import UserError
from gpt2x.memory import is_out_of_memory
from gpt2x.model.config import GPT2Config
from gpt2x.parity.process.channel import Channel, ClosedError
from gpt2x.parity.subject.build import build_user_models
from gpt2x.parity.subject.code import SubjectError, TimeIsUpError, in_one_line
from gpt2x.parity.subject.constructing.make import FixedSizeError
from gpt2x.parity.subject.examined import Changes
from gpt2x.parity.subject.importing.confined import running, time_limit
from gpt2x.parity.subject.importing.text import try_texts
from gpt2x.parity.subject.local import LocalSubject
from gpt2x.parity.subject.target import Target, import_target
from gpt2x.parity.suggesting.places import places_of


def serve(connection: socket.socket) -> NoReturn:
    """Answers requests until gpt2x closes the connection. It ends without what the subject has left to be done."""
    channel = Channel(connection)
    try:
        _be_like(**channel.receive())
        channel.send("ready")
        host, own = _Host(channel), os.getpid()
        while True:
            request = channel.receive()
            reply = _reply(host, request)
            if os.getpid() != own:  # the subject has forked, and its copy has come back from the call
                break
            channel.send(reply)
    except ClosedError:
        pass
    os._exit(0)


def _be_like(folder: str, path: list[str], environment: dict[str, str], threads: int, memory: int | None) -> None:
    """Makes this process like that of gpt2x, with its limit of memory in bytes."""
    os.chdir(folder)
    sys.path[:] = path
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)
    torch.set_num_threads(threads)
    if memory is not None:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _reply(host: "_Host", request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request, or why there is none."""
    try:
        with time_limit(request["seconds"]):
            value = host.methods[request["method"]](**request["arguments"])
        return {"value": value} | host.state(request["arguments"].get("number"))
    except BaseException as error:
        if isinstance(error, ClosedError):
            raise
        return {"error": _described(error)}


def _described(error: BaseException) -> dict[str, Any]:
    """The kind of an error, its text, and what belongs to it. It must not fail, whatever the subject has changed."""
    try:
        if is_out_of_memory(error):
            return {"kind": "memory"}
        if isinstance(error, TimeIsUpError):
            return {"kind": "time", "text": running(error)}
        if isinstance(error, FixedSizeError):
            return {"kind": "size", "own": asdict(error.own) if error.own else None, "sizes": error.sizes}
        if isinstance(error, UserError):
            return {"kind": "user", "text": str(error)}
        return {"kind": "subject", "text": str(error) if isinstance(error, SubjectError) else in_one_line(error)}
    except BaseException:
        return {"kind": "subject", "text": f"{type(error).__name__}, of which nothing more can be said"}


class _Host:
    """The subject: one model per dtype, by number."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._target: Target | None = None
        self._subjects: list[LocalSubject] = []
        self.methods: dict[str, Callable[..., Any]] = {
            "load": self._load,
            "build": self._build,
            **{name: self._asked(name) for name in ("seed", "logits", "trace", "isolate", "tensors", "tensor")},
            "gradients": self._gradients,
            "places": self._places,
        }

    def state(self, number: int | None) -> dict[str, Any]:
        """What may change with every answer."""
        found: dict[str, Any] = {"notes": self._target.notes if self._target is not None else []}
        if number is not None:
            subject = self._subjects[number]
            found |= {"subject_notes": subject.notes, "changes_input": subject.changes_input}
        return found

    def _load(self, asked: dict[str, Any], import_mode: str, texts: dict[str, str]) -> None:
        """Imports the target, with these texts in the place of those of some files."""
        try_texts(texts)
        config = SubjectConfig(**asked)
        setattr(config, "import", import_mode)
        self._target = import_target(config)

    def _build(
        self,
        config: dict[str, Any],
        shapes: dict[str, list[int]],
        weights_dtype: str,
        weights: dict[str, Tensor],
        places: list[list[str]],
    ) -> list[dict[str, Any]]:
        """Builds one model per place, [dtype, device]. `weights` are the reference's, if it is to be given them."""
        assert self._target is not None
        subjects = build_user_models(
            self._target,
            self._target.asked,
            GPT2Config(**config),
            {name: torch.Size(shape) for name, shape in shapes.items()},
            getattr(torch, weights_dtype),
            weights,
            [(getattr(torch, dtype), torch.device(device)) for dtype, device in places],
        )
        self._subjects = [LocalSubject(subject) for subject in subjects]
        return [asdict(subject.parts) for subject in self._subjects]

    def _asked(self, name: str) -> Callable[..., Any]:
        def ask(number: int, changes: dict[str, Any] | None = None, **arguments: Any) -> Any:
            if changes is not None:
                replaced = {site: self._elsewhere(site) for site in changes.pop("replaced")}
                arguments["changes"] = Changes(**changes, replaced=replaced)
            found = getattr(self._subjects[number], name)(**arguments)
            return [vars(found[0]), found[1]] if name == "trace" else found

        return ask

    def _gradients(self, number: int, ids: list[int]) -> dict[str, Any] | None:
        found = self._subjects[number].gradients(ids)
        return None if found is None else {name: vars(each) for name, each in found.items()}

    def _places(self, site: str) -> dict[str, Any]:
        assert self._target is not None
        return asdict(places_of(site, self._subjects[0], self._target))

    def _elsewhere(self, site: str) -> Callable[[Tensor], Tensor | None]:
        """A function that has gpt2x compute what a module should answer."""

        def ask(x: Tensor) -> Tensor | None:
            self._channel.send({"replace": site, "x": x})
            answer: Tensor | None = self._channel.receive()
            return answer

        return ask
