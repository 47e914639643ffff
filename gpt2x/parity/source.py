"""Where the subject of a validation comes from, and where its code runs."""

from dataclasses import dataclass

import torch

from gpt2x.checkpoints.load import Checkpoint
from gpt2x.config.subject import SubjectConfig
from gpt2x.parity.process.fork_server import can_fork
from gpt2x.parity.process.remote import RemoteTarget
from gpt2x.parity.reference.record import Record
from gpt2x.parity.subject import import_target
from gpt2x.parity.subject.build import OURS, Maker, build_own, build_user_models
from gpt2x.parity.subject.examined import Examined
from gpt2x.parity.subject.local import LocalSubject


@dataclass(frozen=True)
class Source:
    """Where the subject comes from; it is built once per dtype."""

    asked: SubjectConfig
    target: RemoteTarget | Maker | None
    """None for gpt2x's own model."""

    @property
    def name(self) -> str:
        return self.target.name if self.target is not None else OURS

    @property
    def notes(self) -> list[str]:
        return self.target.notes if self.target is not None else []

    @property
    def copies(self) -> int:
        """The models in the dtype asked for that are in memory beside the checkpoint, the reference's among them.

        To a process of its own, a subject's weights go through memory that both share.
        """
        return 1 if self.target is None else 3 if isinstance(self.target, RemoteTarget) else 2

    def check(self) -> None:
        """Raises UserError if the target cannot be imported."""
        if isinstance(self.target, RemoteTarget):
            self.target.check()

    def close(self) -> str:
        """Ends the process of the subject, if it has one; returns what it has printed."""
        return self.target.close() if isinstance(self.target, RemoteTarget) else ""

    def build(
        self, checkpoint: Checkpoint, record: Record, places: list[tuple[torch.dtype, torch.device]]
    ) -> list[Examined]:
        """One subject per dtype and device. Raises SubjectError or UserError if the user's code fails."""
        target, asked, config = self.target, self.asked, checkpoint.model.config
        if target is None:
            return [LocalSubject(build_own(checkpoint, record.shapes, *place)) for place in places]
        if isinstance(target, RemoteTarget):
            return [*target.build(config, record.parameters, places)]
        weights = record.parameters if asked.weights == "copy" else {}
        subjects = build_user_models(target, asked, config, record.shapes, record.dtype, weights, places)
        return [LocalSubject(subject) for subject in subjects]


def named_target(asked: SubjectConfig) -> RemoteTarget | Maker:
    """What subject.target names, in a process of its own where the platform can fork.

    Raises UserError if it cannot be imported: at once, or from Source.check().
    """
    return RemoteTarget(asked) if can_fork() else import_target(asked)
