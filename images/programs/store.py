"""The program that keeps a system's store of images: one verb per call, nothing but whole and verified files in sight.

Self-contained, for Python 3.6 and later. A request is one line of JSON on standard input, followed by raw bytes where
the verb takes some; the answer is one line of JSON. The store is a directory of one login:

    blobs/sha256/ab/<digest>   a whole image, read-only; its name is the digest of its bytes
    meta/<digest>.json         size, inode and time of that file, and the caller's record; its time is the last use
    chunks/<digest>.idx        lengths and digests of the image's chunks, in order
    tmp/<digest>.<part>.part   an image under way, with .map (a byte per chunk: 1 when it is there) and .idx beside it
    leases/<digest>/<holder>   who needs the image: job-NAME while the caller knows that job, pin-NAME until taken back
    locks/<name>               who does something that need not be done twice; its time is the last heartbeat
    trash/<digest>             an image on its way out: it comes back when somebody leases it

A file comes into sight by rename, once its bytes are on disk and have given its name. A killed call leaves at most
something in tmp/, which the next one continues. Locks save work and guard nothing: two writers of one image write the
same bytes.
"""

import errno
import hashlib
import json
import os
import re
import stat
import sys

BEATS_UNTIL_STALE = 3
LONGEST_START_S = 300  # from a job's look at an image to its open file, which outlives the trash
AVERAGE_BYTES = 65536  # of a chunk; the lengths, the window and the hash are those of images/chunks.py
LEAST_BYTES, MOST_BYTES, WINDOW_BYTES = AVERAGE_BYTES // 4, AVERAGE_BYTES * 4, 32
PIECE_BYTES = 1 << 20
ENTRIES_PER_IMAGE = 3  # the file, what is known of it, its chunks
DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
FOLDERS = ("blobs", "meta", "chunks", "tmp", "leases", "locks", "trash")
UNREADABLE = {"host": "?", "pid": 0, "nonce": None, "beat_s": 60}
"""The holder of a lock whose content a power cut took."""
FULL = (errno.ENOSPC, errno.EDQUOT)


class Refused(Exception):
    """Why a request is not done: a kind for the caller, and a sentence for people."""

    def __init__(self, kind, why):
        Exception.__init__(self, why)
        self.kind, self.why = kind, why


class Store:
    """One store. ``clock``: seconds since the epoch; without one, the time of the file system that holds the store."""

    def __init__(self, root, mode=0o700, clock=None):
        self.root, self.mode = root, mode
        self.clock = clock or self._file_system_time
        self._make_folders()

    # -- an image comes in -------------------------------------------------------------------------------------------

    def begin(self, digest, chunks, quota=None):
        """Prepare to receive an image and take what other images here share with it; the chunks still missing.

        chunks: [length in bytes, sha256 in hex] each, in order; the other verbs take the answer's ``part`` in their
        place. quota: {"bytes": n, "inodes": n}, each may be left out.
        """
        self._recall(digest)
        if self.have(digest)["have"]:
            return {"have": True, "missing": []}
        part = _Part(self, digest, chunks)
        part.reserve()
        try:
            self._room(quota)  # the part counts with its full size already: two at once cannot take the same room
        except Refused:
            part.discard()
            raise
        reused = part.take(self._held_chunks(part))
        return {"have": False, "missing": part.missing(), "reused_bytes": reused, "part": part.key}

    def fill(self, digest, chunks, numbers, stream):
        """Take chunks from the stream, one after the other, in the order of their numbers; the chunks still missing.

        Every chunk is verified before it counts, and then wherever the image has the same bytes. A stream that ends
        early is no error: what came stays.
        """
        part = _Part(self, digest, chunks)
        if not part.exists():
            if self.have(digest)["have"]:
                return {"have": True, "missing": []}
            raise Refused("not-begun", "nothing is prepared for this image; begin again")
        with part.opened() as (file, marks):
            for number in numbers:
                data = stream.read(part.length(number))
                if len(data) < part.length(number):
                    break
                part.put(file, marks, number, data)
        return {"have": False, "missing": part.missing()}

    def finish(self, digest, chunks, record=None):
        """Verify a filled image as a whole and bring it into sight; chunks that turn out wrong are missing again."""
        if self.have(digest)["have"]:
            _Part(self, digest, chunks).discard()
            return {"have": True, "missing": []}
        part = _Part(self, digest, chunks)
        if not part.exists():
            raise Refused("not-begun", "nothing is prepared for this image; begin again")
        missing = part.missing()
        if not missing and _digest_of(part.path) != digest:
            missing = part.recheck()
            if not missing:
                part.discard()
                raise Refused("corrupt", "the chunks are right, but together they are not %s; index it again" % digest)
        if missing:
            return {"have": False, "missing": missing}
        part.keep_index()
        self._show(part.path, digest, record)
        part.discard()
        return {"have": True, "missing": []}

    def put(self, digest, path, record=None, quota=None):
        """Take a whole file of this system, such as one that a job here has made; its bytes are copied and verified."""
        if self.have(digest)["have"]:
            return {"have": True}
        fresh = self._path("tmp", "%s.put.%d.%s" % (_hex(digest), os.getpid(), _nonce()))
        try:
            with open(path, "rb") as source, open(fresh, "wb") as copy:
                self._room(quota, os.fstat(source.fileno()).st_size, 2)
                found = hashlib.sha256()
                for piece in iter(lambda: source.read(PIECE_BYTES), b""):
                    found.update(piece)
                    copy.write(piece)
            if "sha256:" + found.hexdigest() != digest:
                raise Refused("corrupt", "%s is not %s but sha256:%s" % (path, digest, found.hexdigest()))
            self._show(fresh, digest, record)
        finally:
            _unlink(fresh)
        return {"have": True}

    def index(self, digest):
        """Cut an image that a job here has made into chunks, so that its next version need not come whole.

        About 10 MB/s: for a batch job or a transfer node.
        """
        if not self.have(digest)["have"]:
            raise Refused("missing", "%s is not in the store" % digest)
        if self._read_json(self._index(digest)) is None:
            with open(self._blob(digest), "rb") as file:
                self._replace(self._index(digest), json.dumps(list(_chunks(file))).encode("ascii"))
        return {"chunks": self._read_json(self._index(digest))}

    # -- an image is used --------------------------------------------------------------------------------------------

    def have(self, digest):
        """Whether the image is here as it was when it was verified; one that changed is verified again, or goes."""
        known = self._read_json(self._meta(digest))
        try:
            found = os.stat(self._blob(digest))
        except (FileNotFoundError, NotADirectoryError):
            return {"have": False}
        if known is None or [found.st_size, found.st_ino, found.st_mtime_ns] != known["file"]:
            return {"have": self.verify(digest)["whole"]}
        return {"have": True, "path": self._blob(digest), "size_bytes": found.st_size}

    def verify(self, digest):
        """Read the image as a whole; one whose bytes are not its name is taken out of sight."""
        try:
            whole = _digest_of(self._blob(digest)) == digest
        except FileNotFoundError:
            return {"whole": False}
        if whole:
            self._know(digest, self._blob(digest), self.record(digest)["record"])
        else:
            _unlink(self._blob(digest))
            _unlink(self._meta(digest))
        return {"whole": whole}

    def lease(self, digest, holder):
        """Say that the holder (job-NAME or pin-NAME) needs the image, whether it is here yet or not."""
        folder = self._path("leases", _hex(digest))
        while True:
            _mkdir(folder, self.mode)
            try:
                _write(os.path.join(folder, _holder(holder)), b"")
                break
            except FileNotFoundError:  # it was empty and was swept away; try again
                pass
        self._recall(digest)
        answer = self.have(digest)
        if answer["have"]:
            now = self.clock()
            os.utime(self._meta(digest), (now, now))
        return answer

    def release(self, digest, holder):
        """Take a lease or pin back; there being none is success."""
        _unlink(os.path.join(self._path("leases", _hex(digest)), _holder(holder)))
        return {}

    def remove(self, digest, live=None, grace_s=3600, at_once=False):
        """Move an image that nobody needs to the trash; who needs it, where somebody does. live, grace_s: as for gc.

        at_once: nobody can be about to open it, and its room is free now.
        """
        now = self.clock()
        self._drop_leases(live, now - grace_s, [_hex(digest)])
        if not self._leased(digest) and self._discard(digest, now) and at_once:
            self._empty_trash(now, [_hex(digest)])
        return {"holders": self._holders(digest)}

    # -- who does it -------------------------------------------------------------------------------------------------

    def lock(self, name, host, pid, nonce, beat_s):
        """Take a lock, or one whose holder missed its heartbeats; who holds it now."""
        path, mine = self._lock(name), {"host": host, "pid": pid, "nonce": _checked(nonce, "nonce"), "beat_s": beat_s}
        fresh = self._path("tmp", "lock.%s" % nonce)
        _write(fresh, json.dumps(mine).encode("ascii"))
        now = self.clock()
        os.utime(fresh, (now, now))
        try:
            while True:
                try:
                    os.link(fresh, path)  # as O_EXCL, with the content already in it
                    return {"held": True, "holder": mine}
                except FileExistsError:
                    pass
                holder, age_s = self._holder_of(path)
                if holder is None:
                    continue
                if holder["nonce"] == nonce:
                    return {"held": True, "holder": holder}
                if age_s <= BEATS_UNTIL_STALE * holder["beat_s"]:
                    return {"held": False, "holder": holder, "age_s": age_s}
                self._move_away(path, holder["nonce"], nonce)
        finally:
            _unlink(fresh)

    def beat(self, name, nonce):
        """Say that the holder lives; not held any more when it was silent for too long and another took over."""
        path = self._lock(name)
        holder, _ = self._holder_of(path)
        if holder is None or holder["nonce"] != nonce:
            return {"held": False}
        now = self.clock()
        os.utime(path, (now, now))
        return {"held": True}

    def unlock(self, name, nonce):
        """Give a lock back; one that another holds now stays."""
        holder, _ = self._holder_of(self._lock(name))
        if holder is not None and holder["nonce"] == nonce:
            self._move_away(self._lock(name), nonce, nonce)
        return {}

    # -- room --------------------------------------------------------------------------------------------------------

    def gc(self, quota, live=None, high=0.8, low=0.6, grace_s=3600, trash_s=3600, tmp_s=86400, need_bytes=0):
        """Above the high mark, move images that nobody needs to the trash, least recently used first, to the low mark.

        need_bytes: of an image that is to come; below the marks, too, images go until it fits.

        live: the jobs that the caller knows, without them every lease counts. A lease of a job that is not among them
        counts until it is grace_s old. The trash is emptied after trash_s: open files outlive that, and until then a
        new lease brings the image back. What lies in tmp untouched for tmp_s is given up.
        """
        now = self.clock()
        dropped = self._drop_leases(live, now - grace_s)
        emptied = self._empty_trash(now - trash_s)
        self._sweep_tmp(now - tmp_s)
        bytes_, inodes = self._usage(("blobs", "meta", "chunks", "leases"))
        more_bytes, more_inodes = self._usage(("tmp", "locks"))
        more_bytes, more_inodes = more_bytes + need_bytes, more_inodes + (ENTRIES_PER_IMAGE if need_bytes else 0)
        trashed, share = [], low if _over(bytes_, inodes, quota, high) else high
        for _, digest, size_bytes in self._by_use():
            comes = need_bytes and _over(bytes_ + more_bytes, inodes + more_inodes, quota, 1.0)
            if not comes and not _over(bytes_, inodes, quota, share):
                break
            if not self._leased(digest) and self._discard(digest, now):
                trashed.append(digest)
                bytes_, inodes = bytes_ - size_bytes, inodes - ENTRIES_PER_IMAGE
        return {"trashed": trashed, "emptied": emptied, "leases_dropped": dropped, "bytes": bytes_, "inodes": inodes}

    def repair(self):
        """Find what a purge or a crash did: images that are gone, and unknown ones that are whole or are not."""
        self._make_folders()
        gone, adopted, corrupt = [], [], []
        for name in _list(self._path("meta")):
            digest = _digest_named(name[: -len(".json")])
            if digest and not os.path.exists(self._blob(digest)) and not os.path.exists(self._trash(digest)):
                self._forget(digest)
                gone.append(digest)
        for name in _list(self._path("chunks")):
            digest = _digest_named(name[: -len(".idx")])
            if digest and not os.path.exists(self._blob(digest)) and not os.path.exists(self._trash(digest)):
                _unlink(self._index(digest))
        for digest in self._digests():
            if not os.path.exists(self._meta(digest)):
                (adopted if self.verify(digest)["whole"] else corrupt).append(digest)
        return {"gone": gone, "adopted": adopted, "corrupt": corrupt}

    def stats(self):
        """What the store holds, and what it costs; the trash and what is under way take room, too."""
        bytes_, inodes = self._usage(FOLDERS)
        trash_bytes, _ = self._usage(("trash",))
        held = [
            {"digest": digest, "size_bytes": size, "used_at": used_at, "leases": self._holders(digest)}
            for used_at, digest, size in self._by_use()
        ]
        return {"images": held, "bytes": bytes_, "inodes": inodes, "trash_bytes": trash_bytes}

    def record(self, digest):
        """What the caller wrote beside the image."""
        return {"record": (self._read_json(self._meta(digest)) or {}).get("record")}

    # -- into and out of sight ---------------------------------------------------------------------------------------

    def _show(self, path, digest, record):
        """Bring a verified file into sight under its name."""
        fd = os.open(path, os.O_RDONLY)
        os.fchmod(fd, 0o444)
        os.fsync(fd)
        os.close(fd)
        self._know(digest, path, record)  # first: a killed call must not leave an image without its record
        _mkdir(os.path.dirname(self._blob(digest)), self.mode)
        os.rename(path, self._blob(digest))
        _sync(os.path.dirname(self._blob(digest)))

    def _know(self, digest, path, record):
        found = os.stat(path)
        file = [found.st_size, found.st_ino, found.st_mtime_ns]
        now = self.clock()
        self._replace(self._meta(digest), json.dumps({"file": file, "record": record}).encode("ascii"))
        os.utime(self._meta(digest), (now, now))

    def _discard(self, digest, now):
        """To the trash, and back when somebody leased it at this very moment; whether it went."""
        try:
            os.rename(self._blob(digest), self._trash(digest))
        except FileNotFoundError:
            return False
        _write(self._trash(digest) + ".since", repr(now).encode("ascii"))
        if self._leased(digest):
            self._restore(digest)
            return False
        return True

    def _recall(self, digest):
        """Bring an image back that is on its way out, because somebody wants it."""
        if os.path.exists(self._trash(digest)) and not os.path.exists(self._blob(digest)):
            self._restore(digest)

    def _restore(self, digest):
        _mkdir(os.path.dirname(self._blob(digest)), self.mode)
        try:
            os.rename(self._trash(digest), self._blob(digest))
        except FileNotFoundError:
            return
        _unlink(self._trash(digest) + ".since")

    def _empty_trash(self, until, names=None):
        emptied = []
        for name in _list(self._path("trash")) if names is None else names:
            digest = _digest_named(name)
            if digest is None:
                continue
            since = self._read_json(self._trash(digest) + ".since")
            if since is None:  # killed between the two; its hour begins now
                _write(self._trash(digest) + ".since", repr(self.clock()).encode("ascii"))
            elif self._leased(digest):
                self._restore(digest)
            elif since <= until:
                _unlink(self._trash(digest))
                _unlink(self._trash(digest) + ".since")
                if not os.path.exists(self._blob(digest)):
                    self._forget(digest)
                emptied.append(digest)
        return emptied

    def _forget(self, digest):
        _unlink(self._meta(digest))
        _unlink(self._index(digest))
        try:
            os.rmdir(self._path("leases", _hex(digest)))
        except OSError:  # somebody waits for it
            pass

    # -- leases and locks --------------------------------------------------------------------------------------------

    def _holders(self, digest):
        return _list(self._path("leases", _hex(digest)))

    def _leased(self, digest):
        return bool(self._holders(digest))

    def _drop_leases(self, live, until, names=None):
        """Of these images, or of all; live None: nobody knows which jobs there are."""
        dropped = 0
        names = _list(self._path("leases")) if names is None else names
        for name in names if live is not None else ():
            for holder in _list(self._path("leases", name)):
                path = self._path("leases", name, holder)
                if holder.startswith("job-") and holder[len("job-") :] not in live and _changed_at(path) <= until:
                    _unlink(path)
                    dropped += 1
        return dropped

    def _holder_of(self, path):
        """Who holds a lock, and for how long it was silent; nobody when it was given back meanwhile."""
        holder = self._read_json(path) or UNREADABLE
        try:
            return holder, self.clock() - _changed_at(path)
        except FileNotFoundError:
            return None, 0

    def _move_away(self, path, expected, nonce):
        """Take a lock file away by rename; one that is another's by now is put back, unless a third took its place."""
        away = self._path("tmp", "away.%s" % nonce)
        try:
            os.rename(path, away)
        except FileNotFoundError:
            return
        if (self._read_json(away) or UNREADABLE)["nonce"] != expected:
            try:
                os.link(away, path)
            except FileExistsError:
                pass
        _unlink(away)

    # -- room --------------------------------------------------------------------------------------------------------

    def _room(self, quota, more_bytes=0, more_inodes=0):
        """Refuse what does not fit, even without the trash that no job can be about to open."""
        if not quota or self._fits(quota, more_bytes, more_inodes):
            return
        self._empty_trash(self.clock() - LONGEST_START_S)
        if not self._fits(quota, more_bytes, more_inodes):
            bytes_, inodes = self._usage(FOLDERS)
            raise Refused(
                "full",
                "the store would hold %d bytes in %d files, %d bytes of them in the trash for less than %d s, and its "
                "quota is %s; collect garbage, or raise the quota"
                % (
                    bytes_ + more_bytes,
                    inodes + more_inodes,
                    self._usage(("trash",))[0],
                    LONGEST_START_S,
                    json.dumps(quota, sort_keys=True),
                ),
            )

    def _fits(self, quota, more_bytes, more_inodes):
        bytes_, inodes = self._usage(FOLDERS)
        return not _over(bytes_ + more_bytes, inodes + more_inodes, quota, 1.0)

    def _usage(self, folders):
        """Bytes and entries below these folders."""
        bytes_ = inodes = 0
        for folder in folders:
            for where, below, files in os.walk(self._path(folder)):
                inodes += len(below) + len(files)
                for name in files:
                    try:
                        bytes_ += os.lstat(os.path.join(where, name)).st_size
                    except FileNotFoundError:
                        pass
        return bytes_, inodes

    def _by_use(self):
        """Last use, digest and size of each image, least recently used first."""
        held = []
        for digest in self._digests():
            try:
                used_at = _changed_at(self._meta(digest))
            except FileNotFoundError:
                used_at = 0
            try:
                size = os.stat(self._blob(digest)).st_size
            except FileNotFoundError:
                continue
            held.append((used_at, digest, size))
        return sorted(held)

    def _sweep_tmp(self, until):
        for name in _list(self._path("tmp")):
            path = self._path("tmp", name)
            try:
                if _changed_at(path) <= until:
                    _unlink(path)
            except FileNotFoundError:
                pass

    # -- chunks ------------------------------------------------------------------------------------------------------

    def _held_chunks(self, part):
        """Where the chunks that a part wants are in the images here: digest to (file, offset)."""
        wanted, found = set(part.digests()), {}
        for name in _list(self._path("chunks")):
            digest = _digest_named(name[: -len(".idx")])
            if digest is None or not os.path.exists(self._blob(digest)):
                continue
            offset = 0
            for length, chunk in self._read_json(self._index(digest)) or ():
                if chunk in wanted:
                    found[chunk] = (self._blob(digest), offset)
                offset += length
        return found

    # -- paths -------------------------------------------------------------------------------------------------------

    def _path(self, *parts):
        return os.path.join(self.root, *parts)

    def _blob(self, digest):
        return self._path("blobs", "sha256", _hex(digest)[:2], _hex(digest))

    def _meta(self, digest):
        return self._path("meta", _hex(digest) + ".json")

    def _index(self, digest):
        return self._path("chunks", _hex(digest) + ".idx")

    def _trash(self, digest):
        return self._path("trash", _hex(digest))

    def _lock(self, name):
        return self._path("locks", _checked(name, "name"))

    def _digests(self):
        folder = self._path("blobs", "sha256")
        names = (name for first in _list(folder) for name in _list(os.path.join(folder, first)))
        return [digest for digest in map(_digest_named, names) if digest]

    def _make_folders(self):
        """The folders of the store, where others can neither read nor write: images may be private."""
        try:
            os.makedirs(os.path.dirname(self.root), exist_ok=True)
            _mkdir(self.root, self.mode)
            found = os.lstat(self.root)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
                raise Refused("unsafe", "%s must be a directory of this login that nobody else may write" % self.root)
            for folder in (*FOLDERS, "blobs/sha256"):
                _mkdir(self._path(folder), self.mode)
        except OSError as error:
            raise Refused(
                "full" if error.errno in FULL else "unusable", "the store cannot be made: %s" % error
            ) from error

    def _file_system_time(self):
        """What the file server's clock says, which is the one that stamps files, whichever node asks."""
        path = self._path("tmp", "clock.%d.%s" % (os.getpid(), _nonce()))
        _write(path, b"")
        try:
            return _changed_at(path)
        finally:
            _unlink(path)

    def _replace(self, path, data):
        fresh = self._path("tmp", "%s.%d.%s" % (os.path.basename(path), os.getpid(), _nonce()))
        _write(fresh, data, durable=True)
        os.rename(fresh, path)

    @staticmethod
    def _read_json(path):
        try:
            with open(path) as file:
                return json.load(file)
        except FileNotFoundError:
            return None
        except ValueError:  # cut short by a full disk or a lost power supply: as if it were not there
            return None


class _Part:
    """An image under way: a file of its full size, and a map with a byte per chunk that says which are in it."""

    def __init__(self, store, digest, chunks):
        """chunks: all of them, or the ``key`` of a part that was begun; one that is not there has none."""
        self._store, self._digest = store, digest
        self._chunks, self._offsets, self._places, size = [], [], {}, 0
        if isinstance(chunks, str):
            self.key = _checked(chunks, "part")
            chunks = store._read_json(self._in_tmp("idx")) or ()
        for length, chunk in chunks:
            if not (isinstance(length, int) and length > 0 and DIGEST.match("sha256:%s" % chunk)):
                raise Refused("invalid", "chunk %d is not [length, sha256 in hex]" % len(self._chunks))
            self._places.setdefault((length, chunk), []).append(len(self._chunks))
            self._chunks.append((length, chunk))
            self._offsets.append(size)
            size += length
        self._size = size
        self._index = json.dumps(self._chunks).encode("ascii")
        if not hasattr(self, "key"):
            self.key = hashlib.sha256(self._index).hexdigest()[:16]
        self.path, self._map, self._kept_index = map(self._in_tmp, ("part", "map", "idx"))

    def _in_tmp(self, kind):
        return self._store._path("tmp", "%s.%s.%s" % (_hex(self._digest), self.key, kind))

    def digests(self):
        return [chunk for _, chunk in self._chunks]

    def length(self, number):
        if not (isinstance(number, int) and 0 <= number < len(self._chunks)):
            raise Refused("invalid", "the image has %d chunks, there is no number %r" % (len(self._chunks), number))
        return self._chunks[number][0]

    def exists(self):
        return all(map(os.path.exists, (self.path, self._map, self._kept_index)))

    def reserve(self):
        """Make the files where they are not; two that do so at once share them."""
        if not os.path.exists(self._kept_index):
            self._make(self._kept_index, lambda file: file.write(self._index))
        if not os.path.exists(self.path):
            _unlink(self._map)
            self._make(self.path, lambda file: file.truncate(self._size))
        if not os.path.exists(self._map):
            self._make(self._map, lambda file: file.write(b"0" * len(self._chunks)))

    def _make(self, path, fill):
        fresh = "%s.%d.%s" % (path, os.getpid(), _nonce())
        try:
            with open(fresh, "wb") as file:
                fill(file)
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            _unlink(fresh)

    def discard(self):
        _unlink(self.path)
        _unlink(self._map)
        _unlink(self._kept_index)

    def opened(self):
        return _Opened(self.path, self._map)

    def put(self, file, marks, number, data):
        length, chunk = self._chunks[number]
        if len(data) != length or hashlib.sha256(data).hexdigest() != chunk:
            raise Refused("corrupt", "chunk %d did not arrive as it was sent; send it again" % number)
        for place in self._places[length, chunk]:
            _write_at(file, data, self._offsets[place])
            _write_at(marks, b"1", place)

    def take(self, held):
        """Copy the chunks that other images here have; the bytes that need not come."""
        taken = 0
        with self.opened() as (file, marks):
            for length, chunk in {self._chunks[number]: None for number in self.missing()}:
                if chunk not in held:
                    continue
                places = self._places[length, chunk]
                path, offset = held[chunk]
                try:
                    with open(path, "rb") as blob:
                        blob.seek(offset)
                        self.put(file, marks, places[0], blob.read(length))
                except (FileNotFoundError, Refused):  # gone, or not what its index says: it has to come
                    continue
                taken += length * len(places)
        return taken

    def missing(self):
        with open(self._map, "rb") as marks:
            return [number for number, mark in enumerate(marks.read()) if mark != ord("1")]

    def recheck(self):
        """Read every chunk again; those that are not what they should be are missing."""
        with self.opened() as (file, marks):
            for number, (length, chunk) in enumerate(self._chunks):
                if hashlib.sha256(os.pread(file, length, self._offsets[number])).hexdigest() != chunk:
                    _write_at(marks, b"0", number)
        return self.missing()

    def keep_index(self):
        self._store._replace(self._store._index(self._digest), self._index)


class _Opened:
    """Both files of a part, open to be written; never made by this."""

    def __init__(self, *paths):
        self._paths, self._fds = paths, []

    def __enter__(self):
        try:
            for path in self._paths:
                self._fds.append(os.open(path, os.O_RDWR))
        except FileNotFoundError:
            self.__exit__()
            raise Refused("not-begun", "what had come of this image is gone; begin again") from None
        return self._fds

    def __exit__(self, *_):
        while self._fds:
            os.close(self._fds.pop())


def _chunks(file):
    """Length and digest of each content-defined chunk of a file, in order."""
    gear = [int.from_bytes(hashlib.sha256(b"berth chunk %d" % byte).digest()[:4], "big") for byte in range(256)]
    sooner, later = 2**32 // (AVERAGE_BYTES * 4), 2**32 // (AVERAGE_BYTES // 4)
    data, before = file.read(PIECE_BYTES), b""
    while data:
        low, value = None, 0
        for byte in (before + data[: LEAST_BYTES - 1])[-(WINDOW_BYTES - 1) :]:
            value = (value << 1) + gear[byte] & 0xFFFFFFFF
        for position, byte in enumerate(data[LEAST_BYTES - 1 : MOST_BYTES], LEAST_BYTES):
            value = (value << 1) + gear[byte] & 0xFFFFFFFF
            if value < later and (position >= AVERAGE_BYTES or value < sooner):
                low = position
                break
        length = low or min(MOST_BYTES, len(data))
        yield [length, hashlib.sha256(data[:length]).hexdigest()]
        before, data = data[max(0, length - WINDOW_BYTES) : length], data[length:]
        if len(data) < MOST_BYTES:
            data += file.read(PIECE_BYTES)


# -- names -----------------------------------------------------------------------------------------------------------


def _hex(digest):
    if not (isinstance(digest, str) and DIGEST.match(digest)):
        raise Refused("invalid", "%.80r is not a digest: sha256: and 64 hexadecimal digits" % (digest,))
    return digest[len("sha256:") :]


def _digest_named(name):
    digest = "sha256:" + name
    return digest if DIGEST.match(digest) else None


def _checked(name, what):
    if not (isinstance(name, str) and NAME.match(name)):
        raise Refused("invalid", "%s %.80r: letters, digits, dot, dash and underscore only" % (what, name))
    return name


def _holder(holder):
    if not _checked(holder, "holder").startswith(("job-", "pin-")):
        raise Refused("invalid", "holder %s: job-NAME or pin-NAME" % holder)
    return holder


def _over(bytes_, inodes, quota, share):
    used = {"bytes": bytes_, "inodes": inodes}
    return any(used[what] > share * limit for what, limit in quota.items())


def _nonce():
    return "%x" % int.from_bytes(os.urandom(8), "big")


# -- files -----------------------------------------------------------------------------------------------------------


def _digest_of(path):
    found = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(PIECE_BYTES), b""):
            found.update(piece)
    return "sha256:" + found.hexdigest()


def _list(folder):
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _changed_at(path):
    return os.stat(path).st_mtime


def _mkdir(path, mode):
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return
    os.chmod(path, mode)


def _unlink(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _write(path, data, durable=False):
    with open(path, "wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def _write_at(fd, data, offset):
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _sync(folder):
    fd = os.open(folder, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


# -- requests --------------------------------------------------------------------------------------------------------

VERBS = (
    *("begin", "fill", "finish", "put", "index", "have", "verify", "record", "lease", "release", "remove"),
    *("lock", "beat", "unlock", "gc", "repair", "stats"),
)


def answer(request, stream):
    """The answer to one request; ``stream`` holds the bytes that follow it."""
    try:
        if request["do"] not in VERBS:
            raise Refused("invalid", "no verb %.40r" % (request["do"],))
        store = Store(request["root"], request.get("mode", 0o700))
        if request["do"] == "fill":
            request["with"]["stream"] = stream
        return getattr(store, request["do"])(**request["with"])
    except Refused as refusal:
        return {"error": refusal.kind, "why": refusal.why}
    except OSError as error:
        return {"error": "full" if error.errno in FULL else "unusable", "why": str(error)}


def main():
    request = json.loads(sys.stdin.buffer.readline().decode("ascii"))
    os.umask(0o777 & ~request.get("mode", 0o700))
    sys.stdout.write(json.dumps(answer(request, sys.stdin.buffer)) + "\n")


if __name__ == "__main__":
    main()
