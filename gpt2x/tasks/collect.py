"""task=collect: the state of each job of a sweep, or of other runs, and their tables as one. It runs nothing."""

from pathlib import Path

from gpt2x.config.schema import Config
from gpt2x.config.tasks.collect import CollectTask
from gpt2x.errors import UserError
from gpt2x.paths import expanded, shown
from gpt2x.reports.sweep import show_sweep
from gpt2x.runs.collect import collect_sweep, runs_below, write_tables
from gpt2x.runs.job import JOB
from gpt2x.runs.sweep import NAMED, SWEEP
from gpt2x.tasks.outcome import Outcome
from gpt2x.tasks.registry import TABLES


def run(config: Config, task: CollectTask, run_dir: Path) -> Outcome:
    """Writes jobs.csv and the joined tables: into the folder of a sweep, for other runs into the run folder.

    Raises UserError if there is no such folder, or no run in it.
    """
    folder = _folder(config, task)
    is_sweep = (folder / SWEEP).is_file()
    jobs = collect_sweep(folder, TABLES) if is_sweep else runs_below(folder, TABLES, without=run_dir)
    if not jobs:
        raise UserError(f"{shown(folder)}: no run in it: no folder at or below it has a {JOB}")
    if not is_sweep:
        write_tables(run_dir, jobs, TABLES)
    show_sweep(jobs)
    return Outcome(results=folder if is_sweep else run_dir)


def _folder(config: Config, task: CollectTask) -> Path:
    if task.runs is not None:
        folder, setting = expanded(task.runs, "task.runs"), f"task.runs={task.runs}"
    elif config.sweep is not None:
        folder, setting = NAMED / config.sweep, f"sweep={config.sweep}"
    else:
        raise UserError("task=collect: name a sweep with sweep=NAME, or any folder with runs with task.runs=FOLDER")
    if not folder.is_dir():
        raise UserError(f"{setting}: there is no folder {shown(folder)}")
    return folder
