"""task=evaluate: how well a model predicts given texts; writes evaluation.csv."""

from pathlib import Path

from gpt2x.checkpoints.load import load_checkpoint
from gpt2x.config.schema import Config
from gpt2x.config.tasks.evaluate import EvaluateTask
from gpt2x.device import find_device, find_dtype
from gpt2x.errors import UserError
from gpt2x.evaluation.perplexity import evaluate_texts
from gpt2x.evaluation.rows import EvaluationRow, bits_per_byte, loss
from gpt2x.paths import read_utf8
from gpt2x.prompts import Prompt, read_prompts
from gpt2x.reports.evaluation import progress_bar, show
from gpt2x.runs.tables import write_rows
from gpt2x.tasks.outcome import Outcome


def run(config: Config, task: EvaluateTask, run_dir: Path) -> Outcome:
    """Evaluates each text. Raises UserError if there is none, or one of them is too short."""
    texts = _texts(task.data, config.prompts_file, config.prompt_id)
    device = find_device(config.device.name)
    outcome = Outcome(device=device)
    with outcome.timed("load"):
        checkpoint = load_checkpoint(config.model, config.weights, find_dtype(config.dtype), device)
    outcome.loaded(checkpoint, run_dir)
    with outcome.timed("evaluate"), progress_bar() as on_progress:
        rows = evaluate_texts(checkpoint, texts, task.stride, on_progress)
    write_rows(run_dir / "evaluation.csv", EvaluationRow, rows)
    outcome.numbers = {"bits_per_byte": bits_per_byte(rows), "loss": loss(rows)}
    show(rows)
    return outcome


def _texts(data: str | None, prompts_file: str | None, prompt_id: str | None) -> list[Prompt]:
    if (data is None) == (prompts_file is None):
        raise UserError(
            "task=evaluate: name one text file with task.data=FILE, or several texts with prompts_file=FILE"
        )
    if data is None:
        return read_prompts(None, prompts_file, prompt_id=prompt_id)
    return [Prompt("0", read_utf8(Path(data), "task.data"))]
