"""A real SLURM on one host for tests: munge, a controller, and two nodes that share the machine's cores.

All of it runs in a process namespace of its own, which ends with the test and everything that was started in it, and
in a mount namespace where the names of the nodes are in the hosts file.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

NODES = ("n1", "n2")
PROGRAMS = (
    "munged",
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "scancel",
    "scontrol",
    "squeue",
    "sinfo",
    "unshare",
    "setpriv",
)
_START_SECONDS = 60.0
_SETTLES = 3.0  # seconds


def missing() -> str | None:
    """Why there can be no SLURM here; None where there can."""
    if absent := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"no {', '.join(absent)} here (Debian: apt-get install slurm-wlm munge)"
    alone = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    if subprocess.run(alone, capture_output=True).returncode:
        return "this user may not make the namespaces that SLURM's daemons are kept in; run it as root"
    return None


def _ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in taken:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in taken]


def _configuration(folder: Path) -> str:
    host, (controller, *nodes) = socket.gethostname(), _ports(1 + len(NODES))
    places = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000 State=UNKNOWN"
        for name, port in zip(NODES, nodes, strict=True)
    )
    return f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={os.environ.get("USER", "root")}
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=60
KillWait=5
{places}
PartitionName=all Nodes={",".join(NODES)} Default=YES State=UP
"""


def _daemons(folder: Path) -> str:
    return f"""
node() {{  # as long as it has power
    while true; do
        [ -e {folder}/dead.$1 ] || slurmd -D -N $1 -f {folder}/slurm.conf >> {folder}/slurmd.$1.log 2>&1
        sleep 0.2
    done
}}
cp /etc/hosts {folder}/hosts
echo '127.0.0.1 {" ".join(NODES)}' >> {folder}/hosts
mount --bind {folder}/hosts /etc/hosts || exit 1
munged --force --foreground --key-file={folder}/munge.key --socket={folder}/munge.socket \
    --pid-file={folder}/munge.pid --log-file={folder}/munge.log --seed-file={folder}/munge.seed \
    > {folder}/munged.log 2>&1 &
while [ ! -S {folder}/munge.socket ]; do sleep 0.1; done
slurmctld -D -f {folder}/slurm.conf > {folder}/slurmctld.log 2>&1 &
for name in {" ".join(NODES)}; do node $name & done
wait
"""


class Slurm:
    """Its commands, as a user gives them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def tell(self, *words: object) -> str:
        """What a command prints."""
        command = [str(word) for word in words]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise RuntimeError(f"{command} failed: {done.stderr}")
        return done.stdout.strip()

    def submit(self, script: Path) -> str:
        """The number of a batch job; what it prints goes into the folder of its script."""
        output = script.with_suffix(".out")
        return self.tell("sbatch", "--parsable", f"--output={output}", f"--chdir={script.parent}", script)

    def state(self, job: str) -> str:
        """RUNNING, PENDING, COMPLETED, ... of a job; of an array all that its tasks have."""
        lines = self.tell("scontrol", "--oneliner", "show", "job", job).splitlines()
        states = {word.partition("=")[2] for line in lines for word in line.split() if word.startswith("JobState=")}
        return " ".join(sorted(states))

    def until(self, job: str, *states: str, seconds: float = 240.0) -> str:
        """Wait until a job is in one of these states."""
        end = time.monotonic() + seconds
        while (state := self.state(job)) not in states:
            if time.monotonic() > end:
                raise TimeoutError(f"job {job} is {state}, not {' or '.join(states)}\n{self.logs()}")
            time.sleep(0.2)
        return state

    def fail(self, node: str) -> None:
        """A node without power: its daemon, and all processes of its jobs."""
        (self.folder / f"dead.{node}").touch()
        theirs = f"SLURMD_NODENAME={node}".encode()
        for process in map(int, self.tell("pgrep", ".").split()):
            with contextlib.suppress(OSError):
                folder = Path(f"/proc/{process}")
                words = (folder / "cmdline").read_bytes().split(b"\0")
                own = str(self.folder).encode() in (folder / "environ").read_bytes()
                if own and theirs in (folder / "environ").read_bytes().split(b"\0"):
                    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                    if Path(f"/proc/{parent}/cmdline").read_bytes().startswith(b"slurmstepd"):
                        os.kill(parent, signal.SIGKILL)
                    os.kill(process, signal.SIGKILL)
                elif words[:4] == [b"slurmd", b"-D", b"-N", node.encode()] and own:
                    os.kill(process, signal.SIGKILL)
        self.tell("scontrol", "update", f"nodename={node}", "state=down", "reason=power")

    def back(self, node: str) -> None:
        """A node that failed has power again, and SLURM nothing to end there any more.

        What it could not tell a dead node it tells it when it is back, and a job with the same number may run there by
        then; a real node takes minutes to come back.
        """
        (self.folder / f"dead.{node}").unlink(missing_ok=True)
        end = time.monotonic() + _START_SECONDS
        while self.tell("sinfo", "--noheader", f"--nodes={node}", "--format=%T").startswith(("down", "drain")):
            if time.monotonic() > end:
                raise TimeoutError(f"{node} does not come back\n{self.logs()}")
            time.sleep(0.2)
            with contextlib.suppress(RuntimeError):  # it has come back by itself
                self.tell("scontrol", "update", f"nodename={node}", "state=resume")
        time.sleep(_SETTLES)

    def logs(self) -> str:
        """The last lines of its daemons."""
        return "\n".join(
            f"== {path.name}\n" + "\n".join(path.read_text().splitlines()[-8:]) for path in self.folder.glob("*.log")
        )


@contextlib.contextmanager
def running() -> Iterator[Slurm]:
    """SLURM, while the block runs."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    (folder / "state").mkdir()
    (folder / "slurm.conf").write_text(_configuration(folder))
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    (folder / "daemons.sh").write_text(_daemons(folder))
    # Whatever ends these tests ends it, and with it, by the kernel, everything in its namespace.
    alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    alone += ["bash", folder / "daemons.sh"]
    slurm = Slurm(folder)
    with subprocess.Popen(alone, env=slurm.environment, start_new_session=True) as daemons:
        try:
            end = time.monotonic() + _START_SECONDS
            while True:
                with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
                    if slurm.tell("sinfo", "--noheader", "--format=%T %D") == f"idle {len(NODES)}":
                        break
                if daemons.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"SLURM does not start\n{slurm.logs()}")
                time.sleep(0.2)
            yield slurm
        finally:
            daemons.kill()
    shutil.rmtree(folder)
