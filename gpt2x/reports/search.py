"""What is shown after a search: the best job, from the job folders alone."""

import shlex

from gpt2x.config.objective import Objective
from gpt2x.reports import console
from gpt2x.runs.collect import swept_settings
from gpt2x.runs.found import Found


def show_best(jobs: list[Found], objective: Objective) -> None:
    """Prints the best job in one line: its number, the settings that differ between jobs, and the name of its folder.

    Prints nothing if no job has computed the number.
    """
    numbers = [(each.job.numbers[objective.name], each) for each in jobs if objective.name in each.job.numbers]
    if not numbers:
        return
    choose = max if objective.maximize else min
    number, best = choose(numbers, key=lambda pair: pair[0])
    swept = swept_settings([each.job for each in jobs if each.job.task])
    settings = [override for override in best.job.overrides if override.partition("=")[0].lstrip("+") in swept]
    console.out.print(f"best {objective.name} {number:.6g}: {shlex.join(settings)} (job {best.name})", soft_wrap=True)
