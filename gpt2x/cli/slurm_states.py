"""The states of Slurm's jobs, as its accounting has them."""

from submitit.slurm.slurm import SlurmInfoWatcher


class States(SlurmInfoWatcher):
    """Asks sacct for the states of all jobs at once, and keeps the answer for some seconds."""

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        """Job -> what sacct says of it, from the output of sacct.

        The record of those jobs of an array that have not begun, such as `13_[0-3%3]`, may keep the numbers of jobs
        that have begun since. It ends as CANCELLED with the last of them, and submitit would take that for the state
        of jobs that run. The record of one job counts for more here.
        """
        text = string if isinstance(string, str) else string.decode()
        records = text.splitlines()
        of_one = [record for record in records[1:] if "[" not in record.partition("|")[0]]
        return super().read_info("\n".join([*records, *of_one]))
