"""task=report: one self-contained HTML page about the runs in a folder; writes report.html."""

from pathlib import Path

from gpt2x.config.schema import Config
from gpt2x.config.tasks.report import ReportTask
from gpt2x.paths import write_text
from gpt2x.reports.page.html import render
from gpt2x.reports.page.study import read_study
from gpt2x.reports.report import progress, show
from gpt2x.runs.sweep import folder_of_runs
from gpt2x.tasks.outcome import Outcome


def run(config: Config, task: ReportTask, run_dir: Path) -> Outcome:
    """Writes the page. Raises UserError if the folder does not exist or holds no run."""
    folder = folder_of_runs(task.name, task.runs, config.sweep)
    outcome, page = Outcome(), run_dir / "report.html"
    with outcome.timed("read"), progress("reading the runs"):
        study = read_study(folder)
    with outcome.timed("draw"), progress("drawing the page"):
        write_text(page, render(study))
    show(study, page)
    return outcome
