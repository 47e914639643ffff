"""How to make the runs of a report again: their commands, and what they ran with."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2x.errors import UserError
from gpt2x.paths import bundled, shown
from gpt2x.reports.page.study import Study
from gpt2x.runs.survey import Run, read_commands
from gpt2x.shell import shell_quoted

MOST_COMMANDS = 50
_MOST_VALUES = 20  # of one fact, such as the machine


@dataclass(frozen=True)
class Command:
    """A command, as bash reads it."""

    line: str
    folder: str
    """The run's or the sweep's."""


@dataclass(frozen=True)
class Fact:
    """What the runs have in common, or in how many of them each value holds."""

    name: str
    values: list[tuple[str, int]]
    """Value and number of runs, the most frequent first."""
    n_more: int
    """Values that are left out."""


@dataclass(frozen=True)
class Reproduction:
    """The section of the page."""

    commands: list[Command]
    n_commands: int
    presets: list[str]
    """Experiments that are not gpt2x's own: their commands also need the file, in ./conf or with --config-dir."""
    facts: list[Fact]


def reproduction_of(study: Study) -> Reproduction:
    """The commands in the order of the runs. A sweep.json that cannot be read is noted."""
    commands = [Command(line, shown(folder)) for line, folder in _lines(study)]
    given = {override for run in study.runs for override in run.job.overrides if override.startswith("experiment=")}
    names = {override.partition("=")[2] for override in given} - {"null"}
    own = {file.stem for file in (bundled("conf") / "experiment").glob("*.yaml")}
    return Reproduction(commands[:MOST_COMMANDS], len(commands), sorted(names - own), facts_of(study.runs))


def _lines(study: Study) -> Iterator[tuple[str, Path]]:
    """Commands with their folders: first those of sweeps, then those of all other runs."""
    swept = set()
    for sweep in study.sweeps:
        try:
            commands = read_commands(sweep)
        except UserError as error:
            study.notes.append(str(error))
            continue
        swept.add(sweep)
        yield from ((command_line(["-m", *overrides]), sweep) for overrides in commands)
    for run in study.runs:
        if run.job.number is None or run.folder.parent not in swept:
            yield command_line(run.job.overrides), run.folder


def command_line(arguments: list[str]) -> str:
    """The command with these arguments, as bash reads it."""
    return " ".join(["python -m gpt2x", *map(shell_quoted, arguments)])


def facts_of(runs: list[Run]) -> list[Fact]:
    """The facts of manifest.json and job.json, by name, in an order for readers."""
    counts: dict[str, Counter[str]] = {}
    for run in runs:
        for name, value in _facts(run):
            counts.setdefault(name, Counter())[value] += 1
    return [
        Fact(name, counter.most_common(_MOST_VALUES), max(0, len(counter) - _MOST_VALUES))
        for name, counter in counts.items()
    ]


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    manifest = run.manifest
    commit, dirty = manifest.get("git_commit"), manifest.get("git_dirty")
    if commit:
        yield "git commit", f"{commit}{', with changes that are not in it' if dirty else ''}"
    versions = _dictionary(manifest.get("versions"))
    if versions:
        yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    checkpoint = _dictionary(manifest.get("checkpoint"))
    if checkpoint:
        yield "checkpoint", str(checkpoint.get("path") or checkpoint.get("weights"))
    for file, digest in _dictionary(checkpoint.get("sha256")).items():
        yield "SHA-256 of the checkpoint", f"{digest}  {file}"
    for name, digests in run.job.identity.inputs.items():
        if name != "weights":
            yield "SHA-256 of input files", f"{', '.join(digests)}  {name}"
    if manifest.get("machine"):
        yield "machine", str(manifest["machine"])
    if manifest.get("device"):
        yield "device", f"{manifest['device']}, threads: {manifest.get('threads')}"
    yield "host", run.job.host


def _dictionary(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
