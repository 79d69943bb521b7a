"""The launch files, judged by running them: a real shell, and a stand-in runtime that shows what reached it."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.container import NOT_STARTED_EXIT_CODE, Launcher, job_env, launch_files
from backends.launchers.bubblewrap import UnpackedImage
from backends.launchers.words import Claim
from images import fragment
from scheduler.model.errors import SpecInvalid
from scheduler.model.runs import Mount, Resources, RunSpec, Runtime
from scheduler.model.scheduler_profiles import ModuleLoad, SchedulerProfile

GOLDEN = Path(__file__).parent.parent / "data" / "container"

SHOW = """#!/bin/sh
[ "$2" = pull ] && exit
for word; do printf '%s\\0' "$word"; done > "$SHOWN/argv"
cat /proc/$$/environ > "$SHOWN/environ"
exit ${SHOW_EXIT:-0}
"""

hostile = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30) | st.sampled_from(
    [
        "$(touch owned)",
        "`id`",
        "a\nb",
        "'",
        '"',
        "\\",
        "a,b=c",
        "*",
        "~",
        "-x",
        "",
        " ",
        "\n",
        "$HOME",
        "é\x7f",
        "'\\''",
    ]
)
keys = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True)


class Host:
    """A directory with a PATH of its own, in which launch files are run for real."""

    def __init__(self, root: Path, shell: tuple[str, ...] = ("sh",)) -> None:
        self.root, self.shell = root, shell
        self.marker_dir, self.bin = root / "marker", root / "bin"
        self.marker_dir.mkdir()
        self.bin.mkdir()
        self.run = RunSpec(
            job_uuid="3e1-007",
            name="n",
            image="docker://busybox",
            exec_dir=f"{root}/job's dir",
            input_dir=f"{root}/in",
            output_dir=f"{root}/job's dir/output",
        )

    def install(self, *names: str, text: str = SHOW) -> None:
        for name in names:
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)

    def start(
        self, run: RunSpec, claim: Claim = Claim.FORK, launcher: Launcher | None = None, unpacked=None, **env: str
    ):
        files = launch_files(run, marker_dir=str(self.marker_dir), claim=claim, launcher=launcher, unpacked=unpacked)
        Path(run.exec_dir).mkdir(exist_ok=True)
        script = Path(run.exec_dir, "tapisjob.sh")
        script.write_text(files.script)
        Path(run.exec_dir, "tapisjob.env").write_text(files.env)
        return subprocess.run(
            [*self.shell, script],
            env={**self.env, "SHOWN": str(self.root), **env},
            capture_output=True,
            timeout=20,
            check=False,
        )

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(self.root)}

    def argv(self) -> list[str]:
        return (self.root / "argv").read_bytes().decode().split("\0")[:-1]

    def environ(self) -> dict[str, str]:
        entries = (self.root / "environ").read_bytes().decode().split("\0")[:-1]
        return dict(entry.split("=", 1) for entry in entries)


@pytest.fixture(params=[("dash",), ("bash", "--posix")], ids=["dash", "bash"])
def host(tmp_path, request) -> Host:
    return Host(tmp_path, request.param)


@pytest.fixture
def slurm_host(tmp_path) -> Host:
    host = Host(tmp_path)
    host.install("apptainer", text='#!/bin/sh\ncase "$*" in *pull*) for f; do :; done; touch "$4"; esac\n')
    host.install("srun")
    return host


PROPERTY = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@PROPERTY
@given(args=st.lists(hostile, max_size=4), env=st.dictionaries(keys, hostile, max_size=4))
def test_any_argument_and_any_value_reach_apptainer_unchanged(tmp_path_factory, args, env):
    host = Host(tmp_path_factory.mktemp("host"))
    host.install("apptainer")
    done = host.start(replace(host.run, args=tuple(args), env=env))
    assert (done.returncode, done.stderr) == (0, b"")
    assert host.argv()[-1 - len(args) :] == ["docker://busybox", *args]
    shown = host.environ()
    assert {key: shown[f"APPTAINERENV_{key}"] for key in env} == env
    assert shown["APPTAINER_NO_EVAL"] == "1"


@PROPERTY
@given(args=st.lists(hostile, max_size=4), env=st.dictionaries(keys, hostile, max_size=4), bash=st.booleans())
def test_without_a_container_the_command_gets_them_unchanged_too(tmp_path_factory, args, env, bash):
    host = Host(tmp_path_factory.mktemp("host"), ("bash", "--posix") if bash else ("dash",))
    host.install("show")
    env = {f"U{key}": value for key, value in env.items()}
    done = host.start(replace(host.run, runtime=Runtime.NONE, args=(str(host.bin / "show"), *args), env=env))
    assert (done.returncode, done.stderr) == (0, b"")
    assert host.argv() == args
    assert {key: host.environ()[key] for key in env} == env


def test_a_users_path_and_shell_names_do_not_disturb_the_record(host):
    host.install("apptainer")
    env = {"PATH": "/nowhere", "UID": "7", "IFS": "/", "marker_dir": "x", "LD_PRELOAD": "y"}
    done = host.start(replace(host.run, env=env), SHOW_EXIT="9")
    assert done.returncode == 9
    assert (host.marker_dir / "exit").read_text() == "9\n"
    assert Path(host.run.output_dir, "tapisjob.exitcode").read_text() == "9\n"


@pytest.mark.parametrize("runtime", [Runtime.NONE, Runtime.DOCKER])
def test_a_name_that_the_shell_keeps_is_refused_where_it_would_be_lost(host, runtime):
    with pytest.raises(SpecInvalid, match=r"envVariables\.UID"):
        host.start(replace(host.run, runtime=runtime, args=("id",), env={"UID": "7"}))


@pytest.mark.parametrize("key", ["", "1A", "A-B", "A B", "A\nB", "é", "A=B", "x;id"])
def test_what_is_no_variable_name_is_refused(key):
    with pytest.raises(SpecInvalid, match="envVariables"):
        job_env({key: "v"})


def test_nul_is_refused_by_field(host):
    with pytest.raises(SpecInvalid, match="appArgs: holds a NUL"):
        host.start(replace(host.run, args=("a\0b",)))
    with pytest.raises(SpecInvalid, match=r"envVariables.A: holds a NUL"):
        host.start(replace(host.run, env={"A": "\0"}))


@pytest.mark.parametrize("image", ["", "--help", "-B/etc:/x"])
def test_an_image_that_would_be_read_as_an_option_is_refused(host, image):
    with pytest.raises(SpecInvalid, match="image"):
        host.start(replace(host.run, image=image))


def test_the_tapis_directories_are_mounted_and_hostile_paths_stay_one_mount(host):
    host.install("apptainer")
    mounts = (Mount(source='/a,b:c"d', target="/x y", read_only=True), Mount(source="/data", target="/data"))
    assert host.start(replace(host.run, mounts=mounts)).returncode == 0
    argv = host.argv()
    binds = [argv[i + 1] for i, word in enumerate(argv) if word == "--bind"]
    assert binds == [
        f"{host.run.exec_dir}:/TapisExec",
        f"{host.run.input_dir}:/TapisInput",
        f"{host.run.output_dir}:/TapisOutput",
        "/data:/data",
    ]
    assert argv[argv.index("--mount") + 1] == 'type=bind,"src=/a,b:c""d",dst=/x y,ro'


MODULE = """#!/bin/sh
echo "$@" >> "$SHOWN/loaded"
echo "noise of modules"
[ "$2" != missing ]
"""


def with_modules(run: RunSpec, *loads: ModuleLoad) -> RunSpec:
    return replace(run, scheduler_profile=SchedulerProfile(tenant="t", name="site", owner="o", module_loads=loads))


def test_modules_are_loaded_one_by_one_in_order_before_the_runtime_is_looked_for(host):
    host.install("apptainer")
    host.install("module", "ml", text=MODULE)
    run = with_modules(host.run, ModuleLoad("module purge"), ModuleLoad("ml", ("gcc", "tacc/apptainer")))
    done = host.start(run)
    assert (done.returncode, done.stdout) == (0, b"")
    assert (host.root / "loaded").read_text().splitlines() == ["purge", "gcc", "tacc/apptainer"]


def test_a_module_that_cannot_be_loaded_ends_the_run_before_its_code(host):
    host.install("apptainer")
    host.install("module", text=MODULE)
    done = host.start(with_modules(host.run, ModuleLoad("module load", ("missing", "gcc"))))
    assert done.returncode == NOT_STARTED_EXIT_CODE
    assert b"'module load missing' failed, which the scheduler profile 'site' asks for" in done.stderr
    assert (host.root / "loaded").read_text() == "load missing\n"
    assert not (host.root / "argv").exists()


def test_a_host_without_modules_says_so_and_runs_nothing(host):
    host.install("apptainer")
    done = host.start(with_modules(host.run, ModuleLoad("module load", ("no-such",))))
    assert done.returncode == NOT_STARTED_EXIT_CODE
    assert b"'module load no-such' failed" in done.stderr


@PROPERTY
@given(command=hostile, module=hostile)
def test_not_even_a_hostile_profile_runs_more_than_its_own_command(tmp_path_factory, command, module):
    host = Host(tmp_path_factory.mktemp("host"))
    host.install("apptainer")
    host.install("module", text=MODULE)
    host.start(with_modules(host.run, ModuleLoad(f"module {command}", (module,))))
    said = (host.root / "loaded").read_text()
    assert said == " ".join([*command.split(), module]) + "\n"
    assert not list(host.root.rglob("owned"))


def test_a_container_argument_is_an_option_and_its_value(host):
    host.install("apptainer")
    host.start(replace(host.run, container_args=("--nv", "--bind /a b:/c", "-B /d")))
    assert host.argv()[-6:] == ["--nv", "--bind", "/a b:/c", "-B", "/d", "docker://busybox"]


def test_entrypoint_off_runs_the_command_itself(host):
    host.install("apptainer")
    host.start(replace(host.run, use_entrypoint=False, args=("echo", "hi")))
    assert host.argv()[:2] == ["-q", "exec"]
    with pytest.raises(SpecInvalid, match="appArgs"):
        host.start(replace(host.run, use_entrypoint=False))


def test_singularity_serves_where_apptainer_is_missing(host):
    host.install("singularity")
    host.start(replace(host.run, env={"A": "1"}))
    assert host.environ()["SINGULARITYENV_A"] == "1"


def test_no_runtime_at_all_is_said_and_recorded(host):
    done = host.start(host.run)
    assert done.returncode == 127
    assert b"neither apptainer nor singularity was found" in done.stderr
    assert (host.marker_dir / "exit").read_text() == "127\n"


def test_a_duplicate_leaves_before_any_user_code_and_records_nothing(host):
    host.install("apptainer")
    claim = host.marker_dir / "claim"
    claim.mkdir()
    (claim / "owner").write_text("someone else\n")
    done = host.start(host.run)
    assert done.returncode == 119
    assert b"belongs to someone else" in done.stderr
    assert not (host.root / "argv").exists()
    assert not (host.marker_dir / "exit").exists()


def test_a_void_marker_starts_nothing(host):
    host.install("apptainer")
    (host.marker_dir / "void").touch()
    assert host.start(host.run).returncode == 119
    assert not (host.root / "argv").exists()


def test_a_missing_marker_directory_starts_nothing(host):
    host.install("apptainer")
    host.marker_dir.rmdir()
    assert host.start(host.run).returncode == 119
    assert not (host.root / "argv").exists()


def test_a_requeued_slurm_job_finds_its_own_claim_and_another_job_does_not(slurm_host):
    assert slurm_host.start(slurm_host.run, Claim.SLURM, SLURM_JOB_ID="41").returncode == 0
    requeued = {"SLURM_JOB_ID": "41", "SLURM_RESTART_COUNT": "1"}
    assert slurm_host.start(slurm_host.run, Claim.SLURM, **requeued).returncode == 0
    assert slurm_host.start(slurm_host.run, Claim.SLURM, **requeued).returncode == 119
    assert slurm_host.start(slurm_host.run, Claim.SLURM, SLURM_JOB_ID="42").returncode == 119
    assert (slurm_host.marker_dir / "claim" / "owner").read_text() == "41\n"


def test_a_requeued_job_that_is_cut_off_leaves_no_exit_code_of_the_time_before(slurm_host):
    assert slurm_host.start(slurm_host.run, Claim.SLURM, SLURM_JOB_ID="41").returncode == 0
    slurm_host.install("apptainer", text="#!/bin/sh\nkill -KILL $PPID\n")
    slurm_host.start(slurm_host.run, Claim.SLURM, SLURM_JOB_ID="41", SLURM_RESTART_COUNT="1")
    assert not (slurm_host.marker_dir / "exit").exists()


def test_a_controller_that_forgot_the_start_starts_no_user_code_again(slurm_host):
    assert slurm_host.start(slurm_host.run, Claim.SLURM, SLURM_JOB_ID="41").returncode == 0
    again = slurm_host.start(slurm_host.run, Claim.SLURM, SLURM_JOB_ID="41")
    assert again.returncode == 119
    assert b"started before" in again.stderr
    assert (slurm_host.marker_dir / "exit").read_text() == "0\n"


def at_a_gate(host: Host, sleep: str, **env: str):
    """Run a copy with a clock of its own: each second is one line of ``sleep``."""
    host.install("apptainer")
    host.install("sleep", text=f"#!/bin/sh\necho >> {host.root}/seconds\n{sleep}\n")
    return host.start(replace(host.run, gate_s=5), **env)


def seconds(host: Host) -> int:
    return len((host.root / "seconds").read_text().splitlines())


def test_a_copy_runs_when_its_gate_is_opened(host):
    assert at_a_gate(host, f"touch {host.marker_dir}/go").returncode == 0
    assert host.argv()
    assert (host.marker_dir / "exit").read_text() == "0\n"


def test_a_copy_that_nobody_lets_go_runs_nothing_and_never_will(host):
    done = at_a_gate(host, ":")
    assert done.returncode == 118
    assert b"was not let go within 5 s" in done.stderr
    assert (seconds(host), (host.marker_dir / "closed").read_text()) == (5, "5\n")
    assert not (host.marker_dir / "exit").exists()
    (host.marker_dir / "go").touch()
    assert at_a_gate(host, ":", SLURM_RESTART_COUNT="1").returncode == 119
    assert not (host.root / "argv").exists()


def test_a_copy_whose_marker_is_given_up_stops_waiting(host):
    assert at_a_gate(host, f"touch {host.marker_dir}/void").returncode == 118
    assert seconds(host) == 1
    assert not (host.root / "argv").exists()


def test_a_copy_that_was_let_go_before_it_started_does_not_wait(host):
    (host.marker_dir / "go").touch()
    assert at_a_gate(host, "false").returncode == 0
    assert not (host.root / "seconds").exists()


def test_a_run_without_a_gate_asks_nobody(host):
    host.install("apptainer")
    assert host.start(host.run).returncode == 0


def awaiting_its_image(host: Host, sleep: str = ":", **changes):
    """Run a job that waits for its image for at most 5 s, with a clock as above."""
    host.install("apptainer", text='#!/bin/sh\n[ "$2" = pull ] && echo "$5" >> "$HOME/pulled"\n' + SHOW[10:])
    host.install("sleep", text=f"#!/bin/sh\necho >> {host.root}/seconds\n{sleep}\n")
    return host.start(replace(host.run, **{"image_wait_s": 5, "args": ("true",), **changes}))


def an_image(host: Host, data: bytes = b"squashfs") -> Path:
    image = host.root / "the store's image"
    image.write_bytes(data)
    return image


def tell(host: Host, lines: bytes) -> None:
    (host.marker_dir / "image.sh").write_bytes(lines)


def test_a_job_whose_image_is_there_runs_it_and_does_not_wait(host):
    tell(host, fragment.at(str(an_image(host)), 8))
    done = awaiting_its_image(host)
    assert (done.returncode, done.stderr) == (0, b"")
    assert host.argv()[-2:] == [str(host.root / "the store's image"), "true"]
    assert not (host.root / "seconds").exists()
    assert not (host.root / "pulled").exists()


def test_a_job_that_starts_before_its_image_waits_for_it_and_says_so_once(host):
    (host.root / "prepared.sh").write_bytes(fragment.at(str(an_image(host)), 8))
    comes = f"[ $(wc -l < {host.root}/seconds) -lt 3 ] || cp {host.root}/prepared.sh {host.marker_dir}/image.sh"
    done = awaiting_its_image(host, comes)
    assert (done.returncode, seconds(host)) == (0, 3)
    assert done.stderr == b"tapisjob: waits for its image, for at most 5 s\n"
    assert host.argv()[-2] == str(host.root / "the store's image")


def test_a_job_that_waited_in_vain_lets_the_runtime_fetch_the_image(host):
    done = awaiting_its_image(host)
    assert (done.returncode, seconds(host)) == (0, 5)
    assert b"it was not brought here within 5 s; the container runtime fetches the image itself" in done.stderr
    assert (host.root / "pulled").read_text() == "docker://busybox\n"
    assert host.argv()[-2] == "docker://busybox"


def test_a_job_is_told_why_its_image_was_given_up(host):
    tell(host, fragment.nowhere("it's broken;\n$(touch owned) `id`"))
    done = awaiting_its_image(host)
    assert (done.returncode, host.argv()[-2]) == (0, "docker://busybox")
    assert b"tapisjob: it's broken; $(touch owned) `id`; the container runtime fetches" in done.stderr
    assert not (host.root / "seconds").exists()
    assert not list(host.root.rglob("owned"))


def test_a_private_image_is_never_fetched_without_its_login(host):
    done = awaiting_its_image(host, image_is_private=True)
    assert done.returncode == NOT_STARTED_EXIT_CODE
    assert b"the image is private, so that nothing but Berth can fetch it" in done.stderr
    assert not (host.root / "pulled").exists()
    assert not (host.root / "argv").exists()


def test_an_image_that_is_gone_from_the_store_or_not_whole_is_not_run(host):
    tell(host, fragment.at(str(an_image(host)), 9))
    done = awaiting_its_image(host)
    assert host.argv()[-2] == "docker://busybox"
    assert b"is not there with its 9 bytes; the container runtime fetches" in done.stderr


@pytest.mark.parametrize(
    ("lines", "runs", "read", "said"),
    [
        ("cd / &&\ntrue\n", "/local/copy", "copies", b""),
        ("echo no; exit 3\n", "/store's image", "store", b"nodes get no copies of their own"),
    ],
    ids=["ends well", "fails"],
)
def test_each_node_runs_its_own_copy_or_the_stores_file_where_the_broadcast_failed(host, lines, runs, read, said):
    report = host.root / "the report"
    tell(host, fragment.at(str(an_image(host)), 8, lines, "/local/copy", str(report)))
    done = awaiting_its_image(host)
    assert done.returncode == 0
    assert report.read_text().endswith(f'{{"read_from": "{read}", "restarts": 0}}\n')
    assert host.argv()[-2].endswith(runs.replace("/store", "/the store"))
    assert said in done.stderr


def test_several_nodes_run_the_image_that_was_brought(slurm_host):
    tell(slurm_host, fragment.at(str(an_image(slurm_host)), 8))
    run = replace(slurm_host.run, resources=Resources(nodes=2), image_wait_s=5, args=("hostname",))
    done = slurm_host.start(run, Claim.SLURM, SLURM_JOB_ID="41")
    assert (done.returncode, done.stderr) == (0, b"")
    assert slurm_host.argv()[-2:] == [str(slurm_host.root / "the store's image"), "hostname"]


def test_a_job_that_is_ended_while_it_waits_for_its_image_starts_nothing(host):
    host.install("apptainer")
    host.install("sleep", text="#!/bin/sh\nkill -TERM $PPID\n")
    done = host.start(replace(host.run, image_wait_s=5))
    assert done.returncode == 143
    assert (host.marker_dir / "exit").read_text() == "143\n"
    assert not (host.root / "argv").exists()


def test_every_task_of_an_array_has_a_claim_and_an_exit_of_its_own(slurm_host):
    for task in ("3", "7"):
        env = {"SLURM_JOB_ID": f"5{task}", "SLURM_ARRAY_JOB_ID": "50", "SLURM_ARRAY_TASK_ID": task}
        assert slurm_host.start(slurm_host.run, Claim.SLURM, **env).returncode == 0
        assert (slurm_host.marker_dir / f"claim.{task}" / "owner").read_text() == f"50_{task}\n"
        assert (slurm_host.marker_dir / f"exit.{task}").read_text() == "0\n"


def test_several_nodes_fetch_the_image_once_and_run_by_srun(slurm_host):
    run = replace(slurm_host.run, resources=Resources(nodes=3, cores_per_node=4), args=("hostname",))
    done = slurm_host.start(run, Claim.SLURM, SLURM_JOB_ID="41")
    assert (done.returncode, done.stderr) == (0, b"")
    argv = slurm_host.argv()
    assert argv[:4] == ["--nodes=3", "--ntasks=3", "--ntasks-per-node=1", "--cpus-per-task=4"]
    assert argv[-2:] == [f"{slurm_host.marker_dir}/image.sif", "hostname"]


def test_mpi_takes_the_sites_command_as_words_and_never_as_shell(slurm_host):
    slurm_host.install("ibrun")
    run = replace(slurm_host.run, is_mpi=True, mpi_cmd="ibrun -n 4 '$(id)' ; touch owned")
    slurm_host.start(run, Claim.SLURM, SLURM_JOB_ID="41")
    assert slurm_host.argv()[:6] == ["-n", "4", "$(id)", ";", "touch", "owned"]
    with pytest.raises(SpecInvalid, match="mpiCmd"):
        slurm_host.start(replace(run, mpi_cmd="mpirun 'open"), Claim.SLURM)


def test_mpi_outside_a_batch_system_needs_a_command(host):
    with pytest.raises(SpecInvalid, match="mpiCmd"):
        host.start(replace(host.run, is_mpi=True))


def test_podman_gets_names_on_the_command_line_and_values_by_environment(host):
    host.install("podman")
    run = replace(host.run, runtime=Runtime.DOCKER, image="busybox", env={"A": "x\ny"}, plain_http_registry=True)
    done = host.start(replace(run, args=("id",)))
    assert (done.returncode, done.stderr) == (0, b"")
    argv = host.argv()
    assert argv[:2] == ["run", "--rm"]
    assert {"--userns=keep-id", "--env=A", "--tls-verify=false", "--name"} <= set(argv)
    assert argv[-2:] == ["docker://busybox", "id"]
    assert host.environ()["A"] == "x\ny"
    assert (host.marker_dir / "engine").read_text() == f"{host.bin}/podman\n"


def test_docker_serves_where_podman_is_missing_as_the_same_user(host):
    host.install("docker")
    done = host.start(replace(host.run, runtime=Runtime.DOCKER, image="busybox", plain_http_registry=True))
    assert (done.returncode, done.stderr) == (0, b"")
    assert f"--user={os.getuid()}:{os.getgid()}" in host.argv()
    assert host.argv()[-1] == "busybox"
    assert "" not in host.argv()


@pytest.mark.parametrize(
    ("image", "seen"),
    [
        ("busybox", "docker://busybox"),
        ("localhost:5000/a/b:1", "docker://localhost:5000/a/b:1"),
        ("docker://a", "docker://a"),
        ("oci:/x/y", "oci:/x/y"),
        ("/images/x.sif", "/images/x.sif"),
    ],
)
def test_apptainer_runs_docker_apps_by_their_own_references(host, image, seen):
    host.install("apptainer")
    host.start(replace(host.run, runtime=Runtime.DOCKER, image=image), launcher=Launcher.APPTAINER)
    assert host.argv()[-1] == seen


def test_bubblewrap_sees_the_images_own_environment_under_the_jobs(host):
    host.install("bwrap", text=SHOW.replace("$SHOWN", str(host.root)))
    image = UnpackedImage(
        root="/cache/x",
        top={"bin": None, "lib": "usr/lib", "proc": None},
        entrypoint=("/bin/e",),
        command=("default",),
        env={"A": "image", "B": "image", "PATH": "/image/bin:/usr/bin:/bin"},
    )
    run = replace(host.run, env={"A": "job's"}, args=("x",))
    done = host.start(run, launcher=Launcher.BUBBLEWRAP, unpacked=image, LEAK="yes")
    assert (done.returncode, done.stderr) == (0, b"")
    argv, environ = host.argv(), host.environ()
    assert argv[-3:] == ["--", "/bin/e", "x"]
    assert argv[argv.index("--symlink") : argv.index("--symlink") + 3] == ["--symlink", "usr/lib", "/lib"]
    assert "/cache/x/proc" not in argv
    assert (environ["A"], environ["B"], environ["PATH"]) == ("job's", "image", "/image/bin:/usr/bin:/bin")
    assert "LEAK" not in environ


FETCHES_ALONE = """#!/bin/sh
[ "$2" = pull ] || exit 0
mkdir "$HOME/fetching" || exit 9
echo "$5" >> "$HOME/fetches"
sleep 0.1
touch "$4"
rmdir "$HOME/fetching"
"""


def test_jobs_that_start_at_once_fetch_each_image_once_and_one_at_a_time(host):
    host.install("apptainer", text=FETCHES_ALONE)
    images = ["docker://a/x:1", "oras://a/y:1"] * 4
    with ThreadPoolExecutor(len(images)) as pool:
        ended = list(pool.map(lambda each: start_apart(host, *each), enumerate(images)))
    assert [(done.returncode, done.stderr) for done in ended] == [(0, b"")] * len(images)
    assert sorted((host.root / "fetches").read_text().split()) == sorted(set(images))
    assert not list(host.root.glob("marker*/*.sif"))


def start_apart(host, number, image):
    """Start a run of its own, beside others of the same login."""
    apart = copy(host)
    apart.marker_dir = host.root / f"marker{number}"
    apart.marker_dir.mkdir()
    return apart.start(replace(host.run, image=image, exec_dir=f"{host.root}/{number}"))


def test_an_image_that_cannot_be_fetched_starts_nothing_and_is_tried_again_by_the_next_job(host):
    host.install("apptainer", text='#!/bin/sh\n[ "$2" = pull ] || exit 0\necho "no such image" >&2\nexit 255\n')
    done = host.start(host.run)
    assert done.returncode == NOT_STARTED_EXIT_CODE
    assert done.stderr.split(b"\n")[:2] == [b"no such image", b"tapisjob: the image could not be fetched"]
    host.install("apptainer", text=FETCHES_ALONE)
    assert start_apart(host, 2, host.run.image).returncode == 0
    assert (host.root / "fetches").read_text().split() == [host.run.image]


def test_a_login_without_a_cache_fetches_nothing_beforehand(host):
    host.install("apptainer", text=FETCHES_ALONE)
    assert host.start(host.run, APPTAINER_DISABLE_CACHE="1").returncode == 0
    assert not (host.root / "fetches").exists()


def test_a_terminated_group_still_records_how_the_code_ended(host):
    host.install("apptainer", text='#!/bin/sh\n[ "$2" = pull ] && exit\nkill -TERM 0\nexec sleep 20\n')
    files = launch_files(host.run, marker_dir=str(host.marker_dir), claim=Claim.FORK)
    Path(host.run.exec_dir).mkdir()
    Path(host.run.exec_dir, "tapisjob.env").write_text(files.env)
    script = host.root / "tapisjob.sh"
    script.write_text(files.script)
    done = subprocess.run([*host.shell, script], env=host.env, timeout=20, check=False, start_new_session=True)
    assert done.returncode == 143
    assert (host.marker_dir / "exit").read_text() == "143\n"


GOLDEN_RUN = RunSpec(
    job_uuid="0b8f4c1e-5a3d-4a43-9d0a-3f3c9f0e9a77-007",
    name="golden",
    image="docker://registry.example.org/tools/hello:1",
    args=("--greeting", "it's $HOME"),
    env={"GREETING": "a\nb"},
    exec_dir="/work/jobs/0b8f",
    input_dir="/work/jobs/0b8f",
    output_dir="/work/jobs/0b8f/output",
    plain_http_registry=True,
)


@pytest.mark.parametrize(
    ("name", "run", "claim"),
    [
        ("slurm-one-node", GOLDEN_RUN, Claim.SLURM),
        ("slurm-mpi", replace(GOLDEN_RUN, is_mpi=True, resources=Resources(nodes=2, cores_per_node=4)), Claim.SLURM),
        ("slurm-image", replace(GOLDEN_RUN, image_wait_s=1800), Claim.SLURM),
        ("fork-docker", replace(GOLDEN_RUN, runtime=Runtime.DOCKER, job_uuid="0b8f-007"), Claim.FORK),
    ],
)
def test_the_script_reads_as_reviewed(name, run, claim):
    files = launch_files(run, marker_dir="/work/.berth/markers/berth-0b8f-007-1", claim=claim)
    golden = GOLDEN / f"{name}.sh"
    if os.environ.get("BERTH_WRITE_GOLDEN"):
        golden.write_text(files.script)
    assert files.script == golden.read_text()
