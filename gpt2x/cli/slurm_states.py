"""The states of Slurm's jobs, as its accounting has them."""

import subprocess

from submitit.slurm.slurm import SlurmInfoWatcher

_LIST_JOBS = ("squeue", "--me", "--array", "--noheader", "--format=%i")


class States(SlurmInfoWatcher):
    """Asks sacct for the states of all jobs at once, and keeps the answer for some seconds."""

    def __init__(self, delay_s: int = 60) -> None:
        super().__init__(delay_s)
        self._missing: set[str] = set()
        """Jobs that Slurm knew nothing of when it was asked last."""

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        """Job -> what sacct says of it, from the output of sacct.

        The record of those jobs of an array that have not begun, such as `13_[0-3%3]`, may keep the numbers of jobs
        that have begun since. It ends as CANCELLED with the last of them, and submitit would take that for the state
        of jobs that run. The record of one job counts for more here.
        """
        text = string if isinstance(string, str) else string.decode()
        records = text.splitlines()
        of_one = [record for record in records[1:] if "[" not in record.partition("|")[0]]
        states = super().read_info("\n".join([*records, *of_one]))
        unknown = self._registered - self._finished - states.keys()
        missing = unknown - self._queued() if unknown else set()
        for job in missing & self._missing:
            states[job] = {"JobID": job, "State": "CANCELLED before it began"}
        self._missing = missing
        return states

    def _queued(self) -> set[str]:
        """The jobs in the queue; all that there are if it cannot be read."""
        listed = subprocess.run(_LIST_JOBS, capture_output=True, text=True, check=False)
        return set(listed.stdout.split()) if listed.returncode == 0 else self._registered
