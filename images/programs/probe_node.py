"""The program that a small job runs on a compute node: what the node is and has, each fact with what showed it.

Self-contained, for Python 3.6 and later, without root. It takes one JSON object as its argument, ``{"scratch": path,
"registry": host, "limit_s": seconds}``, all optional, and prints one JSON line: ``{"format": 1, "at": epoch seconds,
"facts": {name: [value, evidence]}}``. Facts are asked side by side under one time limit. What cannot be found is left
out; an empty list means that it was looked for and is not there.
"""

import base64
import glob
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time

LIMIT_S = 10
MAX_OUTPUT_BYTES = 256 * 1024
MAX_LIBRARY_BYTES = 256 * 1024 * 1024
SYSTEM_LIBRARIES = re.compile(
    r"^(ld-linux|libc|libm|libdl|librt|libpthread|libresolv|libutil|libnsl|libgcc_s|libstdc\+\+|linux-vdso)\b"
)
"""Libraries that an image has itself, and that must be its own."""

BESIDE = {True: ("openmpi", "pmix", "pmix2", "ucx", "libfabric"), False: ("ucx", "libfabric")}
"""Folders in which a library of MPI looks for its plugins, by whether it is Open MPI; pmix2 is Debian's name."""

SWITCHED = {"Enabled": True, "Disabled": False, "yes": True, "no": False}

TINY_IMAGES = {
    "gzip": (
        "aHNxcwIAAAAAAAAAAAACAAEAAAABABEAwAABAAQAAAAgAAAAAAAAANoAAAAAAAAA0gAAAAAAAAD//////////2YAAAAAAAAAhwAAAAAAAACs"
        "AAAAAAAAAMQAAAAAAAAAYmVydGgKHwB42mNiWMLIAAVwBhSwgcXewoWZkGgJIGYGYgBG0AG9EQB42mNggABGKM0ExIkAAI0AZRCAYAAAAAAA"
        "AAAGAAABAAAAAJoAAAAAAAAADgB42mNggAAFKA0AARAAIbQAAAAAAAAABIAAAAAAzAAAAAAAAAA="
    ),
    "zstd": (
        "aHNxcwIAAAAAAAAAAAACAAEAAAAGABEAwAABAAQAAAAgAAAAAAAAAO8AAAAAAAAA5wAAAAAAAAD//////////2YAAAAAAAAAlgAAAAAAAAC/"
        "AAAAAAAAANkAAAAAAAAAYmVydGgKLgAotS/9IEAtAQDIAgCkAQABAAYAAAABAO0BAAIYAAAAAwAAAAQArxEgO0BiF2gBFYAAAAAAAAAAAAEA"
        "AAAAAAAAAgAAAGEQgGAAAAAAAAAABgAAAQAAAACtAAAAAAAAABCAAAAAAAAAAAAgAAAAAAAAAMcAAAAAAAAABIAAAAAA4QAAAAAAAAA="
    ),
}
"""Squashfs images of one file, ``a``, that says ``berth``: to be mounted as a trial of each compressor."""


# -- the machine -----------------------------------------------------------------------------------------------------


def cpu(ask):
    """What archspec is asked with, and the machine as the kernel names it; Arm speaks of implementer and part."""
    rows = {}
    for line in read("/proc/cpuinfo").split("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        rows[name.strip()] = value.strip()
    flags = rows.get("flags") or rows.get("Features")
    yield (
        "cpu",
        {
            "machine": os.uname().machine,
            "vendor": rows.get("vendor_id") or rows.get("CPU implementer"),
            "part": rows.get("CPU part"),
            "model": rows.get("model name") or rows.get("cpu"),
            "flags": flags.split() if flags else None,
        },
        "/proc/cpuinfo",
    )


def memory(ask):
    """What all jobs on the node share."""
    yield "memory_bytes", int(first(r"^MemTotal:\s+(\d+) kB", read("/proc/meminfo"))) * 1024, "/proc/meminfo"
    yield "page_size_bytes", os.sysconf("SC_PAGE_SIZE"), "sysconf"


def kernel(ask):
    """Its release, and whether users may make user namespaces: by making one."""
    yield "kernel", os.uname().release, "uname -r"
    if shutil.which("unshare"):
        code, text = run(["unshare", "-Ur", "true"])
        if code is not None:
            yield "user_namespaces", code == 0, "unshare -Ur true: %s" % (text.strip() or "works")
    elif read("/proc/sys/user/max_user_namespaces").strip() == "0":
        yield "user_namespaces", False, "/proc/sys/user/max_user_namespaces is 0"


# -- GPUs ------------------------------------------------------------------------------------------------------------


def nvidia(ask):
    """Models, driver and the driver's own CUDA; old drivers do not tell the compute capability."""
    if not shutil.which("nvidia-smi"):
        return
    for columns in (["compute_cap", "mig.mode.current"], ["mig.mode.current"], []):
        query = "--query-gpu=" + ",".join(["name", "driver_version", *columns])
        code, text = run(["nvidia-smi", query, "--format=csv,noheader"])
        if code == 0:
            break
    else:
        return
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.count(",") > len(columns)]
    _, details = run(["nvidia-smi", "-q"])
    brand = first(r"Product Brand\s*:\s*(\S[^\n]*)", details)
    kinds = {}
    for row in rows:
        told = dict(zip(columns, row[2:]))
        kind = {
            "name": row[0],
            "compute_capability": told.get("compute_cap"),
            "brand": brand.strip().lower().replace(" ", "") if brand else None,
            "mig": SWITCHED.get(told.get("mig.mode.current", "")),
        }
        key = json.dumps(kind, sort_keys=True)
        kinds.setdefault(key, dict(kind, count=0))["count"] += 1
    yield "gpus", [without_nothing(kind) for kind in kinds.values()], "nvidia-smi " + query
    if rows:
        yield "gpu_driver", rows[0][1], "nvidia-smi " + query
    _, header = run(["nvidia-smi"])
    own = first(r"CUDA Version:\s*([\d.]+)", header)
    if own:
        yield "driver_cuda", own, "nvidia-smi"


def amd(ask):
    """Targets of AMD's GPUs, as rocminfo lists its agents; and the kernel driver's version."""
    version = read("/sys/module/amdgpu/version").strip()
    if version:
        yield "rocm_driver", version, "/sys/module/amdgpu/version"
    rocminfo = shutil.which("rocminfo") or "/opt/rocm/bin/rocminfo"
    code, text = run([rocminfo])
    if code != 0:
        return
    kinds = {}
    for agent in re.split(r"\*{3,}\s*Agent \d+\s*\*{3,}", text)[1:]:
        target, name = first(r"^\s*Name:\s+(gfx\w+)", agent), first(r"^\s*Marketing Name:\s+(\S[^\n]*)", agent)
        if target:
            key = (target, (name or target).strip())
            kinds[key] = kinds.get(key, 0) + 1
    if kinds:
        found = [{"name": name, "target": target, "count": count} for (target, name), count in sorted(kinds.items())]
        yield "gpus", found, "rocminfo"


def no_gpu(ask):
    """Proof that there is none: neither maker's driver is loaded."""
    if not glob.glob("/dev/nvidia*") and not os.path.exists("/proc/driver/nvidia") and not os.path.exists("/dev/kfd"):
        yield "gpus", [], "no /dev/nvidia*, no /dev/kfd"


def compat(ask):
    """Newer CUDA drivers in user space that the site has installed."""
    found = []
    for path in sorted(glob.glob("/usr/local/cuda*/compat/libcuda.so.*.*")):
        found.append({"folder": os.path.dirname(path), "driver": os.path.basename(path)[len("libcuda.so.") :]})
    yield "compat", found, "/usr/local/cuda*/compat"


# -- the container runtime -------------------------------------------------------------------------------------------


def runtimes(ask):
    """Apptainer or Singularity: version, how it may mount, and what it could when it was tried."""
    found = []
    for name in ("apptainer", "singularity"):
        path = os.path.realpath(shutil.which(name) or "/nowhere")
        code, text = run([path, "--version"])
        if code == 0 and path not in [each["path"] for each in found]:
            version = first(r"(\d+\.\d+(?:\.\d+)?)", text)
            found.append(dict(_runtime(path), name=name, path=path, version=version))
    evidence = ", ".join(each.pop("path") for each in found)
    if found:  # on many sites a module brings it, so that none on PATH is no proof of none
        yield "runtimes", [without_nothing(each) for each in found], evidence


def _runtime(path):
    built = dict(re.findall(r"^(\w+)=(.*)$", run([path, "buildcfg"])[1] or "", re.M))
    says = read(built.get("APPTAINER_CONF_FILE") or built.get("SINGULARITY_CONF_FILE") or "/nowhere")
    rules = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in says.splitlines())}
    library = built.get("LIBEXECDIR", "/usr/libexec")
    setuid = _is_setuid(built.get("LIBEXECDIR")) if rules.get("allow setuid", "yes") == "yes" else False
    squashfuse = shutil.which("squashfuse_ll") or shutil.which("squashfuse")
    bundled = glob.glob(os.path.join(library, "*", "bin", "squashfuse_ll"))
    program = bundled[0] if bundled else squashfuse
    mounted = [each for each in sorted(TINY_IMAGES) if program and _mounts(program, each)]
    return {
        "setuid": setuid,
        "setuid_mounts": False if setuid is False else SWITCHED.get(rules.get("allow setuid-mount squashfs", "")),
        "fuse": bool(mounted),
        "bare_squashfs": SWITCHED.get(rules.get("allow container squashfs", "")),
        "compressors": mounted if mounted else None,
        "nvccli": SWITCHED.get(rules.get("use nvidia-container-cli", "")),
    }


def _is_setuid(library):
    """Whether containers are started as root; None where no starter is found: a site may keep it elsewhere."""
    starters = glob.glob(os.path.join(library, "*", "bin", "starter*")) if library else []
    found = [os.stat(each) for each in starters if each.endswith("-suid")]
    return any(each.st_mode & stat.S_ISUID and each.st_uid == 0 for each in found) if starters else None


def _mounts(program, compressor):
    """Whether squashfuse shows the file of a tiny image; it is unmounted again whatever happens."""
    folder = tempfile.mkdtemp(prefix="berth-probe-")
    image, mount = os.path.join(folder, "image"), os.path.join(folder, "mount")
    server = None
    try:
        os.mkdir(mount)
        with open(image, "wb") as file:
            file.write(base64.b64decode(TINY_IMAGES[compressor]))
        server = start([program, "-f", image, mount], subprocess.DEVNULL)
        until = time.time() + 3
        while time.time() < until and server.poll() is None:
            if read(os.path.join(mount, "a")) == "berth\n":
                return True
            time.sleep(0.02)
        return False
    except OSError:
        return False
    finally:
        if server is not None:
            end(server)
        for tool in ("fusermount3", "fusermount"):
            if os.path.ismount(mount) and shutil.which(tool):
                run([tool, "-u", "-z", mount])
        shutil.rmtree(folder, ignore_errors=True)


# -- MPI and fabrics -------------------------------------------------------------------------------------------------


def launcher(ask):
    """What ``srun --mpi=list`` offers; it answers on standard error in some versions."""
    if not shutil.which("srun"):
        return
    code, text = run(["srun", "--mpi=list"])
    names = re.findall(r"^\s*(?:srun: )?\s*([a-z][a-z0-9_]*(?:_v\d+)?)\s*$", text or "", re.M)
    versions = re.findall(r"specific pmix plugin versions available:\s*([\w, ]+)", text or "")
    names += [each.strip() for line in versions for each in line.split(",")]
    if code == 0 and names:
        yield "mpi_plugins", sorted(set(names)), "srun --mpi=list"


def mpi(ask):
    """Libraries of MPI that the node has: their family, numbers, and what comes along when one is bound."""
    _, text = run([shutil.which("ldconfig") or "/sbin/ldconfig", "-p"])
    paths = re.findall(r"=> (\S+/(?:libmpi|libmpich|libmpi_abi)\.so\.\d+)$", text or "", re.M)
    for program in ("mpicc", "mpirun"):
        path = shutil.which(program)
        if path:
            prefix = os.path.dirname(os.path.dirname(os.path.realpath(path)))
            for folder in ("lib", "lib64", "lib/release"):
                paths += glob.glob(os.path.join(prefix, folder, "libmpi.so.*[0-9]"))
    paths += glob.glob("/opt/cray/pe/mpich/default/ofi/*/*/lib-abi-mpich/libmpi.so.12")
    found = {}
    for path in paths:
        soname = first(r"(lib\w+\.so\.\d+)", os.path.basename(path))
        real = os.path.realpath(path)
        if real not in found and os.path.exists(real):
            found[real] = _library(real, soname)
    if found:  # here, too, a module may bring it
        yield "mpi", list(found.values()), "ldconfig -p, mpicc, mpirun"


def _library(path, soname):
    content = slurp(path)
    open_mpi = re.search(rb"Open MPI v?(\d+\.\d+\.\d+)", content)
    mpich = re.search(rb"MPICH (?:Version:?\s*)?(\d+\.\d+(?:\.\d+)?)", content)
    intel = re.search(rb"Intel\(R\) MPI Library (?:for Linux\* OS, Version )?(\d+\.\d+)", content)
    family, number = soname.split(".so.")
    if family == "libmpi_abi":
        kind, maker, version = "mpi-abi", "", None
    elif int(number) >= 20:
        kind, maker, version = "openmpi", "openmpi", open_mpi
    else:
        kind, maker, version = "mpich-abi", "intel" if intel else "mpich", intel or mpich
    files, most = _needed(path), {}
    for each in [path] + [file["path"] for file in files]:
        for word, version_name in re.findall(rb"\b(GLIBC|GLIBCXX)_(\d+(?:\.\d+)+)\b", slurp(each)):
            numbers = tuple(int(part) for part in version_name.split(b"."))
            most[word] = max(most.get(word, ()), numbers)
    alone = set(re.findall(rb"\0(\d\.\d{1,2}\.\d{1,2})\0", content))  # how Debian's builds hold it
    text = version.group(1).decode() if version else alone.pop().decode() if len(alone) == 1 else None
    if text is None and kind == "openmpi":
        _, said = run([shutil.which("ompi_info") or "/nowhere", "--version"])
        text = first(r"Open MPI v(\d+\.\d+\.\d+)", said)
    library = {
        "family": kind,
        "soname": soname,
        "path": path,
        "implementation": maker,
        "abi": first(r"\.so\.([\d.]+)$", path) or number,
        "version": text,
    }
    beside = [os.path.join(os.path.dirname(path), name) for name in BESIDE[kind == "openmpi"]]
    return without_nothing(
        {
            "library": without_nothing(library),
            "needs_glibc": ".".join(map(str, most[b"GLIBC"])) if b"GLIBC" in most else None,
            "needs_glibcxx": ".".join(map(str, most[b"GLIBCXX"])) if b"GLIBCXX" in most else None,
            "libraries": files,
            "folders": [each for each in beside if os.path.isdir(each)],
        }
    )


def _needed(path):
    """Libraries that it loads, beside those that every image has itself."""
    _, text = run([shutil.which("ldd") or "/usr/bin/ldd", path])
    pairs = re.findall(r"^\s*(\S+) => (/\S+)", text or "", re.M)
    return [{"soname": name, "path": real} for name, real in pairs if not SYSTEM_LIBRARIES.match(name)]


def fabrics(ask):
    """Fast networks, by the devices that the kernel shows."""
    found = set()
    for device in glob.glob("/sys/class/infiniband/*"):
        name = os.path.basename(device)
        driver = os.path.basename(os.path.realpath(os.path.join(device, "device", "driver")))
        words = name + " " + driver
        found.update(["psm2", "opx"] if "hfi1" in words else ["efa"] if "efa" in words else ["verbs"])
    if glob.glob("/sys/class/cxi/*") or glob.glob("/dev/cxi*"):
        found.add("cxi")
    yield "fabrics", sorted(found), "/sys/class/infiniband, /sys/class/cxi"


# -- storage and network ---------------------------------------------------------------------------------------------


def rooms(ask):
    """File systems of home, scratch and TMPDIR as this node sees them."""
    paths = {"home": os.path.expanduser("~"), "scratch": ask.get("scratch"), "tmpdir": os.environ.get("TMPDIR", "/tmp")}  # noqa: S108
    mounts = [line.split() for line in read("/proc/self/mounts").splitlines()]
    found = {}
    for area, path in paths.items():
        if not path or not os.path.isdir(path):
            continue
        real, room = os.path.realpath(path), os.statvfs(path)
        inside = [row for row in mounts if (real + "/").startswith(row[1].rstrip("/") + "/")]
        kind = max(inside, key=lambda row: len(row[1]))[2] if inside else None
        found[area] = {
            "path": path,
            "filesystem": kind,
            "free_bytes": room.f_bavail * room.f_frsize,
            "limit_bytes": room.f_blocks * room.f_frsize,
            "in_memory": kind in ("tmpfs", "ramfs") if kind else None,
        }
    yield "rooms", found, "statvfs"


def network(ask):
    """Whether a registry can be reached from here; asked only where the site's policy names one."""
    host = ask.get("registry")
    if not host:
        return
    name, _, port = host.partition(":")
    try:
        socket.create_connection((name, int(port or 443)), timeout=5).close()
        yield "outbound_network", True, "connected to " + host
    except (OSError, ValueError) as error:
        yield "outbound_network", False, "%s: %s" % (host, error)


STARTED, OVER, STARTING = [], threading.Event(), threading.Lock()
"""Commands that may still run when the time is over, and that none is started any more."""

FACTS = (cpu, memory, kernel, no_gpu, nvidia, amd, compat, runtimes, launcher, mpi, fabrics, rooms, network)
"""Asked side by side; where two tell the same fact the later one is believed."""


# -- how it is asked -------------------------------------------------------------------------------------------------


def probe(ask):
    """Ask for all facts at once, each in a thread of its own: a file system that hangs holds up one fact only."""
    until = time.time() + float(ask.get("limit_s", LIMIT_S))
    told = [{} for _ in FACTS]
    threads = [
        threading.Thread(target=_collect, args=(each, ask, into), daemon=True) for each, into in zip(FACTS, told)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.time()))
    facts = {}
    for each in told:
        facts.update(dict(each))
    return {"format": 1, "at": int(time.time()), "facts": facts}


def _collect(each, ask, into):
    try:
        for name, value, evidence in each(ask):
            into[name] = [value, evidence[:500]]
    except Exception:  # whatever an odd node does, the other facts are told
        return


def run(argv):
    """Exit code and output of a command; (None, "") where it does not exist, hangs or floods."""
    try:
        child = start(argv, subprocess.PIPE)
    except OSError:
        return None, ""
    timer = threading.Timer(LIMIT_S * 0.8, end, [child])
    timer.start()
    assert child.stdout is not None
    try:
        output = child.stdout.read(MAX_OUTPUT_BYTES + 1)
        if len(output) > MAX_OUTPUT_BYTES:
            end(child)
            return None, ""
        return child.wait(), output.decode("utf-8", "replace")
    finally:
        timer.cancel()
        child.stdout.close()


def start(argv, output):
    """Start a command that will be ended with us; OSError where it does not exist, or when the time is over."""
    env = dict(os.environ, LC_ALL="C")
    streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
    with STARTING:
        if OVER.is_set():
            raise OSError("the time is over")
        child = subprocess.Popen(argv, start_new_session=True, env=env, **streams)
        STARTED.append(child)
    return child


def end(child):
    """End a command and all that it started."""
    try:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait(1)
    except (OSError, subprocess.TimeoutExpired):
        pass
    try:
        os.killpg(child.pid, signal.SIGKILL)  # what it started may not have heard
    except OSError:
        pass


def first(pattern, text):
    """What the first group of a pattern matches; None where it does not."""
    found = re.search(pattern, text or "", re.M)
    return found.group(1) if found else None


def read(path):
    """A small text file; nothing where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(MAX_OUTPUT_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def slurp(path):
    """A library's bytes; nothing where it is none, or of a size that none has."""
    try:
        if os.stat(path).st_size > MAX_LIBRARY_BYTES:
            return b""
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def without_nothing(record):
    """Without what could not be found."""
    return {key: value for key, value in record.items() if value is not None}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {})) + "\n")
    sys.stdout.flush()
    with STARTING:
        OVER.set()
    for each in STARTED:
        if each.poll() is None:
            end(each)
    os._exit(0)  # a thread that hangs on a dead file system must not hold up the job
