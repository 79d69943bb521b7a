"""The program that keeps the door of one instance of a pod: it starts the container, and lets Berth alone reach it.

Self-contained, for Python 3.6 and later, without root. ``door.py MARKER_DIR OPTIONS COMMAND...`` makes a user and a
network namespace of its own, so that no port clashes with another's and nobody else on the node reaches one; starts
the command in it; and ends as the command did. It listens outside of that namespace, on a socket in a directory that
nobody else may enter and, where it was told, on a TCP port, for whoever proves to know the secret that it made up.

In the marker directory it writes, whole and for its owner alone:

    door       secret, where it listens, node, network, which ports are listened to; also when that changes
    refused    why nothing was started: here no user may make namespaces, and the system does not let pods share one

Who connects is sent ``BERTH-DOOR 1`` and a nonce, answers with a nonce and a MAC over both, and gets a MAC back. Then
it sends a line that says what it wants:

    connect PORT      ``+`` and the bytes of the connection, or ``-`` where nobody listens there; on the socket in the
                      directory the connection itself comes with ``+``, and nothing of it passes here
    execute LENGTH    and so many bytes of JSON, then its standard input; ``+`` and frames, or ``-``: no container yet

A frame is a letter (o and e: the two outputs, x: JSON with the end), a length and so many bytes. An end before ``x``
ends the command.
"""

import ctypes
import errno
import fcntl
import hashlib
import hmac
import json
import os
import selectors
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time

GREETING = b"BERTH-DOOR 1\n"
NONCE_BYTES, MAC_BYTES = 32, 32
GREETING_S = 10
STRANGERS = 64
"""Those whose proof is awaited at once; more are sent away."""
LINE_BYTES = 64
REQUEST_BYTES = 16 * 1024 * 1024
STDIN_BYTES = 128 * 1024 * 1024
"""More than a file may have that is written inside a pod."""
PIECE_BYTES = 256 * 1024
FRAME = struct.Struct("!cI")
LOOK_S = 1.0
GRACE_S = 8
"""Between asking the container to end and ending it; less than those who end us wait."""
CONTAINER_S = 2.0
"""How long a command waits for the container's own first process."""

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
NS_GET_USERNS = 0xB701
NAMESPACES = ("cgroup", "ipc", "uts", "pid", "net", "mnt")
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
LISTENS = "0A"
PLACES, PLACE = "/tmp", "berth-pod."
"""Where sockets lie, wherever TMPDIR points: their paths must be short."""
AWAITED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
NOT_STARTED, CUT_OFF, NOT_FOUND, NOT_ALLOWED = 127, 124, 127, 126

libc = ctypes.CDLL(None, use_errno=True)


class Door:
    """``told``: ports, tcp (whether other nodes must reach it), shared (the system lets pods share the node's network),
    contained (the command is a container with a process namespace of its own)."""

    def __init__(self, folder, told):
        self.folder, self.told = folder, told
        self.secret = os.urandom(32)
        self.strangers = threading.Semaphore(STRANGERS)
        self.command = 0
        self.facts = {"secret": self.secret.hex(), "node": _node(), "ports": told["ports"], "listening": [], "tcp": []}

    def keep(self, words):
        """Start the command and keep its door until it ends; its exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
        _sweep()
        place = tempfile.mkdtemp(prefix=PLACE, dir=PLACES)
        try:
            listeners = self._listen(place)
            go, outbound = _prepare_outbound()
            try:
                _own_network()
            except OSError as error:
                if not self.told["shared"]:
                    return self._refuse(error)
                self.facts["network"] = "shared with the node"
                os.close(go)
            else:
                self.facts["network"] = "its own" + (", outbound by " + outbound if outbound else "")
                os.write(go, b"+")
            self.command = _start(words)
            self._tell()
            for listener in listeners:
                _in_background(self._accept, listener)
            return self._wait()
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _refuse(self, error):
        said = "user.max_user_namespaces" if error.errno == errno.ENOSPC else error.strerror
        why = "this node lets no user make namespaces (%s), so that anybody on it could reach the pod" % said
        _write(self.folder, "refused", {"why": why})
        sys.stderr.write("tapisjob: %s; notes.berth.pods.sharedNetwork of the system allows that\n" % why)
        return NOT_STARTED

    def _listen(self, place):
        """Sockets of the node, made before its network is left."""
        door = socket.socket(socket.AF_UNIX)
        self.facts["socket"] = os.path.join(place, "door")
        door.bind(self.facts["socket"])
        listeners = [door]
        if self.told["tcp"]:
            door = socket.socket()
            door.bind(("", 0))
            port = door.getsockname()[1]
            self.facts["tcp"] = [[host, port] for host in _own_names()]
            listeners.append(door)
        for door in listeners:
            door.listen(128)
        return listeners

    def _tell(self):
        _write(self.folder, "door", self.facts)

    # -- the command -------------------------------------------------------------------------------------------------

    def _wait(self):
        kill_at = None
        while True:
            event = signal.sigtimedwait(AWAITED, LOOK_S)
            pid, status = os.waitpid(self.command, os.WNOHANG)
            if pid:
                return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
            if kill_at is None and (self._is_void() if event is None else event.si_signo != signal.SIGCHLD):
                kill_at = time.monotonic() + GRACE_S
                self._ask_to_end()
            if kill_at is not None and time.monotonic() >= kill_at:
                _kill(os.killpg, self.command, signal.SIGKILL)
            self._note_listening()

    def _is_void(self):
        """Whether the marker was given up: Slurm tells the script of a cancelled job nothing before it kills it."""
        try:
            return "void" in os.listdir(self.folder)  # a network file system looks anew when a directory is opened
        except OSError:
            return False

    def _ask_to_end(self):
        """TERM to what the container runs, not to its launcher, which might end it at once."""
        inside = workload(self.command) if self.told["contained"] else None
        if inside is None:
            _kill(os.killpg, self.command, signal.SIGTERM)
        else:
            _kill(os.kill, inside, signal.SIGTERM)

    def _note_listening(self):
        listening = sorted(listening_ports().intersection(self.told["ports"]))
        if listening != self.facts["listening"]:
            self.facts["listening"] = listening
            self._tell()

    # -- those who come ----------------------------------------------------------------------------------------------

    def _accept(self, listener):
        while True:
            try:
                sock = listener.accept()[0]
            except OSError:  # too many files are open, or it was gone before it was greeted
                time.sleep(0.05)
                continue
            if self.strangers.acquire(blocking=False):
                _in_background(self._attend, sock)
            else:
                sock.close()

    def _attend(self, sock):
        with sock:
            try:
                sock.settimeout(GREETING_S)
                _tune(sock)
                line = self._admit(sock)
            except (OSError, ValueError):
                return
            finally:
                self.strangers.release()
            try:
                sock.settimeout(None)
                do, _, argument = line.partition(b" ")
                {b"connect": self._connect, b"execute": self._execute}[do](sock, int(argument))
            except (KeyError, ValueError, OSError):
                pass

    def _admit(self, sock):
        """What one wants who proved the secret."""
        ours = os.urandom(NONCE_BYTES)
        sock.sendall(GREETING + ours)
        said = receive(sock, NONCE_BYTES + MAC_BYTES)
        nonces = ours + said[:NONCE_BYTES]
        if not hmac.compare_digest(self._mac(b"berth" + nonces), said[NONCE_BYTES:]):
            raise ValueError("a stranger")
        sock.sendall(self._mac(b"door" + nonces))
        line = b""
        while not line.endswith(b"\n"):
            line += receive(sock, 1)
            if len(line) > LINE_BYTES:
                raise ValueError("a long line")
        return line[:-1]

    def _mac(self, message):
        return hmac.new(self.secret, message, hashlib.sha256).digest()

    def _connect(self, sock, port):
        inside = _connected(port) if port in self.told["ports"] else None
        if inside is None:
            sock.sendall(b"-")
            return
        with inside:
            if sock.family == socket.AF_UNIX:
                handed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", inside.fileno()))]
                sock.sendmsg([b"+"], handed)
                return
            sock.sendall(b"+")
            back = _in_background(_carry, inside, sock)
            _carry(sock, inside)
            back.join()

    def _execute(self, sock, length):
        if not 0 < length <= REQUEST_BYTES:
            return
        asked = json.loads(receive(sock, length).decode("ascii"))
        if not 0 <= asked["stdin_bytes"] <= STDIN_BYTES:
            return
        with tempfile.TemporaryFile() as stdin:
            left_bytes = asked["stdin_bytes"]
            while left_bytes:
                piece = receive(sock, min(left_bytes, PIECE_BYTES))
                stdin.write(piece)
                left_bytes -= len(piece)
            stdin.seek(0)
            inside = self._inside()
            if inside is None:
                sock.sendall(b"-")
                return
            sock.sendall(b"+")
            self._run_inside(sock, inside, asked, stdin)

    def _inside(self):
        """A process of the container that is up; None before there is one."""
        if not self.told["contained"]:
            return self.command
        until = time.monotonic() + CONTAINER_S
        while True:
            inside = workload(self.command)
            if inside is not None or time.monotonic() > until:
                return inside
            time.sleep(0.05)

    def _run_inside(self, sock, inside, asked, stdin):
        with tempfile.TemporaryFile() as told:
            told.write(json.dumps({"pid": inside, "argv": asked["argv"]}).encode("ascii"))
            told.seek(0)
            process = subprocess.Popen(
                [sys.executable, "-I", os.path.join(self.folder, "door.py"), "enter", str(told.fileno())],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[told.fileno()],
                start_new_session=True,
            )
        deadline = time.monotonic() + asked["timeout_s"]
        try:
            end = _forward(sock, process, deadline)
        finally:
            _kill(os.killpg, process.pid, signal.SIGKILL)
            for stream in filter(None, (process.stdout, process.stderr)):
                stream.close()
            process.wait()
        _frame(sock, b"x", json.dumps(end).encode("ascii"))


def _forward(sock, process, deadline):
    """Both outputs as frames until the command ended, ran out of time, or nobody wants to know any more."""
    names = {process.stdout: b"o", process.stderr: b"e"}
    with selectors.DefaultSelector() as ready:
        for stream in (process.stdout, process.stderr, sock):
            ready.register(stream, selectors.EVENT_READ)
        while names:
            if time.monotonic() > deadline:
                return {"timed_out": True, "exit_code": CUT_OFF}
            for key, _ in ready.select(0.2):
                if key.fileobj is sock:
                    raise ValueError("nobody waits for this command")
                piece = os.read(key.fd, 65536)
                if piece:
                    _frame(sock, names[key.fileobj], piece)
                else:
                    ready.unregister(key.fileobj)
                    del names[key.fileobj]
            if process.poll() is not None and not ready.select(0):
                break  # what it left behind in the background may hold its outputs for ever
        while process.poll() is None:
            if time.monotonic() > deadline:
                return {"timed_out": True, "exit_code": CUT_OFF}
            time.sleep(0.01)
    return {
        "timed_out": False,
        "exit_code": process.returncode if process.returncode >= 0 else 128 - process.returncode,
    }


def _frame(sock, name, content):
    sock.sendall(FRAME.pack(name, len(content)) + content)


def _connected(port):
    for host in ("127.0.0.1", "::1"):
        try:
            sock = socket.create_connection((host, port), GREETING_S)
        except OSError:
            continue
        sock.settimeout(None)
        _tune(sock)
        return sock
    return None


def _tune(sock):
    """Small pieces go at once, and a peer that vanished is noticed."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _carry(source, sink):
    """All bytes one way; the end of one is the end of the other, and a broken one breaks the other."""
    buffer = bytearray(PIECE_BYTES)
    view = memoryview(buffer)
    try:
        while True:
            count = source.recv_into(buffer)
            if count == 0:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(view[:count])
    except OSError:
        for sock in (source, sink):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def receive(sock, count):
    """Exactly so many bytes."""
    content = bytearray(count)
    left = memoryview(content)
    while left:
        got = sock.recv_into(left)
        if got == 0:
            raise OSError("closed the connection")
        left = left[got:]
    return bytes(content)


# -- namespaces ------------------------------------------------------------------------------------------------------


def _own_network():
    """A network of this process and all that it starts: nothing but a loopback, where any port may be listened to."""
    uid, gid = os.geteuid(), os.getegid()
    _must(libc.unshare(CLONE_NEWUSER | CLONE_NEWNET))
    _put("/proc/self/setgroups", "deny")
    _put("/proc/self/uid_map", "%d %d 1" % (uid, uid))
    _put("/proc/self/gid_map", "%d %d 1" % (gid, gid))
    with socket.socket() as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
    try:
        _put("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
    except OSError:
        pass  # then low ports stay closed to it, as they are outside


def _prepare_outbound():
    """A process that stays outside and gives the namespace a way out once told to; the pipe, and who does it.

    It ends when the pipe is closed, which we never do while it is wanted.
    """
    await_go, go = os.pipe()
    program = shutil.which("slirp4netns")
    parent = os.getpid()
    if program is None or not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return go, ""
    if os.fork() == 0:
        try:
            os.close(go)
            _become_outbound(program, parent, await_go)
        finally:
            os._exit(NOT_STARTED)
    os.close(await_go)
    return go, "slirp4netns"


def _become_outbound(program, parent, await_go):
    if os.read(await_go, 1) != b"+":
        return
    os.set_inheritable(await_go, True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    words = ["--configure", "--mtu=65520", "--disable-host-loopback", "--exit-fd=%d" % await_go, str(parent), "tap0"]
    os.execv(program, [program, *words])


def workload(command):
    """The process that runs in the container which this command started; None before there is one.

    The first process of a process namespace other than ours is the launcher's own, and the first that it started is
    the container's.
    """
    children, depth = {}, len(_pids(os.getpid()))
    for pid in filter(str.isdigit, os.listdir("/proc")):
        children.setdefault(_parent(pid), []).append(int(pid))
    tree = [command]
    for pid in tree:
        inner = _pids(pid)
        if len(inner) > depth and inner[-1] == 1:
            return min(children.get(pid, []), key=lambda one: _pids(one)[-1:], default=None)
        tree += children.get(pid, [])
    return None


def enter(fd):
    """``door.py enter FD``: run a command in the namespaces of a process, as its owner and with its environment."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
    with os.fdopen(fd, "rb") as file:
        told = json.loads(file.read().decode("ascii"))
    home = "/proc/%d" % told["pid"]
    try:
        with open(home + "/environ", "rb") as file:
            env = dict(line.split(b"=", 1) for line in file.read().split(b"\0") if b"=" in line)
        root, place, user = (os.open(home + name, os.O_RDONLY) for name in ("/root", "/cwd", "/ns/user"))
        joined = [os.open(home + "/ns/" + name, os.O_RDONLY) for name in NAMESPACES if _differs(home, name)]
        if joined:
            # The user namespace that owns the others comes first: in it we may do all. A launcher may have made
            # another one below it for the container.
            owner = fcntl.ioctl(joined[-1], NS_GET_USERNS)
            for namespace in [owner] + joined + ([] if os.path.sameopenfile(owner, user) else [user]):
                _must(libc.setns(namespace, 0))
            os.fchdir(root)
            os.chroot(".")
        os.fchdir(place)
    except OSError as error:
        sys.stderr.write("berth: the container cannot be entered: %s\n" % error)
        return NOT_ALLOWED
    child = os.fork()
    if child == 0:
        try:
            os._exit(_become([os.fsencode(word) for word in told["argv"]], env))
        finally:
            os._exit(NOT_STARTED)
    status = os.waitpid(child, 0)[1]
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _become(argv, env):
    """Found by the container's own PATH; returns only when it cannot be started."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    code, why = NOT_FOUND, "not found"
    folders = [b""] if b"/" in argv[0] else env.get(b"PATH", b"/usr/bin:/bin").split(b":")
    for folder in folders:
        path = os.path.join(folder, argv[0])
        try:
            os.execve(path, argv, env)
        except OSError as error:
            if os.path.lexists(path):  # and not only a folder that may not be searched
                code, why = NOT_ALLOWED, str(error.strerror)
    os.write(2, b"berth: " + argv[0] + b": " + why.encode("ascii", "replace") + b"\n")
    return code


def _differs(home, name):
    try:
        return os.readlink(home + "/ns/" + name) != os.readlink("/proc/self/ns/" + name)
    except FileNotFoundError:
        return False  # a kernel without this kind


def _start(words):
    """The command in a session of its own, that ends when we are killed."""
    parent, child = os.getpid(), os.fork()
    if child:
        return child
    try:
        os.setsid()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
        if os.getppid() == parent:
            os.execvp(words[0], words)
    except OSError as error:
        os.write(2, ("tapisjob: %s: %s\n" % (words[0], error.strerror)).encode("utf-8", "surrogateescape"))
    finally:
        os._exit(NOT_STARTED)


# -- pieces ----------------------------------------------------------------------------------------------------------


def listening_ports():
    """Ports to which somebody listens in this network."""
    found = set()
    for name in ("tcp", "tcp6"):
        try:
            with open("/proc/self/net/" + name) as lines:
                rows = [line.split() for line in lines]
        except OSError:
            continue
        found.update(int(row[1].rpartition(":")[2], 16) for row in rows[1:] if row[3] == LISTENS)
    return found


def _own_names():
    """Addresses and names under which other nodes may know this one, the likeliest first."""
    names = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((os.environ.get("SLURM_SUBMIT_HOST", ""), 9))  # sends nothing: it only chooses the way
            names.append(sock.getsockname()[0])
        except OSError:
            pass
    names += [os.environ.get("SLURMD_NODENAME", ""), socket.gethostname()]
    return [name for place, name in enumerate(names) if name and name not in names[:place]]


def _node():
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def _sweep():
    """Remove what doors of ours left behind that were killed: sockets where nobody listens."""
    for name in os.listdir(PLACES):
        place = os.path.join(PLACES, name)
        if not name.startswith(PLACE):
            continue
        try:
            facts = os.lstat(place)
            if facts.st_uid != os.geteuid() or not stat.S_ISDIR(facts.st_mode) or time.time() - facts.st_mtime < 60:
                continue
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(os.path.join(place, "door"))
        except ConnectionRefusedError:
            shutil.rmtree(place, ignore_errors=True)
        except OSError:
            pass


def _pids(pid):
    """What a process is called in each process namespace, ours first."""
    try:
        with open("/proc/%s/status" % pid) as lines:
            return [int(word) for line in lines if line.startswith("NSpid:") for word in line.split()[1:]]
    except (OSError, ValueError):
        return []


def _parent(pid):
    try:
        with open("/proc/%s/stat" % pid, "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def _kill(how, pid, sign):
    try:
        how(pid, sign)
    except (ProcessLookupError, PermissionError):
        pass


def _must(answer):
    if answer != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _put(path, text):
    with open(path, "w") as file:
        file.write(text)


def _write(folder, name, value):
    """A file for its owner alone, seen whole or not at all."""
    path = os.path.join(folder, name)
    fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(value, file)
    os.rename(path + ".new", path)


def _in_background(work, *arguments):
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread


def main(argv):
    """Exits at once, whatever connections are still carried."""
    code = enter(int(argv[2])) if argv[1] == "enter" else Door(argv[1], json.loads(argv[2])).keep(argv[3:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    threading.stack_size(512 * 1024)
    main(sys.argv)
