"""hydra/launcher=submitit_slurm and submitit_local: a sweep as jobs of Slurm, or as processes of this machine.

They replace the launchers of the plugin hydra-submitit-launcher, which end the whole command at the first job that
leaves no result. Here every job is waited for, and what became of a job that was lost is recorded in its run folder.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, fields
from functools import cached_property, partial
from io import StringIO
from types import FrameType
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job
from hydra_plugins.hydra_submitit_launcher import submitit_launcher as plugin
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf, LocalQueueConf
from omegaconf import open_dict

from gpt2x.cli.lost import record_lost
from gpt2x.cli.messages import say
from gpt2x.errors import StoppedError, UserError
from gpt2x.paths import shown
from gpt2x.runs.job import Status

if TYPE_CHECKING:
    import submitit

_POLL_SECONDS = 0.5
_SECONDS_UNTIL_NOTICED = 60
"""A job that was lost is noticed after half the time that passed since the start, but at most after this time."""
_CHECKED_EVERY = 30
"""Seconds between two looks of Slurm's controller at time limits (PERIODIC_TIMEOUT in its source)."""

Call = tuple[list[str], str, int, str, dict[type, Singleton]]
"""The arguments of a launcher's `__call__`: overrides, key of the sweep's folder, number and id of the job, state."""


@dataclass
class LocalQueue(LocalQueueConf):
    """The settings of submitit_local."""

    array_parallelism: int | None = None
    """How many jobs run at the same time; None: as many as the cores suffice for."""


class _Launcher(plugin.BaseSubmititLauncher):
    """What both launchers have in common. `self.params` are the settings under `hydra.launcher`."""

    _not_for_submitit: tuple[str, ...] = ()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Starts all jobs, waits until each has ended, and records those that were lost; the jobs' results.

        Raises UserError if the settings cannot work, or if Slurm refuses the jobs.
        """
        self._check()
        calls = [
            (list(overrides), "hydra.sweep.dir", initial_job_idx + place, "", Singleton.get_state())
            for place, overrides in enumerate(job_overrides)
        ]
        jobs: list[submitit.Job[JobReturn]] = []
        try:
            self._run(calls, jobs)
        except UserError:  # Slurm has refused jobs; those that it has accepted run
            if not jobs:
                self._remove_submission()
            raise
        except KeyboardInterrupt:
            self._cancel([job for job in jobs if not job.done()])
            raise
        return [self._result(job, call) for job, call in zip(jobs, calls, strict=True)]

    def _check(self) -> None:
        """Raises UserError for settings that cannot work."""
        for key in ("nodes", "tasks_per_node"):
            if self.params[key] != 1:
                raise UserError(f"hydra.launcher.{key}={self.params[key]}: a job of gpt2x is one process; set it to 1")

    def _run(self, calls: list[Call], jobs: "list[submitit.Job[JobReturn]]") -> None:
        """Starts the calls, each of which becomes a job, and waits until all jobs have ended."""
        from gpt2x.reports.jobs import jobs_progress

        executor = self._executor()
        running: list[submitit.Job[JobReturn]] = []
        size, at_once = self._array_size(), self._at_once()
        with jobs_progress(len(calls)) as show_ended:
            while running or len(jobs) < len(calls):
                while len(jobs) < len(calls) and len(running) < at_once:
                    sent = self._send(executor, calls[len(jobs) : len(jobs) + size])
                    jobs += sent
                    running += sent
                time.sleep(_POLL_SECONDS)
                running = [job for job in running if not job.done()]
                show_ended(len(jobs) - len(running))

    def _send(self, executor: "submitit.AutoExecutor", calls: list[Call]) -> "list[submitit.Job[JobReturn]]":
        return executor.map_array(self, *zip(*calls, strict=True))

    def _remove_submission(self) -> None:
        """Removes what submitit has written for jobs that were not started, unless earlier jobs use the folder, too."""
        from submitit.core.utils import JobPaths

        folder = JobPaths.get_first_id_independent_folder(self.params["submitit_folder"])
        if not any(each.is_dir() for each in folder.iterdir()):
            shutil.rmtree(folder)

    def _executor(self) -> "submitit.AutoExecutor":
        import submitit

        own = {key: value for key, value in self.params.items() if key not in self._not_for_submitit}
        folder = own.pop("submitit_folder")
        retries = {f"{self._EXECUTOR}_max_num_timeout": own.pop("max_num_timeout", None) or 0}
        executor = submitit.AutoExecutor(folder=folder, cluster=self._EXECUTOR, **retries)
        shared = {field.name for field in fields(BaseQueueConf)}
        executor.update_parameters(**{k if k in shared else f"{self._EXECUTOR}_{k}": v for k, v in own.items()})
        return executor

    def __call__(self, *call: Any) -> JobReturn:
        """Runs one job, in the process that submitit has started for it."""
        import submitit

        threads = self.params["cpus_per_task"]
        if threads is not None:  # torch and numpy would start a thread per core of the machine
            os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        number = signal.Signals[f"SIG{submitit.JobEnvironment.USR_SIG}"]
        signal.signal(number, partial(_stop, signal.getsignal(number), self.params["timeout_min"]))
        return super().__call__(*call)

    def _result(self, job: "submitit.Job[JobReturn]", call: Call) -> JobReturn:
        """What the job returned; if it returned nothing, that is recorded in its run folder."""
        from submitit.core.utils import pickle_load

        if not job.paths.result_pickle.exists():
            return self._record(job, call, f"{self._name} {job.job_id}: {self._end_of(job)}", Status.KILLED)
        outcome, result = pickle_load(job.paths.result_pickle)
        if outcome == "success":
            return result
        last_line = result.strip().rpartition("\n")[2]
        return self._record(job, call, f"{self._name} {job.job_id}: {last_line}", Status.FAILED)

    def _record(self, job: "submitit.Job[JobReturn]", call: Call, reason: str, status: Status) -> JobReturn:
        """Composes the settings of the job as it would have done itself, and writes its job.json."""
        overrides, folder_key, number, *_ = call
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = job.job_id, number
        return run_job(
            hydra_context=self.hydra_context,
            task_function=partial(record_lost, reason, status),
            config=config,
            job_dir_key=folder_key,
            job_subdir_key="hydra.sweep.subdir",
        )


class Slurm(_Launcher):
    """Sends a sweep as one job array, or as several if Slurm does not accept so many jobs in one."""

    _EXECUTOR = "slurm"
    _name = "Slurm job"

    def _check(self) -> None:
        super()._check()
        limit, delay = 60 * self.params["timeout_min"], self.params["signal_delay_s"]
        if delay + _CHECKED_EVERY >= limit:
            raise UserError(
                f"hydra.launcher.signal_delay_s={delay}: jobs would be stopped as soon as they start, as Slurm warns "
                f"them so long before their time limit of {limit} s; use a smaller signal_delay_s or a larger "
                "hydra.launcher.timeout_min"
            )
        if shutil.which("sbatch") is None:
            raise UserError(
                "hydra/launcher=submitit_slurm: there is no command sbatch here; start gpt2x on a machine from which "
                "jobs are sent to Slurm, or use hydra/launcher=submitit_local"
            )
        accounting = subprocess.run(["sacct", "--noheader", "--jobs=1"], capture_output=True, text=True, check=False)
        if accounting.returncode != 0:
            say(f"a job that is killed will be waited for until Ctrl-C, as sacct fails: {accounting.stderr}")

    def _executor(self) -> "submitit.AutoExecutor":
        executor = super()._executor()
        cpus = self.params["cpus_per_task"]
        if cpus is not None:  # since Slurm 22.05, srun does not take it from the job; without it, it has one core
            executor.update_parameters(slurm_srun_args=[f"--cpus-per-task={cpus}"])
        return executor

    def _send(self, executor: "submitit.AutoExecutor", calls: list[Call]) -> "list[submitit.Job[JobReturn]]":
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            with redirect_stderr(StringIO()):  # submitit prints there what it raises
                jobs = super()._send(executor, calls)
        except (FailedJobError, FailedSubmissionError) as error:
            reasons = [line.removeprefix("sbatch: error: ") for line in str(error).splitlines()]
            raise UserError(f"Slurm refuses the jobs: {'; '.join(reasons)}; see conf/hydra/launcher") from None
        number = jobs[0].job_id.partition("_")[0]
        say(f"{len(jobs)} job{'s' if len(jobs) > 1 else ''} sent to Slurm as {number}; Ctrl-C cancels")
        for job in jobs:
            job.watcher = self._watcher
        return jobs

    @cached_property
    def _watcher(self) -> "submitit.core.core.InfoWatcher":
        from gpt2x.cli.slurm_states import States

        return States(_SECONDS_UNTIL_NOTICED)

    def _array_size(self) -> int:
        """How many jobs Slurm accepts in one array: the default is 1001."""
        settings = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=False).stdout
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", settings, re.MULTILINE)
        return int(found[1]) if found else 1001

    def _at_once(self) -> int:
        return sys.maxsize  # Slurm starts them, and keeps to `array_parallelism`

    def _cancel(self, jobs: "list[submitit.Job[JobReturn]]") -> None:
        numbers = list(dict.fromkeys(job.job_id.partition("_")[0] for job in jobs))
        if numbers:
            subprocess.run(["scancel", *numbers], check=False)
            say(f"interrupted; cancelled the jobs {' '.join(numbers)} of Slurm")

    def _end_of(self, job: "submitit.Job[JobReturn]") -> str:
        state = job.state
        kinds = {
            "CANCELLED": "cancelled",
            "TIMEOUT": _at_time_limit(self.params["timeout_min"]),
            "OUT_OF_MEMORY": f"used more than hydra.launcher.mem_gb={self.params['mem_gb']}; set it higher",
            "NODE_FAIL": "its node failed",
        }
        default = f"its process was killed, or could not start: see {shown(job.paths.stderr)}"
        return f"{kinds.get(state.partition(' ')[0], default)} ({state})"


class Local(_Launcher):
    """Starts a process of this machine for each job, as many at the same time as the cores suffice for."""

    _EXECUTOR = "local"
    _name = "process"
    _not_for_submitit = ("array_parallelism",)

    def _check(self) -> None:
        super()._check()
        if self.params["mem_gb"] is not None:
            raise UserError("hydra.launcher.mem_gb: submitit_local cannot limit memory; submitit_slurm can")

    def _array_size(self) -> int:
        return 1

    def _at_once(self) -> int:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.params["array_parallelism"] or max(1, cores // (self.params["cpus_per_task"] or cores))

    def _cancel(self, jobs: "list[submitit.Job[JobReturn]]") -> None:
        for job in jobs:
            job.cancel()

    def _end_of(self, job: "submitit.Job[JobReturn]") -> str:
        return f"killed, or could not start: see {shown(job.paths.stderr)}"


def _stop(requeue: Any, minutes: int, number: int, frame: FrameType | None) -> None:
    """The handler of the signal that a job gets before its time limit, or before it must give way to others.

    submitit's handler puts the job back into the queue and raises SystemExit. The process then ends at once, as if it
    were killed: the job continues in its run folder. If it may not do so again, StoppedError ends the job.
    """
    from submitit.core.utils import UncompletedJobError

    try:
        requeue(number, frame)
    except SystemExit:
        os._exit(1)
    except subprocess.CalledProcessError as error:
        if error.returncode != -signal.SIGTERM:
            raise
        os._exit(1)  # `scontrol requeue` has succeeded: Slurm ends all processes of the job, among them this command's
    except UncompletedJobError:
        raise StoppedError(_at_time_limit(minutes)) from None


def _at_time_limit(minutes: int) -> str:
    return f"reached its time limit of {minutes} min; set hydra.launcher.timeout_min higher"


def register() -> None:
    """Has Hydra start these launchers where a configuration names those of the plugin."""
    plugins, store = Plugins.instance(), ConfigStore.instance()
    for original, ours in ((plugin.LocalLauncher, Local), (plugin.SlurmLauncher, Slurm)):
        plugins.class_name_to_class[f"{original.__module__}.{original.__name__}"] = ours
    if store.repo["schema"]["launcher"].pop("submitit_local.yaml", None) is not None:
        store.store("submitit_local", LocalQueue, group="schema/launcher")
