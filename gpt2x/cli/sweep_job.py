"""One job of a sweep, as the process of the command sees it before and after a launcher runs it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt2x.cli.composition import default_settings
from gpt2x.cli.identity import identity_of, key_of
from gpt2x.cli.overrides import key_of as key_of_override
from gpt2x.config.settings import flatten
from gpt2x.runs.found import Found, look
from gpt2x.runs.job import Identity, Status, differences


@dataclass
class SweepJob:
    """A job that a sweeper has asked for."""

    number: int
    """Hydra's number of the job."""
    overrides: Sequence[str]
    folder: Path
    identity: Identity | None = None
    """None if an interpolation cannot be resolved: the job fails, and says why."""
    chosen: dict[str, Any] = field(default_factory=dict)
    """Key of each override -> its value, apart from options of groups."""
    changed: str | None = None
    """Which input files have changed since the job was done in this folder."""
    tries: int = 0
    """How often this command has started it."""
    found: Found | None = None
    """What was in its folder at the last look, if that is this job."""

    def look(self) -> Found | None:
        """What is in its folder now; None if nothing is there, or another job."""
        self.found = look(self.folder)
        if self.found is not None and not self._is_this(self.found):
            self.found = None
        return self.found

    @property
    def started(self) -> float | None:
        """When it was last started, by any command, at the last look; None if it never was, or nobody can read when."""
        return self.found.job.started if self.found is not None and self.found.job.task else None

    @property
    def outdated(self) -> str | None:
        """Which of its input files or defaults have changed since it was done, at the last look."""
        if self.found is None or self.identity is None or self.found.state is not Status.DONE:
            return None
        return self.changed or self._other_defaults(self.found)

    @property
    def stale(self) -> str | None:
        """Why its results, at the last look, are not those that it would give now: for the code, too."""
        return self.outdated or (self.found.stale if self.found is not None else None)

    def _is_this(self, found: Found) -> bool:
        """Whether a folder that is named by the user holds this job; one that is named by the job's key does."""
        if self.identity is None or not found.job.task or self.changed:
            return True
        return self.folder.name == key_of(self.identity) or not self._differences(found)

    def _differences(self, found: Found) -> list[str]:
        assert self.identity is not None
        recorded = found.job.identity
        if recorded == self.identity:
            return []
        return differences(recorded, self.identity, default_settings(found.job.task))

    def _other_defaults(self, found: Found) -> str | None:
        changed = self._differences(found)
        return f"other default of {', '.join(changed)}" if changed else None


def described(
    settings: dict[str, Any] | None, name: str | None, overrides: Sequence[str], number: int, root: Path
) -> SweepJob:
    """The job with these (nested) settings; `name` is that of its folder, if it is not the job's key."""
    if settings is None:
        return SweepJob(number, overrides, root / str(name))
    identity, flat = identity_of(settings), flatten(settings)
    keys = map(key_of_override, overrides)
    chosen = {key: flat[key] for key in keys if key in flat}
    return SweepJob(number, overrides, root / (name or key_of(identity)), identity, chosen)
