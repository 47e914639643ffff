"""task=collect: the state of each job of a sweep, or of other runs, and their tables as one. It runs nothing."""

from pathlib import Path

from gpt2x.config.schema import Config
from gpt2x.config.tasks.collect import CollectTask
from gpt2x.errors import UserError
from gpt2x.paths import shown
from gpt2x.reports.sweep import show_sweep
from gpt2x.runs.collect import collect_sweep, runs_below, write_tables
from gpt2x.runs.job import JOB
from gpt2x.runs.sweep import SWEEP, folder_of_runs
from gpt2x.tasks.outcome import Outcome
from gpt2x.tasks.registry import TABLES


def run(config: Config, task: CollectTask, run_dir: Path) -> Outcome:
    """Writes jobs.csv and the joined tables: into the folder of a sweep, for other runs into the run folder.

    Raises UserError if there is no such folder, or no run in it.
    """
    folder = folder_of_runs(task.name, task.runs, config.sweep)
    is_sweep = (folder / SWEEP).is_file()
    jobs = collect_sweep(folder, TABLES) if is_sweep else runs_below(folder, TABLES, without=run_dir)
    if not jobs:
        raise UserError(f"{shown(folder)}: no run in it: no folder at or below it has a {JOB}")
    if not is_sweep:
        write_tables(run_dir, jobs, TABLES)
    show_sweep(jobs)
    return Outcome(results=folder if is_sweep else run_dir)
