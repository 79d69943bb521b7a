"""Five images, converted by Apptainer and by us: what runs in them must not be able to tell who did it."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from shlex import join

import pytest

from images.convert import Compressor, Share, convert, converter_key, installed_version
from images.runfiles import RunConfig, write_run_files
from images.sif import write_sif
from testbed.oci import layer_tar, write_layout

pytestmark = pytest.mark.testbed

SAY = ["/bin/busybox", "sh", "-c", 'printf "[%s]" "$@"; echo; pwd; id -un', "say"]
CONFIGS = {
    "both": {"Env": ["PATH=/bin"], "Entrypoint": [*SAY, "it's"], "Cmd": ["two words", "$HOME", '"q"', "*"]},
    "command": {"Env": ["PATH=/bin:/opt/x", "A=plain", "B=two words", "C=a,b=c"], "Cmd": ["env"]},
    "entrypoint": {"Env": ["PATH=/bin", "HTTP=http://x/?a=1&b=2;c"], "Entrypoint": SAY, "WorkingDir": "/var/tmp"},
    "by-path": {"Env": ["PATH=/bin", "EMPTY=", "BARE"], "Entrypoint": ["env"], "User": "65534", "WorkingDir": "/etc"},
    "nothing": {"Labels": {"maintainer": 'x "y"', "berth.require.arch": "amd64"}},
}
CALLS = (
    ("exec", "IMAGE", "/bin/busybox", "env"),
    ("exec", "--cleanenv", "IMAGE", "/bin/busybox", "env"),
    ("exec", "--env", "A=mine,PREPEND_PATH=/mine", "IMAGE", "/bin/busybox", "env"),
    ("exec", "IMAGE", "/bin/busybox", "ls", "-a", "/", "/etc", "/.singularity.d/env/../libs"),
    ("exec", "IMAGE", "/bin/busybox", "pwd"),
    ("run", "IMAGE", "/bin/echo", "two words", "$USER", "it's"),
    ("run", "--cleanenv", "IMAGE", "/bin/env"),
)
RUN_AS_IT_IS = ("run", "--cleanenv", "IMAGE")


@pytest.fixture(scope="module")
def busybox():
    binary = Path("/bin/busybox")
    applets = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True).stdout.split()
    return layer_tar(binary.read_bytes(), applets)


@pytest.fixture
def place(cluster):
    """A folder that the host and the machines both see."""
    folder = cluster.state / "shared/shared/converted"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    return folder


@pytest.fixture
def ssh(cluster):
    def run(command):
        argv = ["ssh", "-F", cluster.info()["ssh"]["config"], "testbed", f"cd /shared/converted && {command}"]
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)

    return run


async def our_files(layer, config, folder, name):
    """The image as we convert it: a bare squashfs, and one in a SIF."""
    tree = folder / f"{name}.tree"
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        tar.extractall(tree, filter="tar")
    write_run_files(str(tree), RunConfig.of(config))
    key = converter_key(await installed_version(), frozenset(Compressor))
    made = await convert(tree, folder / f"{name}.sqfs", key, Share(nice=0), datetime.fromtimestamp(0, UTC))
    write_sif(made.path, made.digest, "amd64", config, folder / f"{name}.sif")
    assert made.digest == "sha256:" + hashlib.sha256(made.path.read_bytes()).hexdigest()


def outcome(done):
    """What a call gave, in any order, without what names the image file or the connection."""
    own = ("APPTAINER_", "SINGULARITY_", "SSH_", "SHLVL=", "_=")
    return done.returncode, sorted(line for line in done.stdout.splitlines() if not line.startswith(own))


@pytest.mark.parametrize("name", CONFIGS)
async def test_an_image_behaves_as_after_apptainer_build(name, busybox, place, ssh):
    config = CONFIGS[name]
    write_layout(place / f"{name}.oci", [busybox], config)
    await our_files(busybox, config, place, name)
    built = ssh(f"apptainer -q build {name}.theirs.sif oci:{name}.oci")
    assert built.returncode == 0, built.stderr
    for call in (*CALLS, *([RUN_AS_IT_IS] if name != "nothing" else [])):
        command = "apptainer -q " + join(call)
        theirs, bare, wrapped = (
            outcome(ssh(command.replace("IMAGE", f"{name}.{kind}"))) for kind in ("theirs.sif", "sqfs", "sif")
        )
        assert bare == theirs, command
        assert wrapped == theirs, command
    labels = json.loads(ssh(f"apptainer -q inspect --json {name}.sif").stdout)["data"]["attributes"].get("labels", {})
    assert labels == config.get("Labels", {})


async def test_an_image_without_a_shell_runs_its_program(place, ssh):
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
    await our_files(layer.getvalue(), {"Entrypoint": ["/bin/busybox", "echo"], "Cmd": ["it's"]}, place, "bare")
    assert ssh("apptainer -q run bare.sqfs").stdout == "it's\n"
    assert ssh("apptainer -q run bare.sqfs 'two words'").stdout == "two words\n"


async def test_a_value_at_which_apptainer_s_own_conversion_stumbles_reaches_the_program(busybox, place, ssh):
    value = 'it\'s "q" $HOME `id` \\ back'
    await our_files(busybox, {"Env": ["PATH=/bin", f"A={value}"], "Cmd": [*SAY[:3], 'echo "$A"']}, place, "stumble")
    assert ssh("apptainer -q run stumble.sqfs").stdout == value + "\n"
