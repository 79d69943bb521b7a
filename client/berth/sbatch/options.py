"""What becomes of each option of sbatch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class How(Enum):
    """What becomes of an option."""

    MAPPED = "mapped"
    PASSED = "passed on to the system's scheduler"
    IGNORED = "ignored, with a warning"
    REFUSED = "refused"
    HERE = "about this command"
    BERTH = "Berth's own"


@dataclass(frozen=True, slots=True)
class Option:
    """One option of sbatch. ``value``: its name in help texts; None for a flag, in brackets when it may be left out.

    ``note``: what it becomes, or why it is not taken.
    """

    long: str
    short: str | None
    value: str | None
    how: How
    note: str

    @property
    def needs_value(self) -> bool:
        return self.value is not None and not (self.value.startswith("[") and self.value.endswith("]"))

    @property
    def spelled(self) -> str:
        """As sbatch's own help writes it."""
        short = f"-{self.short}, " if self.short else ""
        if self.value is None:
            return f"{short}--{self.long}"
        return f"{short}--{self.long}" + (f"={self.value}" if self.needs_value else f"[={self.value[1:-1]}]")


M, P, I, R, H, B = How.MAPPED, How.PASSED, How.IGNORED, How.REFUSED, How.HERE, How.BERTH  # noqa: E741

OPTIONS: tuple[Option, ...] = (
    Option("image", None, "IMAGE", B, "the container image that the script runs in"),
    Option("system", None, "SYSTEM", B, "the system; left out, Berth chooses"),
    Option("env", None, "KEY=VALUE", B, "a variable of the job; may come several times"),
    Option("input", None, "URL[:NAME]", B, "a file for the job's input directory; may come several times"),
    Option("job-name", "J", "NAME", M, "name"),
    Option("nodes", "N", "COUNT", M, "resources.nodes"),
    Option("ntasks", "n", "COUNT", M, "resources.cores, with --cpus-per-task, spread over the nodes"),
    Option("ntasks-per-node", None, "COUNT", M, "resources.cores, with --cpus-per-task"),
    Option("cpus-per-task", "c", "COUNT", M, "resources.cores, times the tasks of a node"),
    Option("mem", None, "SIZE", M, "resources.memory"),
    Option("mem-per-cpu", None, "SIZE", M, "resources.memory, times the cores of a node"),
    Option("time", "t", "TIME", M, "resources.time"),
    Option("partition", "p", "QUEUE", M, "queue: the system's logical queue"),
    Option("clusters", "M", "SYSTEM", M, "system"),
    Option("array", "a", "INDICES", M, "array"),
    Option("dependency", "d", "TYPE:JOB", M, "after: afterok, afternotok and afterany of Berth jobs"),
    Option("gpus", "G", "[TYPE:]COUNT", M, "resources.gpus, divided by the nodes"),
    Option("gpus-per-node", None, "[TYPE:]COUNT", M, "resources.gpus"),
    Option("gpus-per-task", None, "[TYPE:]COUNT", M, "resources.gpus, times the tasks of a node"),
    Option("gres", None, "LIST", M, "resources.gpus for gpu; anything else goes to the scheduler"),
    Option("output", "o", "FILE", M, "outputs.stdout: a name in the job's output directory"),
    Option("error", "e", "FILE", M, "outputs.stderr: a name in the job's output directory"),
    Option("export", None, "LIST", M, "env; ALL means nothing here, as your shell's environment stays at home"),
    Option("comment", None, "TEXT", M, "description"),
    Option("account", "A", "ACCOUNT", P, "options.account"),
    Option("qos", "q", "QOS", P, "options.qos"),
    Option("constraint", "C", "LIST", P, "options.constraint"),
    Option("reservation", None, "NAME", P, "options.reservation"),
    Option("licenses", "L", "LIST", P, "options.licenses"),
    Option("exclusive", None, "[MODE]", P, "options.exclusive"),
    Option("nodelist", "w", "NODES", P, "options.nodelist"),
    Option("exclude", "x", "NODES", P, "options.exclude"),
    Option("begin", "b", "TIME", P, "options.begin"),
    Option("deadline", None, "TIME", P, "options.deadline"),
    Option("tmp", None, "SIZE", P, "options.tmp"),
    Option("nice", None, "[NUMBER]", P, "options.nice"),
    Option("contiguous", None, None, P, "options.contiguous"),
    Option("overcommit", "O", None, P, "options.overcommit"),
    Option("oversubscribe", "s", None, P, "options.oversubscribe"),
    Option("spread-job", None, None, P, "options.spread-job"),
    Option("use-min-nodes", None, None, P, "options.use-min-nodes"),
    Option("distribution", "m", "HOW", P, "options.distribution"),
    Option("core-spec", "S", "COUNT", P, "options.core-spec"),
    Option("mail-type", None, "TYPE", P, "options.mail-type: the system's scheduler writes the mail"),
    Option("mail-user", None, "USER", P, "options.mail-user"),
    Option("signal", None, "SIGNAL", P, "options.signal"),
    *(
        Option(name, None, value, P, f"options.{name}")
        for value, names in (
            ("COUNT", "switches mincpus ntasks-per-core ntasks-per-socket sockets-per-node cores-per-socket"),
            ("COUNT", "threads-per-core thread-spec ntasks-per-gpu gpus-per-socket priority"),
            ("LIST", "hint prefer gres-flags gpu-bind gpu-freq mem-bind acctg-freq network profile bb wckey time-min"),
        )
        for name in names.split()
    ),
    Option("chdir", "D", "DIR", I, "a job works in a directory of its own"),
    Option("requeue", None, None, I, "Berth itself brings a job back that its site lost"),
    Option("no-requeue", None, None, I, "Berth itself brings a job back that its site lost, never one that ran"),
    Option("open-mode", None, "MODE", I, "every job has log files of its own"),
    Option("get-user-env", None, "[MODE]", I, "a container has its own environment; name variables with --env"),
    Option("no-kill", "k", "[off]", I, "the system decides what a node failure ends"),
    Option("propagate", None, "[LIMITS]", I, "limits of this shell stay here"),
    Option("verbose", "v", None, I, "see berth why for the reasons"),
    Option("hold", "H", None, R, "submit the job when it may run"),
    Option("uid", None, "USER", R, "a job runs as the login of your credential"),
    Option("gid", None, "GROUP", R, "a job runs as the login of your credential"),
    Option("input-file", "i", "FILE", R, "bring the file with --input"),
    Option("parsable", None, None, H, "print the number alone"),
    Option("quiet", "Q", None, H, "print nothing"),
    Option("wait", "W", None, H, "end when the job has ended, with exit code 0 or 1"),
    Option("test-only", None, None, H, "say where the job would go and submit nothing"),
    Option("wrap", None, "COMMAND", H, "run this line instead of a script"),
)
"""What is done with each option of sbatch; docs/cli.md shows the same table."""

BY_LONG = {option.long: option for option in OPTIONS}
BY_SHORT = {option.short: option for option in OPTIONS if option.short}
