"""What is shown after a search: the best job, from the job folders alone."""

import shlex
from pathlib import Path

from gpt2x.config.objective import Objective
from gpt2x.reports import console
from gpt2x.runs.job import Job
from gpt2x.runs.sweep import swept_settings


def show_best(jobs: list[tuple[Path, Job]], objective: Objective) -> None:
    """Prints the best job in one line: its number, the settings that differ between jobs, and the name of its folder.

    Prints nothing if no job has computed the number.
    """
    numbers = [(job.numbers[objective.name], folder, job) for folder, job in jobs if objective.name in job.numbers]
    if not numbers:
        return
    choose = max if objective.maximize else min
    number, folder, best = choose(numbers, key=lambda each: each[0])
    swept = swept_settings([job for _, job in jobs if job.task])
    settings = [override for override in best.overrides if override.partition("=")[0].lstrip("+") in swept]
    console.out.print(f"best {objective.name} {number:.6g}: {shlex.join(settings)} (job {folder.name})", soft_wrap=True)
