"""task=inspect: the tensors of a checkpoint and its architecture, without building a model; writes weights.csv."""

from pathlib import Path

from gpt2x.checkpoints.load import read_weights
from gpt2x.checkpoints.rows import WeightRow
from gpt2x.config.schema import Config
from gpt2x.config.tasks.inspect import InspectTask
from gpt2x.reports.weights import show
from gpt2x.runs.tables import write_rows
from gpt2x.tasks.outcome import WEIGHTS, Outcome


def run(config: Config, task: InspectTask, run_dir: Path) -> Outcome:
    """Reads and checks the weights as every task does. Raises UserError if they cannot be loaded."""
    outcome = Outcome()
    with outcome.timed("read"):
        path, weights = read_weights(config.model, config.weights)
    write_rows(run_dir / WEIGHTS, WeightRow, weights.account.rows)
    outcome.numbers = {"parameters": float(sum(tensor.numel() for tensor in weights.state.values()))}
    show(path, weights)
    return outcome
