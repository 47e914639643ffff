"""The tables that tasks write."""

from gpt2x.benchmark.rows import BenchmarkRow
from gpt2x.decoding.rows import GenerationRow, TokenRow
from gpt2x.parity.rows import ParityRow, SideBySideRow, SummaryRow
from gpt2x.runs.tables import TimingRow
from gpt2x.training.rows import TrainRow

TABLES = {
    "generations.csv": GenerationRow,
    "tokens.csv": TokenRow,
    "summary.csv": SummaryRow,
    "parity.csv": ParityRow,
    "side_by_side.csv": SideBySideRow,
    "train.csv": TrainRow,
    "benchmark.csv": BenchmarkRow,
    "timing.csv": TimingRow,
}
