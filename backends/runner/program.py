"""The program that runs on the host: starts FORK jobs at most once per marker, watches them, and tells what it knows.

Self-contained, for Python 3.6 and later: it travels on standard input with one JSON request and answers one JSON line.
Every marker has a directory below the marker root:

    lock       held while a submission or a ``find`` decides; a started watchdog holds it until ``id`` is there
    id         the job's id, process and times; written once, before any of the job's code runs
    void       proof of absence: this marker can start nothing any more
    fence      the highest lease that was here
    cancelled  somebody asked for the end
    exit       exit code, by the job's own script
    closed     it waited at its gate in vain, by the job's own script
    ended      how it ended, by the watchdog

A job is a session of its own under a watchdog: a process that outlives us, enforces the walltime, adopts what the job
leaves behind and ends it. A process is known by pid, start time and boot, so that a pid used again is not
taken for it.
"""

import base64
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import time

GRACE_S = 10
"""Seconds between asking a job to end (TERM) and ending it (KILL)."""
LOCK_WAIT_S = 5
PR_SET_CHILD_SUBREAPER = 36


# -- requests --------------------------------------------------------------------------------------------------------


def submit(root, intents):
    """Start each intent whose marker never started anything; per marker its id, or what stood against it."""
    return {intent["marker"]: _submit_one(root, intent) for intent in intents}


def find(root, marker):
    """The id under a marker; ``absent`` only after the marker was made unable to start anything."""
    folder = _folder(root, marker)
    lock = _lock(folder)
    if lock is None:
        return {"busy": True}
    try:
        known = _read(folder, "id")
        if known is not None:
            return {"id": known["id"]}
        _write(folder, "void", {"at": time.time()})
        return {"absent": True}
    finally:
        os.close(lock)


def observe(root, ids):
    """What is known of each id that is really the one under its marker; others are left out."""
    seen = {remote_id: _observe_one(os.path.join(root, marker), remote_id) for remote_id, marker in ids.items()}
    return {remote_id: facts for remote_id, facts in seen.items() if facts is not None}


def look(root, markers):
    """What is known under each marker, whatever its id; markers that started nothing are left out."""
    seen = {marker: _observe_one(os.path.join(root, marker)) for marker in markers}
    return {marker: facts for marker, facts in seen.items() if facts is not None}


def unended(root):
    """Ids of what runs below a marker root, by marker."""
    try:
        markers = [marker for marker in os.listdir(root) if _is_ours(os.path.join(root, marker))]
    except FileNotFoundError:
        return {}
    running = [marker for marker, facts in look(root, markers).items() if facts.get("running")]
    return {marker: _read(os.path.join(root, marker), "id")["id"] for marker in running}


def cancel(root, marker, remote_id=None):
    """Ask for the end of a job; already gone, or another than ``remote_id``, is success."""
    folder = os.path.join(root, marker)
    known = _read(folder, "id")
    if known is None or remote_id not in (None, known["id"]) or _read(folder, "ended") is not None:
        return {}
    _write(folder, "cancelled", {"at": time.time()})
    if _alive(known["watchdog"]):
        os.kill(known["watchdog"]["pid"], signal.SIGTERM)
    else:
        job = _read(folder, "process")
        if job is not None and _alive(job) and _detach():
            _end_session(job["pid"], lambda: not _alive(job))
            os._exit(0)
    return {}


def read_log(path, offset, limit):
    """Bytes of a regular file from an offset on, base64; empty when there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return {"data": ""}
    try:
        data = os.pread(fd, limit, offset) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)
    return {"data": base64.b64encode(data).decode("ascii")}


def stage(directories, files):
    """Make directories, then write small files whole."""
    for directory in directories:
        os.makedirs(directory, exist_ok=True)
    for file in files:
        os.makedirs(os.path.dirname(file["path"]), exist_ok=True)
        _replace(file["path"], base64.b64decode(file["content"]), file["mode"])
    return {}


def snapshot():
    """What this host is: cores and memory, and how busy it is now."""
    with open("/proc/meminfo") as lines:
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": kib["MemTotal"] // 1024,
        "available_mib": kib.get("MemAvailable", kib["MemFree"]) // 1024,
        "load": os.getloadavg()[0],
        "at": time.time(),
    }


# -- starting --------------------------------------------------------------------------------------------------------


def _submit_one(root, intent):
    try:
        folder = _folder(root, intent["marker"])
        lock = _lock(folder)
    except OSError as error:
        return {"rejected": "the marker directory cannot be made: %s" % error}
    if lock is None:
        return {"uncertain": "another submission of this marker is under way"}
    try:
        known = _read(folder, "id")
        if known is not None:
            return {"id": known["id"]}
        if _read(folder, "void") is not None:
            return {"rejected": "this marker was given up; it can start nothing"}
        if intent["fence"] < (_read(folder, "fence") or 0):
            return {"uncertain": "a newer lease of this job has been here"}
        try:
            _write(folder, "fence", intent["fence"])
            logs = _prepare(intent)
        except OSError as error:
            return {"rejected": "the job cannot be prepared: %s" % error}
        try:
            return _launch(folder, intent, lock, logs)
        finally:
            for log in set(logs):
                os.close(log)
    finally:
        os.close(lock)


def _prepare(intent):
    """Directories and launch files of a job; the open files of its standard output and error."""
    for key in ("exec_dir", "input_dir", "output_dir"):
        os.makedirs(intent[key], exist_ok=True)
    _replace(os.path.join(intent["exec_dir"], intent["script_name"]), _bytes(intent["script"]), 0o700)
    _replace(os.path.join(intent["exec_dir"], intent["env_name"]), _bytes(intent["env"]), 0o600)
    paths = [os.path.join(intent["output_dir"], intent[key]) for key in ("stdout", "stderr")]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    out = os.open(paths[0], flags, 0o644)
    return out, out if paths[0] == paths[1] else os.open(paths[1], flags, 0o644)


def _launch(folder, intent, lock, logs):
    """Start the watchdog; its answer comes once ``id`` is on disk, and none at all means that nothing was started."""
    answers, answer = os.pipe()
    if _detach():
        try:
            os.close(answers)
            _watch(folder, intent, lock, answer, logs)
        finally:
            os._exit(1)
    os.close(answer)
    with os.fdopen(answers, "rb") as pipe:
        remote_id = pipe.read().decode("ascii")
    return {"id": remote_id} if remote_id else {"uncertain": "the watchdog of the job did not start"}


def _detach():
    """True in a new process that is nobody's child and has a session of its own; False in the caller."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    return True


# -- the watchdog ----------------------------------------------------------------------------------------------------


def _watch(folder, intent, lock, answer, logs):
    _close_all_but([lock, answer, *logs])
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    awaited = {signal.SIGCHLD, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    for ignored in (signal.SIGHUP, signal.SIGINT):
        signal.signal(ignored, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    me = _process(os.getpid())
    remote_id = "%d.%d.%s" % (me["pid"], me["start"], me["boot"][:8])
    _write(folder, "id", {"id": remote_id, "watchdog": me, "at": time.time()})
    os.write(answer, remote_id.encode("ascii"))
    os.close(answer)
    os.close(lock)

    job = os.fork()
    if job == 0:
        try:
            _become_the_job(intent, awaited, logs)
        finally:
            os._exit(127)
    _write(folder, "process", _process(job))
    _write(folder, "ended", _wait(folder, job, intent["walltime_s"]))
    os._exit(0)


def _close_all_but(kept):
    """Let go of what whoever started us left open: a pipe that a job holds keeps its reader waiting for the job."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


def _become_the_job(intent, awaited, logs):
    os.setsid()
    for ignored in (signal.SIGHUP, signal.SIGINT):
        signal.signal(ignored, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, awaited)
    os.dup2(logs[0], 1)
    os.dup2(logs[1], 2)
    os.chdir(intent["exec_dir"])
    os.execv("/bin/sh", ["sh", os.path.join(intent["exec_dir"], intent["script_name"])])


def _wait(folder, job, walltime_s):
    """Wait for the job, ending it at its walltime or when asked; how it ended."""
    cause = None
    reaped = {}
    deadline = time.monotonic() + walltime_s
    while not _reap(reaped, job) and cause is None:
        event = signal.sigtimedwait({signal.SIGCHLD, signal.SIGTERM}, max(0, deadline - time.monotonic()))
        if event is None:
            cause = "TIMEOUT"
        elif event.si_signo == signal.SIGTERM:
            cause = "CANCELLED"
    if cause is not None:
        _end_session(job, lambda: _reap(reaped, job))
    status, usage = reaped[job]
    _end_leftovers(folder)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
    if os.path.exists(os.path.join(folder, "closed")):
        cause = "GATE_CLOSED"
    return {
        "ending": cause or ("COMPLETED" if code == 0 else "FAILED"),
        "exit_code": code,
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        "max_rss_mib": usage.ru_maxrss // 1024,
        "at": time.time(),
    }


def _reap(reaped, job):
    """Take in every child that ended; whether the job is among them."""
    try:
        while True:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                break
            reaped[pid] = (status, usage)
    except ChildProcessError:
        pass
    return job in reaped


def _end_session(job, is_gone):
    """TERM to the job's process group, and KILL after the grace if it is still there."""
    for sign, patience_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GRACE_S)):
        try:
            os.killpg(job, sign)
        except ProcessLookupError:
            pass
        deadline = time.monotonic() + patience_s
        while not is_gone() and time.monotonic() < deadline:
            time.sleep(0.05)
        if is_gone():
            return


def _end_leftovers(folder):
    """Nothing of a job outlives it: what left its session came back to us, and a container has an engine to ask."""
    try:
        with open(os.path.join(folder, "engine")) as engine:
            argv = [engine.read().strip(), "rm", "--force", os.path.basename(folder)]
        subprocess.call(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        pass
    me = os.getpid()
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline:
        for pid in os.listdir("/proc"):
            if pid.isdigit() and _parent(pid) == me:
                os.kill(int(pid), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


# -- watching --------------------------------------------------------------------------------------------------------


def _observe_one(folder, remote_id=None):
    known = _read(folder, "id")
    if known is None or remote_id not in (None, known["id"]):
        return None
    facts = {"submitted_at": known["at"], "started_at": known["at"]}
    if _alive(known["watchdog"]):
        ended = _read(folder, "ended")
        facts.update(ended or {"running": True})
        return facts
    ended = _read(folder, "ended")  # read after the watchdog was seen gone: it is the last to write
    job = _read(folder, "process")
    if ended is not None:
        facts.update(ended)
    elif job is not None and _alive(job):
        facts.update({"running": True, "reason": "the watchdog is gone; the walltime is not enforced"})
    else:
        facts.update(_unwitnessed_end(folder, known))
    return facts


def _unwitnessed_end(folder, known):
    """How a job ended whose watchdog did not live to say it."""
    script = _read(folder, "exit")
    if script is not None:
        return {
            "ending": "COMPLETED" if script == 0 else "FAILED",
            "exit_code": script,
            "at": _changed_at(folder, "exit"),
        }
    if _read(folder, "cancelled") is not None:
        return {"ending": "CANCELLED", "reason": "ended after a cancel request", "at": None}
    if known["watchdog"]["boot"] != _boot():
        return {"ending": "NODE_FAILURE", "reason": "the host was restarted while the job ran", "at": None}
    return {
        "ending": "FAILED",
        "reason": "its processes are gone and left no exit code: killed from outside",
        "at": None,
    }


def _process(pid):
    return {"pid": pid, "start": _stat(pid)[1], "boot": _boot()}


def _alive(process):
    """Whether this very process runs: same boot, same pid, same start time, not a zombie."""
    found = _stat(process["pid"])
    return process["boot"] == _boot() and found is not None and found[1] == process["start"] and found[0] not in "ZX"


def _stat(pid):
    """State, start time in clock ticks since boot, and parent of a process; None when there is none."""
    try:
        with open("/proc/%s/stat" % pid, "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0].decode("ascii"), int(fields[19]), int(fields[1])


def _parent(pid):
    found = _stat(pid)
    return None if found is None else found[2]


def _boot():
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _is_ours(folder):
    """Whether this program wrote the id under a marker: jobs of a cluster's queue have markers below the same root."""
    try:
        return isinstance(_read(folder, "id"), dict)
    except (OSError, ValueError):
        return False


# -- files -----------------------------------------------------------------------------------------------------------


def _folder(root, marker):
    folder = os.path.join(root, marker)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder


def _lock(folder):
    """An open lock of a marker, or None when it stays held by another."""
    fd = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
        if time.monotonic() > deadline:
            os.close(fd)
            return None
        time.sleep(0.02)


def _read(folder, name):
    try:
        with open(os.path.join(folder, name)) as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def _changed_at(folder, name):
    return os.stat(os.path.join(folder, name)).st_mtime


DURABLE = {"id", "void", "ended"}
"""What must outlive a power cut, since code may have run or must never run because of it."""


def _write(folder, name, value):
    _replace(os.path.join(folder, name), json.dumps(value).encode("ascii"), 0o600, name in DURABLE)


def _replace(path, data, mode, durable=False):
    """Write a file whole: it has its old content or its new one, whatever happens."""
    fresh = "%s.%d" % (path, os.getpid())
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.chmod(fresh, mode)
    os.rename(fresh, path)
    if durable:
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def _bytes(text):
    return text.encode("utf-8", "surrogateescape")


REQUESTS = {f.__name__: f for f in (submit, find, observe, look, unended, cancel, read_log, stage, snapshot)}


def main():
    request = json.loads(sys.stdin.buffer.read().decode("ascii"))
    answer = REQUESTS[request["do"]](**request["with"])
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
