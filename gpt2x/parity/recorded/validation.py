"""validate_recording(): what validate() is for models, for a file of what another program has answered."""

from collections.abc import Callable, Collection

from gpt2x.checkpoints.load import Checkpoint
from gpt2x.config.tasks.validate import Stage
from gpt2x.errors import UserError
from gpt2x.parity.checks import Check
from gpt2x.parity.record_source import OracleRecord, SavedRecord
from gpt2x.parity.recorded.comparison import RecordedComparison
from gpt2x.parity.recorded.diagnosis import diagnose_recording
from gpt2x.parity.recorded.recording import Recording
from gpt2x.parity.validation import Validation, timed


def validate_recording(
    checkpoint: Checkpoint,
    recording: Recording,
    reference: OracleRecord | SavedRecord,
    *,
    stages: Collection[Stage] = tuple(Stage),
    progress: Callable[[str], None] = lambda step: None,
) -> Validation:
    """Compares a recording with the reference on the checkpoint's weights and the recording's ids.

    Raises UserError if the recording is not of a model of this architecture, or of other ids than a saved reference.
    """
    chosen = [stage for stage in Stage if stage in stages]
    if not {Stage.LAYERS, Stage.LOGITS} & set(chosen):
        raise UserError("task.stages: of a recording, only the stages layers and logits can be compared; add logits")
    recording.check_fits(checkpoint.model.config, checkpoint.dtype)
    seconds: dict[str, float] = {}
    with timed("reference", seconds):
        progress("asking the reference")
        record = reference.get(checkpoint, [Stage.LOGITS], copies=1)
    recording.check_is_of(record)
    comparison = RecordedComparison(recording, record)
    checks: list[Check] = []
    with timed("compare", seconds):
        for stage in chosen:
            progress(f"comparing {stage}")
            checks += comparison.run(stage)
    diagnosis = None
    if any(check.bad for check in checks):
        progress("looking for the cause")
        with timed("diagnose", seconds):
            diagnosis = diagnose_recording(comparison, checks)
    return Validation(
        subject=recording.name,
        notes=[],
        checkpoint=checkpoint,
        dtype=recording.dtype,
        exact=recording.dtype,
        stages=chosen,
        record=record,
        n_parameters=0,
        checks=checks,
        side_by_side=[],
        diagnosis=diagnosis,
        seconds=seconds,
    )
