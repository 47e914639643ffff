"""For each cause the change that mends it: proposed by gpt2x.parity.suggesting.kinds, and verified by trial."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from gpt2x.config.tasks.validate import Stage
from gpt2x.errors import UserError
from gpt2x.parity.checks import Mode
from gpt2x.parity.diagnosis.result import CommonCause
from gpt2x.parity.process.remote import RemoteTarget
from gpt2x.parity.source import Source
from gpt2x.parity.subject import SubjectError
from gpt2x.parity.suggesting.code import Change, Code, Edit, Node, SourceFile
from gpt2x.parity.suggesting.kinds import changes_for
from gpt2x.parity.suggesting.patch import Suggestion, Suggestions, edited
from gpt2x.parity.suggesting.places import Place, Places
from gpt2x.parity.validation import Validation

_MOST = 12  # changes that are tried per cause: each takes a validation
_OF_TRIALS = (Stage.CONFIG, Stage.WEIGHTS, Stage.LAYERS, Stage.LOGITS)

Validate = Callable[[Source, list[Stage]], Validation]
"""Validates another source as the first one was validated."""


def suggest(source: Source, failed: Validation, validate: Validate, *, verify: bool) -> Suggestions:
    """A change for each known cause, where one is found: the first that is proposed, or with `verify` that mends it.

    The user's files are only read. With `verify`, changed texts of them are validated, each in a process of its own.
    """
    target = source.target
    if not isinstance(target, RemoteTarget) or failed.diagnosis is None:
        return Suggestions(tried=verify)
    files: dict[str, SourceFile | None] = {}
    result = Suggestions(tried=verify)
    trial = _Trial(source, failed, validate)
    for order, cause in enumerate(failed.diagnosis.causes, 1):
        if cause.check.stage not in _OF_TRIALS or trial.is_mended(cause):
            continue
        try:
            code = _code(target, cause, failed, files)
        except SubjectError:
            break
        for change in islice(_proposals(changes_for(code), len(cause.sites) > 1), _MOST if verify else 1):
            if not verify or trial.mends(cause, change):
                result.found.append(Suggestion(order, change, verify))
                break
    if result.verified:
        result.after = trial.all_stages()
    return result


class _Trial:
    """Changes that have been accepted, and what is still wrong with them."""

    def __init__(self, source: Source, failed: Validation, validate: Validate) -> None:
        self._source, self._validate = source, validate
        self._stages = failed.stages
        self._edits: Change = ()
        self._wrong = _keys(failed)
        self._last: Validation | None = None

    def is_mended(self, cause: CommonCause) -> bool:
        """Whether a change that was made for another cause has mended it."""
        return _key(cause) not in self._wrong

    def mends(self, cause: CommonCause, change: Change) -> bool:
        """Whether the cause is gone with the change, and nothing else has come; then the change is kept."""
        edits = (*self._edits, *change)
        if _overlap(edits):
            return False
        found = self._validated(edits, [stage for stage in self._stages if stage in _OF_TRIALS])
        if found is None or not _keys(found) <= self._wrong - {_key(cause)}:
            return False
        self._edits, self._wrong, self._last = edits, _keys(found), found
        return True

    def all_stages(self) -> Validation | None:
        """The validation with all changes that have been kept, of which there is at least one."""
        if self._last is not None and self._last.stages == self._stages:
            return self._last
        return self._validated(self._edits, self._stages)

    def _validated(self, edits: Change, stages: list[Stage]) -> Validation | None:
        """None if the changed code cannot be validated."""
        texts = {}
        for file in {edit.file for edit in edits}:
            data = edited(file.data, [edit for edit in edits if edit.file is file])
            texts[str(file.path)] = data.decode("utf-8-sig")
        with closing(RemoteTarget(self._source.asked, texts)) as target:
            try:
                target.check()
                found = self._validate(Source(self._source.asked, target), stages)
            except UserError:
                return None
        return found if found.passed or found.diagnosis is not None else None


def _code(target: RemoteTarget, cause: CommonCause, failed: Validation, files: dict[str, SourceFile | None]) -> Code:
    """The code in which a cause may be. Raises SubjectError if the subject's process has ended."""
    site = cause.check.site if cause.check.stage in (Stage.LAYERS, Stage.WEIGHTS) else ""
    if cause.check.mode is Mode.INPUT:
        site = site.rpartition(".")[0]
    places = target.ask("places", _places, site=site)

    def nodes(found: list[Place]) -> Iterator[Node]:
        for place in found:
            if place.file not in files:
                files[place.file] = _read(place.file)
            file = files[place.file]
            tree = file.find(place) if file is not None else None
            if file is not None and tree is not None:
                yield Node(file, tree)

    own = list(nodes(places.of_module))
    roots = [*own, *nodes(places.around)]
    eps = failed.checkpoint.model.config.layer_norm_epsilon
    return Code(cause.cause, places.own_name, places.parameters, places.names, eps, own, roots)


def _read(file: str) -> SourceFile | None:
    try:
        return SourceFile(Path(file)) if file.endswith(".py") else None
    except (OSError, UnicodeDecodeError, SyntaxError):
        return None


def _places(reply: Mapping[str, Any]) -> Places:
    found = reply["value"]
    names = {str(name): str(own) for name, own in found["names"].items()}
    parameters = {str(name): str(own) for name, own in found["parameters"].items()}
    lists = [[Place(str(p["file"]), str(p["name"]), int(p["line"])) for p in found[key]] for key in _LISTS]
    return Places(str(found["own_name"]), parameters, names, *lists)


_LISTS = ("of_module", "around")


def _proposals(changes: Iterator[Change], several: bool) -> Iterator[Change]:
    """Changes that change something, each once; the same one in all its places before, if there are `several`."""
    found = [change for change in dict.fromkeys(changes) if any(_old(edit) != edit.text for edit in change)]
    alike: dict[tuple[str, str], list[Edit]] = {}
    for change in found:
        if len(change) == 1:
            alike.setdefault((_old(change[0]), change[0].text), []).append(change[0])
    together = [tuple(edits) for edits in alike.values() if len(edits) > 1]
    yield from dict.fromkeys([*together, *found] if several else [*found, *together])


def _old(edit: Edit) -> str:
    return edit.file.data[edit.start : edit.end].decode()


def _keys(found: Validation) -> set[str]:
    return {_key(each) for each in found.diagnosis.causes} if found.diagnosis is not None else set()


def _key(cause: CommonCause) -> str:
    """What makes it the same cause in two validations: the numbers of an unknown one may differ."""
    return f"{', '.join(cause.sites)}: {cause.cause.text}" if cause.cause.known else "unknown"


def _overlap(edits: Change) -> bool:
    ordered = sorted(edits, key=lambda edit: (edit.file.path, edit.start))
    return any(a.file is b.file and a.end > b.start for a, b in pairwise(ordered))
