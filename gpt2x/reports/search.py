"""What is shown after a search: the best job, from the job folders alone."""

import shlex

from gpt2x.config.objective import Objective
from gpt2x.reports import console
from gpt2x.runs.collect import swept_settings
from gpt2x.runs.found import Found
from gpt2x.runs.job import Status


def best_of(jobs: list[Found], objective: Objective) -> Found | None:
    """The best of the jobs that are done and not replaced; None if none of them has computed the number."""
    done = [each for each in jobs if each.state is Status.DONE and not each.is_replaced]
    found = [each for each in done if objective.name in each.job.numbers]
    choose = max if objective.maximize else min
    return choose(found, key=lambda each: each.job.numbers[objective.name], default=None)


def show_best(jobs: list[Found], objective: Objective) -> None:
    """Prints the best job in one line: its number, the settings that differ between jobs, and the name of its folder.

    Prints nothing if there is none.
    """
    best = best_of(jobs, objective)
    if best is None:
        return
    swept = swept_settings([each.job for each in jobs if each.job.task])
    settings = shlex.join(each for each in best.job.overrides if each.partition("=")[0].lstrip("+") in swept)
    number = f"{objective.name} {best.job.numbers[objective.name]:.6g}"
    console.out.print(f"best {number}{settings and f': {settings}'} (job {best.name})", soft_wrap=True)
