"""A Slurm cluster of one node on this machine: its daemons run in one folder, as root, on loopback, without systemd.

The node has a host name of its own, so that jobs run on "another host", as they do on a real cluster.
"""

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurmdbd", "slurm-client", "munge", "mariadb-server")
"""Of Debian; they are in .ci/packages.txt."""
_PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "sbatch", "munged", "mariadbd", "mariadb-install-db")
_SBIN = "/usr/sbin:/sbin"  # not on everybody's PATH
_CORES = 5
"""More than a small machine has (config_overrides): so many jobs run at the same time."""
ARRAY_SIZE = 5
"""The largest job array that this cluster accepts; Slurm's default is 1001."""


def what_is_missing() -> str | None:
    """Why no cluster can be started here, with the command that helps; None if nothing is missing."""
    missing = [program for program in _PROGRAMS if shutil.which(program, path=_path()) is None]
    if missing:
        install = f"apt-get install --no-install-recommends {' '.join(PACKAGES)}"
        return f"Slurm is not installed ({', '.join(missing)}): {install}"
    return None if os.geteuid() == 0 else "Slurm's daemons need root"


@dataclass
class Cluster:
    """A running cluster."""

    folder: Path
    node: str
    """The host name that jobs see."""

    @property
    def environment(self) -> dict[str, str]:
        """With this, the commands of Slurm find the cluster."""
        return os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()}

    def ask(self, *command: str) -> list[str]:
        """The lines that a command prints."""
        return subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True, timeout=120
        ).stdout.splitlines()

    def array(self) -> str:
        """The number of the only job or job array that has not ended."""
        (number,) = {line.strip() for line in self.ask("squeue", "--noheader", "--format=%F")}
        return number

    def states(self, job: str) -> dict[str, str]:
        """Identifier -> state of all jobs of an array, from the accounting."""
        lines = self.ask("sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State", f"--jobs={job}")
        return dict(line.split("|") for line in lines)  # type: ignore[misc]


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Starts all daemons, waits until the node is idle, and stops them at the end."""
    node, in_own_host = _node()
    cluster = Cluster(folder, node)
    ports = _free_ports(4)
    _configure(folder, node, ports)
    with ExitStack() as daemons:

        def start(name: str, *command: str) -> None:
            daemons.enter_context(_daemon(cluster, name, command))

        start("munged", "munged", "--foreground", "--force", *_munge_options(folder))
        database = ("--no-defaults", "--user=root", f"--datadir={folder}/mysql")
        cluster.ask("mariadb-install-db", *database, "--auth-root-authentication-method=normal", "--skip-test-db")
        start(
            *("mariadbd", "mariadbd", *database, f"--socket={folder}/mysql.sock"),
            *("--bind-address=127.0.0.1", f"--port={ports[3]}"),
        )
        _wait(lambda: (folder / "mysql.sock").exists(), folder)
        start("slurmdbd", "slurmdbd", "-D")
        _wait(lambda: _listens(ports[2]), folder)
        start("slurmctld", "slurmctld", "-D")
        start("slurmd", *in_own_host, "slurmd", "-D")
        _wait(lambda: cluster.ask("sinfo", "--noheader", "--format=%t") == ["idle"], folder)
        try:
            yield cluster
        finally:
            cluster.ask("scancel", "--user=root")
            _wait(lambda: not cluster.ask("squeue", "--noheader"), folder)


def _path() -> str:
    return f"{os.environ['PATH']}:{_SBIN}"


def _node() -> tuple[str, list[str]]:
    """The host name of the node, and what its daemon's command begins with to have it.

    In a container that may not give its processes another host name, the node has this machine's.
    """
    name = "gpt2x-node"
    command = ["unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh"]
    allowed = subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    return (name, command) if allowed else (socket.gethostname(), [])


def _free_ports(count: int) -> list[int]:
    with ExitStack() as sockets:
        opened = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in opened:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in opened]


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _munge_options(folder: Path) -> list[str]:
    names = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munged.pid", "seed-file": "munged.seed"}
    return [f"--{option}={folder / name}" for option, name in (names | {"log-file": "munged.log"}).items()]


def _configure(folder: Path, node: str, ports: Sequence[int]) -> None:
    """Writes the files that the daemons read. Their meaning: https://slurm.schedmd.com/slurm.conf.html."""
    controller, daemon, accounting, database = ports
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o600)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "slurmdbd.conf").write_text(f"""
AuthType=auth/munge
AuthInfo={folder}/munge.socket
DbdHost=localhost
DbdPort={accounting}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=root
StorageLoc=slurm
""")
    (folder / "slurmdbd.conf").chmod(0o600)  # slurmdbd refuses a file that others can read
    (folder / "slurm.conf").write_text(f"""
ClusterName=gpt2x
SlurmctldHost={socket.gethostname()}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
KillWait=1
MaxArraySize={ARRAY_SIZE}
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={accounting}
AccountingStoragePass={folder}/munge.socket
SlurmdParameters=config_overrides
NodeName={node} NodeAddr=127.0.0.1 CPUs={_CORES} RealMemory=64000
PartitionName=all Nodes=ALL Default=YES
""")


@contextmanager
def _daemon(cluster: Cluster, name: str, command: Sequence[str]) -> Iterator[None]:
    """Runs a daemon in the foreground; its output is NAME.out in the folder of the cluster."""
    with (cluster.folder / f"{name}.out").open("w") as output:
        process = subprocess.Popen(
            command, env=cluster.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(is_ready: Callable[[], bool], folder: Path, seconds: float = 60) -> None:
    """Waits. Raises TimeoutError, with the end of each daemon's log."""
    end = time.monotonic() + seconds
    while True:
        try:
            if is_ready():
                return
        except subprocess.CalledProcessError:  # a command of Slurm that does not reach its daemon yet
            pass
        if time.monotonic() > end:
            logs = [*folder.glob("*.out"), *folder.glob("*.log")]
            raise TimeoutError("\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in logs))
        time.sleep(0.2)
