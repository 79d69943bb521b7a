"""An image starts as it does under Apptainer: its variables, its entry point, its command, and words given instead."""

from __future__ import annotations

import json
import stat
import subprocess

import pytest

from images.runfiles import RunConfig, run_files, write_run_files
from scheduler.model.errors import SpecInvalid

HOSTILE = ["plain", "two words", "it's", 'a "quote"', "$HOME", "`id`", "\\", "a\nb", "*", "", "-n", "é", "}"]


def text_of(config: RunConfig, path: str) -> str:
    return next(entry.text for entry in run_files(config) if entry.path == path) or ""


def run(tmp_path, config, *words, **environment):
    script = tmp_path / "runscript"
    script.write_text(text_of(config, ".singularity.d/runscript"))
    return subprocess.run(
        ["/bin/sh", script, *words], capture_output=True, text=True, env={"HOME": "/h", **environment}
    )


def said(tmp_path, config, *words, **environment):
    done = run(tmp_path, config, *words, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\0")[:-1]


SAY = ("printf", "%s\\0")


def test_words_of_the_image_reach_its_program_as_they_stand(tmp_path):
    assert said(tmp_path, RunConfig(entrypoint=(*SAY, *HOSTILE))) == HOSTILE
    assert said(tmp_path, RunConfig(cmd=(*SAY, *HOSTILE))) == HOSTILE
    assert said(tmp_path, RunConfig(entrypoint=(*SAY, "first"), cmd=tuple(HOSTILE))) == ["first", *HOSTILE]


def test_words_of_the_user_replace_the_command_and_go_through_the_shell_unless_that_is_forbidden(tmp_path):
    config = RunConfig(entrypoint=SAY, cmd=("gone",))
    assert said(tmp_path, config, "a b", "$HOME") == ["a b", "/h"]
    assert said(tmp_path, config, *HOSTILE, SINGULARITY_NO_EVAL="1") == HOSTILE
    assert said(tmp_path, RunConfig(cmd=("gone",)), *SAY, "x") == ["x"]


def test_an_image_that_names_no_program_says_so(tmp_path):
    done = run(tmp_path, RunConfig())
    assert (done.returncode, done.stderr) == (127, "this image names no program: say what to run\n")


@pytest.mark.parametrize("value", HOSTILE)
def test_a_variable_has_the_image_s_value_unless_the_user_gave_one(value):
    script = text_of(
        RunConfig(env=(f"A={value}", "PATH=/image", "BARE", "B=")), ".singularity.d/env/10-docker2singularity.sh"
    )
    show = '/usr/bin/printf \'%s\\0\' "$A" "$PATH" "$BARE" "${B-unset}"'

    def seen(**environment):
        return subprocess.run(
            ["/bin/sh", "-euc", script + show], capture_output=True, text=True, env=environment
        ).stdout

    assert seen() == f"{value}\0/image\0\0\0"
    assert seen(A="mine", PATH="/mine", BARE="b") == "mine\0/image\0b\0\0"


@pytest.mark.parametrize("name", ["A;touch /tmp/x", "a.b", "1A", "$(id)", ""])
def test_a_name_that_no_shell_can_set_is_left_out(name):
    script = text_of(RunConfig(env=(f"{name}=x", "B=1")), ".singularity.d/env/10-docker2singularity.sh")
    assert script == "#!/bin/sh\nB=${B:-1}\nexport B\n"


def test_the_path_that_the_user_asked_for_is_put_around_the_image_s():
    script = text_of(RunConfig(), ".singularity.d/env/99-runtimevars.sh") + "/bin/echo $PATH"

    def path(**asked):
        environment = {"PATH": "/i", **{f"SING_USER_DEFINED_{name}": value for name, value in asked.items()}}
        return subprocess.run(
            ["/bin/sh", "-euc", script], capture_output=True, text=True, env=environment
        ).stdout.strip()

    assert path() == "/i"
    assert path(PREPEND_PATH="/a", APPEND_PATH="/b") == "/a:/i:/b"
    assert path(PATH="/only") == "/only"


@pytest.mark.parametrize("field", ["Env", "Entrypoint", "Cmd", "Labels"])
@pytest.mark.parametrize("value", ["text", [1], ["a\0b"], {"a": 1}])
def test_a_config_that_cannot_be_meant_names_its_field(field, value):
    with pytest.raises(SpecInvalid, match=f"config.{field}"):
        RunConfig.of({field: value})


def test_a_config_without_anything_is_an_image_without_anything():
    assert RunConfig.of({"Env": None, "Labels": None}) == RunConfig()


def test_what_the_image_has_stays_and_what_is_ours_is_new(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hosts").write_text("127.0.0.1 image\n")
    (tmp_path / "environment").write_text("the image's own")
    (tmp_path / ".singularity.d").mkdir()
    (tmp_path / ".singularity.d/runscript").write_text("old")
    write_run_files(str(tmp_path), RunConfig(labels={"a": "b"}))
    assert (tmp_path / "etc/hosts").read_text() == "127.0.0.1 image\n"
    assert (tmp_path / "environment").read_text() == "the image's own"
    assert (tmp_path / ".singularity.d/runscript").read_text().startswith("#!/bin/sh")
    assert json.loads((tmp_path / ".singularity.d/labels.json").read_text()) == {"a": "b"}
    assert str((tmp_path / "singularity").readlink()) == ".singularity.d/runscript"
    assert stat.S_IMODE((tmp_path / "tmp").stat().st_mode) == 0o1777


@pytest.mark.parametrize("name", ["etc", "var", ".singularity.d", "tmp"])
def test_a_link_out_of_the_tree_leads_nowhere(tmp_path, name):
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    tree.mkdir()
    (tree / name).symlink_to(outside)
    write_run_files(str(tree), RunConfig())
    assert not list(outside.iterdir())
    assert (tree / ".singularity.d/runscript").exists()


def test_links_in_the_place_of_our_files_are_replaced(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    tree = tmp_path / "tree"
    (tree / ".singularity.d").mkdir(parents=True)
    (tree / ".singularity.d/runscript").symlink_to(outside)
    write_run_files(str(tree), RunConfig())
    assert outside.read_text() == "mine"
    assert not (tree / ".singularity.d/runscript").is_symlink()


def test_scripts_are_good_shell():
    for entry in run_files(RunConfig(env=("A=1",), cmd=("true",))):
        if entry.text is not None and entry.text.startswith("#!/bin/sh"):
            assert subprocess.run(["/bin/sh", "-n"], input=entry.text, text=True).returncode == 0, entry.path
