# Submits each intent that standard input lists at most once, so many at a time as the first argument says. An intent
# is: marker directory, exec directory, output directory, fence, tapisjob.sh, tapisjob.env, and the words of its sbatch
# command. Python, and not a shell, so that sbatch is the only process that a submission costs.
#
# Answers one line for each, as soon as it is known: marker US verdict US text. Verdicts: id, failed (sbatch's exit
# status and words), void, stale, busy, broken, untried. Whatever cuts the link, what was begun here is finished here.
import fcntl
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

SBATCH_TIMEOUT_S = 30
hung = []


def intents(stream):
    """Every intent, read whole before anything is done: half an intent is none."""

    def word():
        length = stream.readline()
        if not length:
            return None
        data = stream.read(int(length))
        if len(data) != int(length):
            sys.exit(65)
        return data

    found = []
    directory = word()
    while directory is not None:
        fields = [os.fsdecode(directory), *(os.fsdecode(word()) for _ in range(3)), word(), word()]
        found.append((*fields, [os.fsdecode(word()) for _ in range(int(word()))]))
        directory = word()
    return found


def read(path):
    """A line that was written whole; what lacks its newline was cut short and counts as not there."""
    try:
        with open(path) as file:
            text = file.read()
    except FileNotFoundError:
        return ""
    return text[:-1] if text.endswith("\n") else ""


def keep(path, text):
    """Write a line whole or not at all."""
    with open(path + ".new", "w", opener=private) as file:
        file.write(text + "\n")
    os.rename(path + ".new", path)


def private(path, flags):
    return os.open(path, flags, 0o600)


def submit(directory, exec_dir, output_dir, fence, script, env, command):
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        with open(directory + "/lock", "a", opener=private) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return locked(directory, exec_dir, output_dir, int(fence), script, env, command)
    except BlockingIOError:
        return "busy", ""
    except OSError as error:
        return "broken", f"{error.filename or directory}: {error.strerror}"


def locked(directory, exec_dir, output_dir, fence, script, env, command):
    known = int(read(directory + "/fence") or 0)
    if fence < known:
        return "stale", str(known)
    if fence > known:
        keep(directory + "/fence", str(fence))
    job_id = read(directory + "/id")
    if job_id:
        return "id", job_id
    if os.path.exists(directory + "/void"):
        return "void", ""
    # Tried before, and the answer was lost or bad: trying again could make two. What became of it, find finds out.
    if os.path.exists(directory + "/tried"):
        return "failed", read(directory + "/tried")
    if hung:
        return "untried", "sbatch did not answer for others"
    for one in (exec_dir, output_dir):  # not before: who gave up the marker may have cleared them away
        os.makedirs(one, exist_ok=True)
    for name, content in (("tapisjob.sh", script), ("tapisjob.env", env)):
        with open(f"{exec_dir}/{name}", "wb", opener=private) as file:
            file.write(content)
    open(directory + "/tried", "w", opener=private).close()
    status, said = sbatch([*command, exec_dir + "/tapisjob.sh"])
    accepted = re.search(r"^(\d+)(;.*)?$", said, re.MULTILINE)
    if status == 0 and accepted:
        keep(directory + "/id", accepted[1])
        return "id", accepted[1]
    keep(directory + "/tried", f"{status} {said}")
    return "failed", f"{status} {said}"


def sbatch(command):
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=-1, stderr=subprocess.STDOUT, timeout=SBATCH_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        hung.append(command)
        return 124, ""
    except FileNotFoundError as error:
        return 127, str(error)
    return done.returncode & 255, done.stdout.decode("utf-8", "replace").strip()


def answer(intent):
    verdict, text = submit(*intent)
    line = "\x1f".join([os.path.basename(intent[0]), verdict, re.sub(r"[\r\n]", "\x1d", text)[:1500]])
    try:
        os.write(1, line.encode("utf-8", "surrogateescape") + b"\n")
    except OSError:
        pass  # nobody listens any more; what was begun is finished all the same


if __name__ == "__main__":
    with ThreadPoolExecutor(int(sys.argv[1])) as pool:
        list(pool.map(answer, intents(sys.stdin.buffer)))
