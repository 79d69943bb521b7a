"""The program that brings one image to the local disks of many nodes; each passes on what it has while more comes in.

Self-contained, for Python 3.6 and later, without root. It runs once per node (one task each, by ``srun``)::

    relay.py run INSTRUCTIONS.json          what to do is in FIELDS; one JSON line tells what came of it, EXITS how
    relay.py index FILE CHUNK_BYTES         the chunks of a file, one a line: length and sha256

Every node has a parent (a chain or a tree, by position in the order of the nodes) and asks it for what it lacks. A
chunk is verified before it is kept or passed on, and the whole before the file gets its name; then what is there is
right, whoever sent it. A parent that is gone, silent, slow or wrong is passed over: its children turn to the nearest
ancestor that serves them, and at last to the source where they can read it. Nobody depends on a slow node then.

Nodes find each other in a directory that all of them see, where each writes its address: unlike an exchange over the
standard output of ``srun`` that needs nobody in the middle, and a node that starts late or again is found as well.
Who connects must prove the token of this run, and is then given the same proof; the token itself is never sent.
What is sent is not encrypted: the network of a cluster sees its image.
"""

import contextlib
import errno
import fcntl
import glob
import hashlib
import hmac
import json
import os
import queue
import select
import socket
import stat
import struct
import sys
import threading
import time
import types

EXITS = {
    "ok": 0,  # the file is in place and whole
    "bad_instructions": 2,
    "bad_token": 3,
    "bad_destination": 4,
    "no_source": 5,  # nobody above gave the rest in time
    "corrupt": 6,  # what everybody above gave was not the image
    "no_space": 7,
    "cannot_write": 8,
}

KEPT_S = 7 * 86400  # so long after its last use a finished image stays for the next job
IN_USE_S = 3600  # from a relay that finds or brings an image to the job that opens it, at most

REQUIRED = object()
FIELDS = {
    "digest": REQUIRED,  # of the image: sha256:<64 hex>
    "size_bytes": REQUIRED,
    "index": None,  # the chunks: [[length, sha256], ...], or
    "index_path": None,  # a file with one chunk a line, and
    "index_digest": None,  # its own digest
    "peers": None,  # names of the nodes, or
    "peers_path": None,  # a file with one name a line
    "order": [],  # names in the order of the topology; nodes that it does not name come last
    "parents": REQUIRED,  # for each position the position of its parent; null for the first
    "token_path": REQUIRED,  # 64 hex digits in a file that is its owner's alone
    "meeting_dir": REQUIRED,  # a directory that all nodes see, of this run alone
    "source": REQUIRED,  # the image, where the first node (and perhaps others) can read it
    "destination": REQUIRED,
    "me": None,  # this node's name, where SLURMD_NODENAME and the host name do not tell
    "address": None,  # to listen on; else that of
    "interface": None,  # this; else the one from which the other nodes are reached
    "start_s": 30,  # how long a parent may take to show up
    "stall_s": 10,  # silence after which a neighbour counts as gone
    "patience_s": 5,  # how long less than the next figure is borne
    "least_bytes_per_s": 0,  # below that a parent is slow
    "orphan_s": 10,  # how long nodes below that are not heard of are waited for at the end
    "give_up_s": 3600,
    "mode": 0o400,  # of the finished file
}

GREETING = b"berth relay 1\n"
NONCE_BYTES = MAC_BYTES = 32
HELLO_S = 5
BEAT_S = 1.0
STRANGERS_AT_ONCE = 16
WRONG_TWICE = 2
"""Wrong chunks from one neighbour after which nothing more is taken from it: the first may be the wire's fault."""
LAG_CHUNKS = 4
SEND_BUFFER_BYTES = 256 * 1024
"""At most, and two chunks: children share a slow link evenly then, and little waits in line at each step of a tree."""
FRAME = struct.Struct("!cQQ")
CHUNK, BEAT, FINISHED, LEAVING = b"c", b"b", b"f", b"l"
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FILE = "source"
"""What the source is called among the neighbours."""


class Trouble(Exception):
    """The end of this node's part, by a word of EXITS."""

    def __init__(self, outcome, why):
        super().__init__(why)
        self.outcome = outcome


class Lost(Exception):
    """A neighbour gives nothing more; the text says why. ``gone``: it is not there to take anything either."""

    def __init__(self, why, gone=True):
        super().__init__(why)
        self.gone = gone


class Silent(Lost):
    """It is there, but says nothing."""


# -- instructions ----------------------------------------------------------------------------------------------------


class Instructions(types.SimpleNamespace):
    """The fields of FIELDS as attributes, checked; ``chunks`` and ``peers`` in place of their files."""

    def __init__(self, given):
        unknown = sorted(set(given) - set(FIELDS))
        if unknown:
            raise _bad(unknown[0], "is not a field of the instructions")
        for name, default in FIELDS.items():
            if given.get(name) is None and default is REQUIRED:
                raise _bad(name, "is missing")
        super().__init__(**{name: given.get(name, default) for name, default in FIELDS.items()})
        if not _is_digest(self.digest):
            raise _bad("digest", "must be sha256:<64 hex digits>")
        self.peers = self._peers()
        self.chunks = self._chunks()
        self.position = self._position()
        if len(self.parents) != len(self.peers):
            raise _bad("parents", "%d of them for %d nodes" % (len(self.parents), len(self.peers)))
        for position, parent in enumerate(self.parents):
            if (parent is None) != (position == 0) or not (position == 0 or 0 <= parent < position):
                raise _bad("parents", "the parent of %d must stand before it" % position)

    def _peers(self):
        names = self.peers
        if names is None:
            if self.peers_path is None:
                raise _bad("peers", "or peers_path must be given")
            with open(self.peers_path) as lines:
                names = lines.read().split()
        if not names or len(set(names)) != len(names):
            raise _bad("peers", "must name every node once")
        rank = {name: place for place, name in enumerate(self.order)}
        return sorted(names, key=lambda name: rank.get(name, len(rank)))

    def _chunks(self):
        """Offset, length and digest of every chunk."""
        rows = self.index
        if rows is None:
            if self.index_path is None or not _is_digest(self.index_digest or ""):
                raise _bad("index", "or index_path with index_digest must be given")
            with open(self.index_path, "rb") as file:
                text = file.read()
            if "sha256:" + hashlib.sha256(text).hexdigest() != self.index_digest:
                raise _bad("index_path", "the index is not the one that index_digest names")
            rows = [line.split() for line in text.decode("ascii").splitlines()]
        chunks, offset = [], 0
        for length, digest in rows:
            chunks.append((offset, int(length), bytes.fromhex(digest)))
            offset += int(length)
        if (
            not chunks
            or offset != self.size_bytes
            or any(length <= 0 or len(digest) != 32 for _, length, digest in chunks)
        ):
            raise _bad("index", "its chunks do not make up size_bytes")
        return chunks

    def _position(self):
        names = [self.me] if self.me else [os.environ.get("SLURMD_NODENAME"), socket.gethostname()]
        names += [name.split(".")[0] for name in names if name]
        found = [self.peers.index(name) for name in names if name in self.peers]
        if not found:
            raise _bad("peers", "this node (%s) is not among them; say which it is with me" % names[-1])
        return found[0]

    def token(self):
        """The secret of this run, from a file that nobody else may read."""
        try:
            with open(os.open(self.token_path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
                facts = os.fstat(file.fileno())
                token = bytes.fromhex(file.read(128).decode("ascii").strip())
        except (OSError, ValueError) as error:
            raise Trouble("bad_token", "token_path: %s" % error) from None
        if facts.st_uid != os.getuid() or facts.st_mode & 0o077:
            raise Trouble("bad_token", "token_path: others may read %s; make it mode 0600" % self.token_path)
        if len(token) != 32:
            raise Trouble("bad_token", "token_path: %d bits in the token where there must be 256" % (8 * len(token)))
        return token


def _bad(field, wrong):
    return Trouble("bad_instructions", "%s: %s" % (field, wrong))


def _is_digest(text):
    return text[:7] == "sha256:" and len(text) == 71 and set(text[7:]) <= set("0123456789abcdef")


# -- the local copy --------------------------------------------------------------------------------------------------


class Copy:
    """The image on this node: the chunks that are here and proven, in a file without its name until all of it is.

    ``NAME.part`` holds the chunks and ``NAME.map`` a byte for each that is in it, so that a killed relay goes on where
    it was. ``NAME.proof`` says which file was proven whole; after a restart of the node it counts no more.
    """

    def __init__(self, told):
        self.chunks, self.digest, self.size, self.mode = told.chunks, told.digest, told.size_bytes, told.mode
        self.path = told.destination
        folder, name = os.path.split(self.path)
        self.folder, self.base = folder, os.path.join(folder, "." + name)
        self.part = self.base + ".part"
        self.have = bytearray(len(self.chunks))
        self.arrived = []
        self.arrived_bytes = 0
        self.changed = threading.Condition()
        self.is_unfinished = self.ready = False
        self.resumed = 0

    def open(self):
        """Find the finished file, else open the unfinished one."""
        self._own_the_folder()
        if self._is_proven():
            os.utime(self.base + ".proof")
            self._clear(0)
            self.file = open(self.path, "rb", buffering=0)
            self._add(range(len(self.chunks)))
            self.ready = True
            return
        self.file = self._open_part()
        self.is_unfinished = True
        self.map = os.open(self.part + ".map", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        lacking = self.size - os.fstat(self.file.fileno()).st_blocks * 512
        self._clear(lacking)
        if self._room() < lacking:
            self.discard()
            raise Trouble("no_space", "destination: %s has no room for %d bytes" % (self.folder, self.size))
        os.ftruncate(self.file.fileno(), self.size)

    def resume(self):
        """Take over what an earlier relay left, after reading it again."""
        if self.ready:
            return
        kept = os.pread(self.map, len(self.chunks), 0)
        for number, mark in enumerate(kept):
            if mark and self._is_right(number, self.read(number)):
                self._add([number])
        self.resumed = len(self.arrived)

    def read(self, number):
        offset, length, _ = self.chunks[number]
        return os.pread(self.file.fileno(), length, offset)

    def put(self, number, content):
        """Keep a chunk; whether it was the right one."""
        if not self._is_right(number, content):
            return False
        offset = self.chunks[number][0]
        left = memoryview(content)
        while left:
            written = os.pwrite(self.file.fileno(), left, offset)
            left, offset = left[written:], offset + written
        os.pwrite(self.map, b"\1", number)
        self._add([number])
        return True

    def missing(self):
        return [number for number, mark in enumerate(self.have) if not mark]

    def arrival(self, count, wait_s):
        """The chunk that arrived after the first ``count``; None when none does for so long."""
        with self.changed:
            if len(self.arrived) == count:
                self.changed.wait(wait_s)
            return self.arrived[count] if len(self.arrived) > count else None

    def finish(self):
        """Wait for every chunk in turn, prove the whole, and give the file its name."""
        whole = hashlib.sha256()
        for number in range(len(self.chunks)):
            with self.changed:
                while not self.have[number]:
                    self.changed.wait()
            whole.update(self.read(number))
        if "sha256:" + whole.hexdigest() != self.digest:
            self.discard()
            raise Trouble("corrupt", "all chunks are as the index says, but the whole is not %s" % self.digest)
        os.fchmod(self.file.fileno(), self.mode)
        os.rename(self.part, self.path)
        self.is_unfinished = False
        os.unlink(self.part + ".map")
        self._prove()
        self.ready = True

    def discard(self):
        """Remove our unfinished file, if there is one: there is no room for it, or it is wrong."""
        for path in (self.part, self.part + ".map") if self.is_unfinished else ():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def failed(self, error):
        """What a refusal of the local disk means; nothing unfinished stays on it."""
        self.discard()
        return Trouble("no_space" if error.errno in NO_ROOM else "cannot_write", "destination: %s" % error)

    def _own_the_folder(self):
        with contextlib.suppress(FileExistsError):
            os.makedirs(self.folder, 0o700)
        facts = os.lstat(self.folder)
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
            raise Trouble(
                "bad_destination", "destination: others may write to %s; use a directory of your own" % self.folder
            )

    def _room(self):
        space = os.statvfs(self.folder)
        return space.f_bavail * space.f_frsize

    def _clear(self, lacking):
        """Remove other finished images: what nobody used for long, then the longest unused until there is room.

        One that a job has open stays readable for it.
        """
        now = time.time()
        for used_at, name in sorted(self._others()):
            if now - used_at < IN_USE_S or (now - used_at < KEPT_S and self._room() >= lacking):
                break
            for path in (name, ".%s.proof" % name):  # without its proof a file is only read again
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.folder, path))

    def _others(self):
        """When each other finished image here was last used, and its name."""
        for entry in os.listdir(self.folder):
            name = entry[1 : -len(".proof")]
            if entry == "." + name + ".proof" and name != os.path.basename(self.path):
                with contextlib.suppress(FileNotFoundError):
                    yield os.lstat(os.path.join(self.folder, entry)).st_mtime, name

    def _is_proven(self):
        """Whether the file is there and was proven since the node started; proves it now where only that is unknown."""
        try:
            facts = self._facts()
        except FileNotFoundError:
            return False
        try:
            with open(self.base + ".proof") as file:
                if json.load(file) == facts:
                    return True
        except (OSError, ValueError):
            pass
        whole = hashlib.sha256()
        with open(self.path, "rb") as file:
            for block in iter(lambda: file.read(1 << 22), b""):
                whole.update(block)
        if "sha256:" + whole.hexdigest() != self.digest:
            return False
        self._prove()
        return True

    def _prove(self):
        fresh = "%s.proof.%d" % (self.base, os.getpid())
        with open(fresh, "w") as file:
            json.dump(self._facts(), file)
        os.rename(fresh, self.base + ".proof")

    def _facts(self):
        facts = os.lstat(self.path)
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        return {
            "digest": self.digest,
            "size": facts.st_size,
            "mtime_ns": facts.st_mtime_ns,
            "inode": facts.st_ino,
            "boot": boot,
        }

    def _open_part(self):
        """The unfinished file, locked; while another relay brings the same image, one of our own."""
        for path in glob.glob(glob.escape(self.part) + ".[0-9]*[0-9]"):
            stale = _locked(path)
            if stale:  # whoever had it is dead
                with stale:
                    os.unlink(path)
        found = _locked(self.part)
        if found is None:
            self.part += ".%d" % os.getpid()
            found = _locked(self.part)
        return found

    def _is_right(self, number, content):
        return hashlib.sha256(content).digest() == self.chunks[number][2]

    def _add(self, numbers):
        with self.changed:
            for number in (one for one in numbers if not self.have[one]):
                self.have[number] = 1
                self.arrived.append(number)
                self.arrived_bytes += self.chunks[number][1]
            self.changed.notify_all()


def _locked(path):
    """The file, ours while it is open; None when it is another's."""
    file = open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_ino == os.stat(path).st_ino:
            return file
    except OSError:
        pass
    file.close()
    return None


# -- a node among nodes ----------------------------------------------------------------------------------------------


class Node:
    """This node: the copy that it builds, the neighbour above whom it asks, and those below who ask it."""

    def __init__(self, told):
        self.told = told
        self.token = told.token()
        self.copy = Copy(told)
        self.above = _path_up(told.parents, told.position)
        self.below = {one for one in range(len(told.peers)) if told.position in _path_up(told.parents, one)}
        self.started = self.progress_at = self.quiet_since = time.monotonic()
        self.ready_s = self.trouble = self.link = self.address = None
        self.incoming = queue.Queue(4)
        self.above_bytes = 0
        self.lock = threading.Lock()
        self.children = set()
        self.finished, self.gone, self.left = set(), set(), set()
        self.greeted = threading.Semaphore(STRANGERS_AT_ONCE)
        self.bell, self.rope = os.pipe()
        for end in (self.bell, self.rope):
            os.set_blocking(end, False)
        self.wrong = {}
        self.bytes_in, self.bytes_out = {}, {}
        self.skipped = []
        self.strangers = 0

    def run(self):
        """Bring the image here, and serve those below until they have it too."""
        try:
            self.copy.open()
        except OSError as error:
            raise self.copy.failed(error) from None
        self._listen()
        try:
            for work in (self._keep, self._finish):
                _in_background(self._guard, work)
            self.copy.resume()
            self._bring()
            while not self._settled():
                self.wait(BEAT_S)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._place(self.told.position))

    def report(self):
        """What came of it, for the JSON line."""
        return {
            "ready_s": self.ready_s,
            "seconds": round(time.monotonic() - self.started, 3),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "chunks": len(self.copy.chunks),
            "chunks_resumed": self.copy.resumed,
            "chunks_refused": sum(self.wrong.values()),
            "skipped": self.skipped,
            "unheard": [self.told.peers[one] for one in sorted(self.below - self.finished)],
            "strangers": self.strangers,
        }

    def wait(self, wait_s):
        """Wait for a change of this node's own state, or that long."""
        self.check()
        if _readable(self.bell, wait_s):
            os.read(self.bell, 4096)

    def check(self):
        """Raise what ended this node's part."""
        if self.trouble:
            raise self.trouble
        if time.monotonic() - self.started > self.told.give_up_s:
            raise Trouble("no_source", "give_up_s: not done after %d s" % self.told.give_up_s)

    def mac(self, role, child, parent, nonces):
        """The proof that ``role`` of two neighbours knows the token, here and now and for this image."""
        said = GREETING + role + self.told.digest.encode("ascii") + struct.pack("!II", child, parent) + nonces
        return hmac.new(self.token, said, hashlib.sha256).digest()

    # The copy

    def _keep(self):
        """Verify and write a chunk while the next one is on its way."""
        while True:
            link, number, content = self.incoming.get()
            try:
                if not self.copy.put(number, content):
                    link.wrong = True
                self.progress_at = time.monotonic()
            finally:
                self.incoming.task_done()

    def _finish(self):
        """Prove the whole while it grows."""
        if not self.copy.ready:
            self.copy.finish()
        with self.lock:
            self.ready_s = round(time.monotonic() - self.started, 3)
            self.finished.add(self.told.position)
        self._ring()

    def _guard(self, work):
        """Run what keeps the copy; where it fails, this node's part is over."""
        try:
            work()
        except Trouble as trouble:
            self.trouble = trouble
        except OSError as error:
            self.trouble = self.copy.failed(error)
        link = self.link
        if self.trouble and link:
            link.cut()
        self._ring()
        while self.trouble:  # or who fills the queue would wait for ever
            self.incoming.get()
            self.incoming.task_done()

    def _ring(self):
        with contextlib.suppress(BlockingIOError):
            os.write(self.rope, b"!")

    # Upwards

    def _bring(self):
        """Ask the nearest ancestor; when it gives no more, the next. Ends when all is here and told to one of them."""
        passed = set()
        while True:
            ways = [way for way in [*self.above, FILE] if self.wrong.get(way, 0) < WRONG_TWICE]
            if not ways:
                raise Trouble("corrupt", "source: nobody above gave what the index names")
            left = [way for way in ways if way not in passed]
            if not left and self.ready_s is not None:
                return None
            if not left and time.monotonic() - self.progress_at > (self.told.start_s if self.above else 0):
                raise Trouble("no_source", "source: nobody gives the rest; %s" % json.dumps(self.skipped[-3:]))
            if not left:
                passed.clear()
                self.wait(0.2)
                continue
            try:
                return self._draw_file() if left[0] == FILE else self._draw(left[0])
            except Lost as lost:
                self.incoming.join()
                self.check()
                self._pass_over(left[0], lost, passed)

    def _pass_over(self, way, lost, passed):
        """Note that one above gives no more. One that was wrong is asked once again: it may have been the wire."""
        if self.link and self.link.wrong:
            self.wrong[way] = self.wrong.get(way, 0) + 1
        else:
            passed.add(way)
        if lost.gone and way != FILE:
            with self.lock:
                self.gone.add(way)
        entry = {"node": self._name(way), "why": str(lost)}
        if entry not in self.skipped:
            self.skipped.append(entry)

    def _draw_file(self):
        """Read what is missing from the source itself."""
        self.link = link = Link(self, None)
        self.above_bytes = self.copy.size
        try:
            with open(self.told.source, "rb", buffering=0) as file:
                for number in self.copy.missing():
                    self.check()
                    offset, length, _ = self.copy.chunks[number]
                    self._take(FILE, number, os.pread(file.fileno(), length, offset))
                    link.check()
        except OSError as error:
            raise Lost("cannot be read here: %s" % error) from None
        self.incoming.join()
        self.check()
        link.check()

    def _draw(self, parent):
        """Take from a parent what is missing, then tell it once everybody below is served."""
        with contextlib.closing(self._reach(parent)) as link:
            try:
                self._converse(link, parent)
            except Lost as lost:
                is_asked_again = link.wrong and self.wrong.get(parent, 0) + 1 < WRONG_TWICE
                if not (lost.gone or is_asked_again):
                    link.leave(self.below)
                raise

    def _converse(self, link, parent):
        pace = Pace(self.told.least_bytes_per_s, self.told.patience_s, LAG_CHUNKS * self.copy.chunks[0][1])
        while not self._settled():
            if not link.has_news():
                continue
            kind, first, second = link.frame()
            if kind == CHUNK:
                self._take(parent, first, link.chunk(first, second))
            elif kind == BEAT:
                self.above_bytes = first
                if pace.is_slow(time.monotonic(), self.copy.arrived_bytes, first, second) and parent != 0:
                    raise Lost("is slow", gone=False)
        link.farewell(self.finished, self.gone)

    def _take(self, way, number, content):
        name = self._name(way)
        self.bytes_in[name] = self.bytes_in.get(name, 0) + len(content)
        self.incoming.put((self.link, number, content))

    def _reach(self, parent):
        """The link to a parent; one that has not shown up yet is waited for while everybody starts."""
        self.link = None
        while True:
            try:
                sock = socket.create_connection(self._address_of(parent), HELLO_S, (self.address, 0))
                self.link = Link(self, sock)
                self.link.introduce(parent)
                return self.link
            except Silent:
                raise
            except (OSError, ValueError, Lost) as error:
                self.link = None  # closes it
                if time.monotonic() - self.started > self.told.start_s:
                    raise Lost("cannot be reached: %s" % error) from None
            self.wait(0.1)

    def _name(self, way):
        return FILE if way == FILE else self.told.peers[way]

    # Where to meet

    def _listen(self):
        """Listen on the cluster's network, and tell the others where."""
        self.address = _own_address(self.told)
        listener = socket.socket()
        listener.bind((self.address, 0))
        listener.listen(64)
        path = self._place(self.told.position)
        with open(path + ".new", "w") as file:
            json.dump(listener.getsockname(), file)
        os.rename(path + ".new", path)
        _in_background(self._accept, listener)

    def _address_of(self, position):
        os.listdir(self.told.meeting_dir)  # a network file system looks again for what it has missed
        with open(self._place(position)) as file:
            host, port = json.load(file)
        return host, port

    def _place(self, position):
        return os.path.join(self.told.meeting_dir, str(position))

    # Downwards

    def _accept(self, listener):
        while True:
            sock, _ = listener.accept()
            if self.greeted.acquire(blocking=False):
                _in_background(self._serve, sock)
            else:
                self.strangers += 1
                sock.close()

    def _serve(self, sock):
        """Greet one who connects, and feed it."""
        with sock:
            try:
                child, has = self._greet(sock)
            except (Lost, OSError):
                self.strangers += 1
                return
            finally:
                self.greeted.release()
            with self.lock:
                self.children.add(sock)
                self.gone.discard(child)
            with contextlib.suppress(Lost, OSError):
                try:
                    self._feed(sock, child, has)
                except OSError:
                    self._hear_out(sock)
            with self.lock:
                self.children.discard(sock)
                self.quiet_since = time.monotonic()
            self._ring()

    def _greet(self, sock):
        """Which node this is, once it has proved the token, and what it has."""
        buffer_bytes = min(SEND_BUFFER_BYTES, 2 * self.copy.chunks[0][1])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        sock.settimeout(HELLO_S)
        ours = os.urandom(NONCE_BYTES)
        sock.sendall(GREETING + ours)
        said = _receive(sock, 4 + NONCE_BYTES + MAC_BYTES)
        (child,), nonces, me = struct.unpack("!I", said[:4]), ours + said[4:-MAC_BYTES], self.told.position
        proof = self.mac(b"child", child, me, nonces)
        if not hmac.compare_digest(proof, bytes(said[-MAC_BYTES:])) or child not in self.below:
            raise Lost("is a stranger")
        sock.sendall(self.mac(b"parent", child, me, nonces))
        sock.settimeout(self.told.stall_s)
        has = _receive(sock, len(self.copy.chunks))
        gone = _receive(sock, len(self.told.peers))
        with self.lock:
            self.gone |= _marked(gone) - {child}
        return child, has

    def _feed(self, sock, child, has):
        """Give a child every chunk that it lacks as soon as it is here, until it says that all below it are served."""
        name, count, beat_at, heard_at = self.told.peers[child], 0, 0.0, time.monotonic()
        self.bytes_out.setdefault(name, 0)
        while True:
            now = time.monotonic()
            all_sent = count == len(self.copy.chunks)
            if now - beat_at >= BEAT_S:
                sock.sendall(FRAME.pack(BEAT, self.copy.arrived_bytes, self.above_bytes))
                beat_at = now
            if _readable(sock, BEAT_S if all_sent else 0):
                heard_at = now
                if self._heard_the_last(sock):
                    return
            elif all_sent and now - heard_at > self.told.stall_s:
                raise Lost("silent")
            number = None if all_sent else self.copy.arrival(count, BEAT_S)
            if number is not None:
                count += 1
                if not has[number]:
                    send_chunk(sock, self.copy, number)
                    self.bytes_out[name] += self.copy.chunks[number][1]
                    heard_at = now

    def _hear_out(self, sock):
        """What a child that is gone had still said."""
        sock.settimeout(0)
        while not self._heard_the_last(sock):
            pass

    def _heard_the_last(self, sock):
        """Whether a child said that it needs no more: all below it are served, or it has turned elsewhere with them."""
        kind, _, _ = FRAME.unpack(_receive(sock, FRAME.size))
        count = len(self.told.peers)
        if kind == LEAVING:
            left = _marked(_receive(sock, count))
            with self.lock:
                self.left |= left
        elif kind == FINISHED:
            finished, gone = (_marked(_receive(sock, count)) for _ in range(2))
            with self.lock:
                self.finished |= finished & self.below
                self.gone |= gone
            sock.sendall(FRAME.pack(FINISHED, 0, 0))
        return kind in (LEAVING, FINISHED)

    def _settled(self):
        """Whether the image is here, and everybody below has it or will not come for it."""
        with self.lock:
            if self.ready_s is None or self.children:
                return False
            if self.below <= self.finished | self.gone | self.left:
                return True
            return time.monotonic() > max(self.quiet_since + self.told.orphan_s, self.started + self.told.start_s)


def send_chunk(sock, copy, number):
    """A chunk on its way down, from the file without passing through here."""
    offset, length, _ = copy.chunks[number]
    sock.sendall(FRAME.pack(CHUNK, number, length))
    if sock.sendfile(copy.file, offset, length) != length:
        raise Lost("could not be given chunk %d" % number)


class Link:
    """The neighbour above, as long as it gives: every wait for it also tells it that we are there."""

    def __init__(self, node, sock):
        self.node, self.sock, self.wrong = node, sock, False
        self.heard_at, self.beat_at = time.monotonic(), 0.0

    def introduce(self, parent):
        """Prove the token, have it proved, and say what is here."""
        node = self.node
        said = self._take(len(GREETING) + NONCE_BYTES, False)
        if said[:-NONCE_BYTES] != GREETING:
            raise Lost("is not a relay")
        nonces = bytes(said[-NONCE_BYTES:]) + os.urandom(NONCE_BYTES)
        me = node.told.position
        proof = node.mac(b"child", me, parent, nonces)
        self._send(struct.pack("!I", me) + nonces[NONCE_BYTES:] + proof)
        if not hmac.compare_digest(node.mac(b"parent", me, parent, nonces), bytes(self._take(MAC_BYTES, False))):
            raise Lost("did not prove the token")
        self._send(bytes(node.copy.have) + _marks(node.gone, len(node.told.peers)))

    def has_news(self):
        """Whether the neighbour said something, or there is news of our own within a beat."""
        self.check()
        self._beat()
        ready = select.select([self.sock, self.node.bell], [], [], BEAT_S)[0]
        if self.node.bell in ready:
            self.node.wait(0)
        if self.sock not in ready and time.monotonic() - self.heard_at > self.node.told.stall_s:
            raise Silent("silent for %d s" % self.node.told.stall_s)
        return self.sock in ready

    def frame(self):
        return FRAME.unpack(self._take(FRAME.size))

    def chunk(self, number, length):
        """The content of a chunk whose frame was read."""
        chunks = self.node.copy.chunks
        if number >= len(chunks) or chunks[number][1] != length:
            self.wrong = True
            self.check()
        return self._take(length)

    def farewell(self, finished, gone):
        """Tell the neighbour who is served, and leave when it has heard it."""
        count = len(self.node.told.peers)
        self._send(FRAME.pack(FINISHED, 0, 0) + _marks(finished, count) + _marks(gone, count))
        while self.frame()[0] != FINISHED:
            pass

    def leave(self, below):
        """Tell a neighbour who is still there that neither we nor those below us come back to it."""
        leaving = _marks({self.node.told.position, *below}, len(self.node.told.peers))
        with contextlib.suppress(Lost):
            self._send(FRAME.pack(LEAVING, 0, 0) + leaving)

    def check(self):
        """Raise when nothing more is to be taken."""
        self.node.check()
        if self.wrong:
            raise Lost("gave a wrong chunk", gone=False)

    def cut(self):
        """End the connection under whoever waits for it."""
        if self.sock:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.sock.close()

    def _take(self, count, beating=True):
        content = bytearray(count)
        left = memoryview(content)
        while left:
            self.check()
            if beating:
                self._beat()
            if _readable(self.sock, BEAT_S):
                got = self._try(self.sock.recv_into, left)
                if got == 0:
                    raise Lost("closed the connection")
                left, self.heard_at = left[got:], time.monotonic()
            elif time.monotonic() - self.heard_at > self.node.told.stall_s:
                raise Silent("silent for %d s" % self.node.told.stall_s)
        return content

    def _beat(self):
        if time.monotonic() - self.beat_at >= BEAT_S:
            self._send(FRAME.pack(BEAT, 0, 0))
            self.beat_at = time.monotonic()

    def _send(self, content):
        self._try(self.sock.sendall, content)

    def _try(self, act, content):
        try:
            return act(content)
        except OSError as error:
            raise Lost("cut the connection: %s" % error) from None


class Pace:
    """Whether a parent is slow: little came of it for a while, though it, or whoever feeds it, has more to give.

    One who lags behind its own parent is borne with longer: it may turn elsewhere itself, and often that is enough.
    """

    def __init__(self, least_bytes_per_s, patience_s, lag_bytes):
        self.least_bytes_per_s, self.patience_s, self.lag_bytes = least_bytes_per_s, patience_s, lag_bytes
        self.seen = []

    def is_slow(self, now, mine_bytes, theirs_bytes, above_them_bytes):
        """Asked at every beat: how much is here, at the parent, and at the parent's parent."""
        self.seen = [(at, then) for at, then in self.seen if now - at < 4 * self.patience_s] + [(now, mine_bytes)]
        return any(
            ahead_bytes - mine_bytes > self.lag_bytes and self._gained_little(now, mine_bytes, patience_s)
            for ahead_bytes, patience_s in ((theirs_bytes, self.patience_s), (above_them_bytes, 3 * self.patience_s))
        )

    def _gained_little(self, now, mine_bytes, patience_s):
        long_ago = [(at, then_bytes) for at, then_bytes in self.seen if now - at >= patience_s]
        if not long_ago:
            return False
        at, then_bytes = long_ago[-1]
        return mine_bytes - then_bytes < self.least_bytes_per_s * (now - at)


# -- pieces ----------------------------------------------------------------------------------------------------------


def _path_up(parents, position):
    """The ancestors of a position, the nearest first."""
    path = []
    while parents[position] is not None:
        position = parents[position]
        path.append(position)
    return path


def _own_address(told):
    """Where to listen: as told, else the address from which another node is reached."""
    if told.address:
        return told.address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        if told.interface:
            asked = struct.pack("256s", told.interface.encode("ascii")[:15])
            return socket.inet_ntoa(fcntl.ioctl(sock.fileno(), 0x8915, asked)[20:24])  # SIOCGIFADDR
        for name in told.peers:
            if name != told.peers[told.position]:
                sock.connect((name, 9))  # sends nothing: it only chooses the way
                return sock.getsockname()[0]
    return "127.0.0.1"  # alone


def _receive(sock, count):
    """Exactly so many bytes, within the socket's timeout."""
    content = bytearray(count)
    left = memoryview(content)
    while left:
        got = sock.recv_into(left)
        if got == 0:
            raise Lost("closed the connection")
        left = left[got:]
    return content


def _readable(file, wait_s):
    return bool(select.select([file], [], [], wait_s)[0])


def _marks(members, count):
    return bytes(1 if one in members else 0 for one in range(count))


def _marked(marks):
    return {one for one, mark in enumerate(marks) if mark}


def _in_background(work, *arguments):
    threading.Thread(target=work, args=arguments, daemon=True).start()


def index_lines(path, chunk_bytes):
    """The index of a file in chunks of one length."""
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(chunk_bytes), b""):
            yield "%d %s\n" % (len(chunk), hashlib.sha256(chunk).hexdigest())


def run(path):
    """Do what a file of instructions says; the exit status."""
    node, said = None, {"outcome": "ok"}
    try:
        with open(path) as file:
            told = Instructions(json.load(file))
        said["node"] = told.peers[told.position]
        node = Node(told)
        node.run()
    except Trouble as trouble:
        said.update(outcome=trouble.outcome, why=str(trouble))
    except (OSError, ValueError, TypeError) as error:
        said.update(outcome="bad_instructions" if node is None else "no_source", why="meeting_dir: %s" % error)
    if node:
        said.update(node.report())
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    return EXITS[said["outcome"]]


def main(argv):
    if len(argv) == 2 and argv[0] == "run":
        return run(argv[1])
    if len(argv) == 3 and argv[0] == "index" and argv[2].isdigit() and int(argv[2]):
        sys.stdout.writelines(index_lines(argv[1], int(argv[2])))
        return 0
    sys.stderr.write("usage: relay.py run INSTRUCTIONS.json | relay.py index FILE CHUNK_BYTES\n")
    return EXITS["bad_instructions"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
