"""What a pod and its templates say, and what is run: refused by name, merged in order, and read back as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.model.errors import SpecInvalid
from scheduler.model.pods import NetProtocol, PodDefinition, PodMount, PodNet, PodResources, VolumeKind
from scheduler.services.pod_definitions import Layer, defined, fields_of, unsaid
from scheduler.services.pod_fields import check, newest_names
from scheduler.services.pod_mounts import by_path
from scheduler.services.pod_names import RESERVED, check_host_names, check_pod_id, parse_template

# -- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pod_id", ["abc", "a1b", "docpod", "a" * 64])
def test_an_id_of_small_letters_and_digits_is_taken(pod_id: str):
    assert check_pod_id(pod_id) == pod_id


@pytest.mark.parametrize("pod_id", ["ab", "a" * 65, "1ab", "aBc", "a-b", "a_b", "a.b", "abc\n", "", "ábc", "../etc"])
def test_any_other_id_is_refused(pod_id: str):
    with pytest.raises(SpecInvalid, match=r"(?s)pod_id: .* is not an id; use 3 to 64 small letters and digits"):
        check_pod_id(pod_id)


@pytest.mark.parametrize("word", sorted(RESERVED))
def test_a_reserved_word_is_no_id(word: str):
    with pytest.raises(SpecInvalid, match=f"'{word}' is a reserved word"):
        check_pod_id(word)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("neo4j", "neo4j:latest"),
        ("template/neo4j", "neo4j:latest"),
        ("neo4j:5", "neo4j:5"),
        ("neo4j:5@2024-06-10-17:20:27", "neo4j:5@2024-06-10-17:20:27"),
    ],
)
def test_a_template_is_named_with_or_without_tag_and_timestamp(text: str, read: str):
    assert str(parse_template(text)) == read


@pytest.mark.parametrize("text", ["", "Neo4j", "neo4j:", "neo4j:5@", "neo4j:5@yesterday", "a b", "a/b", ":5"])
def test_what_names_no_template_is_refused(text: str):
    with pytest.raises(SpecInvalid, match="names no template"):
        parse_template(text)


def test_a_host_name_longer_than_a_label_is_refused():
    nets = [PodNet(name="n" * 30, protocol=NetProtocol.HTTP, port=80)]
    check_host_names("a" * 32, nets)
    with pytest.raises(SpecInvalid, match=r"networking\.n+: its host name is longer than 63"):
        check_host_names("a" * 33, nets)


# -- three generations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ({"pod_template": "template/neo4j"}, {"template": "neo4j"}),
        ({"pod_template": "jupyter/base-notebook"}, {"image": "jupyter/base-notebook"}),
        ({"template": "neo4j", "data_requests": [], "roles_required": []}, {"template": "neo4j"}),
        ({"image": "redis", "pod_template": ""}, {"image": "redis"}),
    ],
)
def test_the_words_of_old_clients_mean_what_they_meant(sent: dict[str, Any], meant: dict[str, Any]):
    assert newest_names(sent) == meant


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({"pod_template": "redis", "image": "redis"}, "pod_template: is said beside image or template"),
        ({"data_requests": ["a"]}, "data_requests: is of an older Pods API"),
        ({"roles_required": ["a"]}, "roles_required: is of an older Pods API"),
    ],
)
def test_what_cannot_be_said_in_new_words_is_refused(sent: dict[str, Any], words: str):
    with pytest.raises(SpecInvalid, match=words):
        newest_names(sent)


# -- fields ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"image": "a b"}, "image: "),
        ({"template": "A"}, "template: 'A' names no template"),
        ({"description": "é"}, "description: must be ASCII"),
        ({"description": "x" * 256}, "description: has 256 characters; write at most 255"),
        ({"environment_variables": {"1A": ""}}, "environment_variables: '1A' is not the name of a variable"),
        ({"time_to_stop_default": 299}, "time_to_stop_default: is 299; send -1 for never, or at least 300 seconds"),
        ({"time_to_stop_instance": -2}, "time_to_stop_instance: is -2"),
        ({"compute_queue": "a/b"}, "compute_queue: 'a/b' is no queue"),
        ({"resources": {"cpu_request": 0}}, "resources.cpu_request: is 0; send 1 to 1000000"),
        ({"resources": {"gpus": -1}}, "resources.gpus: is -1"),
        ({"networking": {n: {"port": 80} for n in "abcd"}}, "networking: has 4 entries; send at most 3"),
        ({"networking": {"A": {"port": 80}}}, "networking: 'A' is no name of a net"),
        ({"networking": {"a-b": {"port": 80}}}, "networking: 'a-b' is no name of a net"),
        ({"networking": {"default": {"port": 0}}}, "networking.default.port: is 0; send 1 to 65535"),
        ({"networking": {"default": {"port": 65536}}}, "networking.default.port: is 65536"),
        ({"networking": {"default": {"protocol": "udp"}}}, "networking.default.protocol: 'udp' is none"),
        ({"networking": {"default": {"ip_allow_list": ["*"]}}}, r"ip_allow_list: '\*' is no address"),
        ({"networking": {"default": {"protocol": "tcp", "tapis_auth": True}}}, "tapis_auth and cors_\\* are for http"),
        ({"networking": {"default": {"tapis_auth_return_path": "//evil.org"}}}, "tapis_auth_return_path: is no path"),
        ({"networking": {"default": {"tapis_auth_response_headers": {"a\nb": ""}}}}, "is no header"),
        *(
            ({"networking": {"default": {"tapis_auth_response_headers": {"X-A": value}}}}, r"X-A: is no value of a")
            for value in (" <<tapisusername>>", "a ", "\ta", "a\nb", "a\x00b", " ")
        ),
        ({"networking": {"default": {"cors_allow_methods": ["GET", "PUT "]}}}, "cors_allow_methods: holds a word"),
        ({"networking": {"default": {"cors_allow_headers": [""]}}}, "cors_allow_headers: holds a word"),
        ({"volume_mounts": {"vol": None}}, "volume_mounts.vol: is null, which takes away what lies at a path"),
        ({"volume_mounts": {"/data": {"type": "nfs"}}}, "volume_mounts./data.type: 'nfs' is none"),
        ({"volume_mounts": {"/data": {"type": "tapisvolume"}}}, "source_id: '' names no tapisvolume"),
        ({"volume_mounts": {"/data": {"type": "ephemeral", "source_id": "v"}}}, "ephemeral has no source"),
        ({"volume_mounts": {"/a/../etc": {"type": "ephemeral"}}}, "is no path to mount at"),
        ({"volume_mounts": {"/proc/1": {"type": "ephemeral"}}}, "belongs to the container"),
        ({"volume_mounts": {"/": {"type": "ephemeral"}}}, "belongs to the container"),
        ({"volume_mounts": {"/a,b": {"type": "ephemeral"}}}, "is too long, or holds"),
        ({"volume_mounts": {"vol": {"sub_path": "../x"}}}, "sub_path: leaves the volume"),
        ({"volume_mounts": {"vol": {"read_only": True}}}, "has fields of mounts by path"),
        ({"volume_mounts": {"a": {}, "b": {}}}, "where another one lies"),
        ({"volume_mounts": {"/c": {"type": "ephemeral", "config_content": "x"}}}, "config_filename: is missing"),
        (
            {"volume_mounts": {"/c": {"type": "ephemeral", "config_content": "x", "config_filename": "../x"}}},
            "config_filename: is no file name",
        ),
        (
            {"volume_mounts": {"/c": {"type": "ephemeral", "config_permissions": "999"}}},
            "config_permissions: is no mode",
        ),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_a_field_that_cannot_be_meant_is_refused_by_name(fields: dict[str, Any], words: str):
    with pytest.raises(SpecInvalid, match=words):
        check(fields)


def test_everything_wrong_is_said_at_once():
    with pytest.raises(SpecInvalid) as refused:
        check({"description": "é", "time_to_stop_default": 1, "compute_queue": ""}, "pod_definition.")
    assert [problem.field for problem in refused.value.problems] == [
        "pod_definition.description",
        "pod_definition.time_to_stop_default",
        "pod_definition.compute_queue",
    ]


def test_mounts_of_both_forms_mean_the_same():
    old = {"vol": {"type": "tapisvolume", "mount_path": "/data/", "sub_path": "/a"}, "snap": {"type": "tapissnapshot"}}
    new = {
        "/data": {"type": "tapisvolume", "source_id": "vol", "sub_path": "a"},
        "/tapis_volume_mount": {"type": "tapissnapshot", "source_id": "snap"},
    }
    check({"volume_mounts": old})
    check({"volume_mounts": new})
    assert by_path(old) == by_path(new)
    assert by_path(old)["/tapis_volume_mount"].read_only


# -- merging -----------------------------------------------------------------------------------------------------

BASE = Layer(
    {
        "image": "base",
        "command": ["run"],
        "environment_variables": {"A": "base", "B": "base"},
        "networking": {"default": {"protocol": "tcp", "port": 1}, "web": {"port": 2}},
        "resources": {"cpu_request": 500},
        "volume_mounts": {"/data": {"type": "ephemeral"}, "/old": {"type": "ephemeral"}},
        "time_to_stop_default": -1,
    },
    is_stateful=False,
)
MIDDLE = Layer({"environment_variables": {"B": "middle"}, "arguments": ["m"], "volume_mounts": {"/old": None}})


def test_fields_of_the_pod_win_over_those_of_its_template_and_these_over_those_below():
    asked = {
        "environment_variables": {"C": "mine"},
        "networking": {"default": {"port": 9}, "web": None},
        "resources": {"mem_request": 512},
        "volume_mounts": {"vol": {"mount_path": "/data"}},
        "time_to_stop_instance": 600,
    }
    made = defined(asked, [MIDDLE, BASE])
    assert (made.image, made.command, made.arguments) == ("base", ("run",), ("m",))
    assert made.environment == {"A": "base", "B": "middle", "C": "mine"}
    assert made.nets == (PodNet(name="default", protocol=NetProtocol.HTTP, port=9),)
    assert made.mounts == (PodMount(kind=VolumeKind.VOLUME, target="/data", source="vol"),)
    assert made.resources == PodResources(request_millicores=500, request_memory_mib=512)
    assert (made.time_to_stop_s, made.is_stateful) == (600, False)


def test_a_pod_that_says_nothing_but_its_image_gets_the_defaults():
    net = PodNet(name="default", protocol=NetProtocol.HTTP, port=5000)
    assert defined({"image": "x"}) == PodDefinition(image="x", nets=(net,))


@pytest.mark.parametrize(
    ("asked", "templates", "words"),
    [
        ({}, [], "image: is missing: neither image nor template names one; send template= or image="),
        ({"image": "x"}, [MIDDLE, BASE, BASE], "template: stands on a template that stands on another"),
        ({"networking": {"a": {"port": 3}, "b": {"port": 4}}}, [BASE], "networking: has 4 entries"),
        (
            {"image": "x", "resources": {"cpu_request": 3000, "cpu_limit": 2000}},
            [],
            r"resources.cpu_request: \(3000\) is more than cpu_limit \(2000\)",
        ),
        ({"resources": {"cpu_limit": 400}}, [BASE], r"cpu_request: \(500\) is more than cpu_limit \(400\)"),
    ],
)
def test_what_does_not_fit_together_is_refused(asked: dict[str, Any], templates: list[Layer], words: str):
    with pytest.raises(SpecInvalid, match=words):
        defined(asked, templates)


@pytest.mark.parametrize(
    ("resources", "request_limit"),
    [({"cpu_request": 4000}, (4000, 4000)), ({"cpu_limit": 100}, (100, 100)), ({"cpu_limit": 900}, (250, 900))],
)
def test_a_default_never_contradicts_what_was_said(resources: dict[str, int], request_limit: tuple[int, int]):
    made = defined({"image": "x", "resources": resources}).resources
    assert (made.request_millicores, made.limit_millicores) == request_limit


# -- laws --------------------------------------------------------------------------------------------------------

words = st.text(alphabet="abcxyz019", min_size=1, max_size=6)
net = st.fixed_dictionaries(
    {"port": st.integers(1, 65535), "protocol": st.sampled_from(["http", "tcp", "postgres", "local_only"])},
    optional={"ip_allow_list": st.lists(st.sampled_from(["10.0.0.0/8", "::1"]), max_size=2)},
)
mount = st.one_of(
    st.fixed_dictionaries({"type": st.just("tapisvolume"), "source_id": words}, optional={"read_only": st.booleans()}),
    st.fixed_dictionaries(
        {"type": st.just("ephemeral"), "config_content": st.text(max_size=9), "config_filename": words}
    ),
)
layers = st.fixed_dictionaries(
    {},
    optional={
        "image": words,
        "command": st.lists(words, max_size=2),
        "arguments": st.lists(words, max_size=2),
        "environment_variables": st.dictionaries(words.map(lambda word: f"E{word}"), words, max_size=3),
        "networking": st.dictionaries(words, net, max_size=1),
        "volume_mounts": st.dictionaries(words.map(lambda word: f"/{word}"), mount, max_size=2),
        "time_to_stop_default": st.one_of(st.just(-1), st.integers(300, 10**6)),
        "time_to_stop_instance": st.one_of(st.just(-1), st.integers(300, 10**6)),
        "resources": st.dictionaries(st.sampled_from(["cpu_request", "mem_request", "gpus"]), st.integers(1, 9)),
    },
)


@given(layers)
def test_a_definition_in_the_wires_words_defines_itself(fields: dict[str, Any]):
    check(fields)
    made = defined({"image": "x", **fields})
    again = fields_of(made)
    check(again)
    assert defined(again) == made


@given(layers, layers)
def test_what_a_pod_says_is_what_runs_whatever_its_template_says(asked: dict[str, Any], below: dict[str, Any]):
    made = fields_of(defined({"image": "x", **asked}, [Layer(below)]))
    alone = fields_of(defined({"image": "x", **asked}))
    for name in ("image", "time_to_stop_default"):
        if name in asked:
            assert made[name] == alone[name]
    for name in ("environment_variables", "volume_mounts", "networking"):
        for key in asked.get(name) or {}:
            assert made[name][key] == alone[name][key]


@given(layers, layers)
def test_what_a_pod_does_not_say_with_what_it_says_defines_it(asked: dict[str, Any], below: dict[str, Any]):
    made = defined(asked, [Layer({"image": "x", **below}, is_stateful=False)])
    again = defined(asked, [Layer(unsaid(made, asked), made.is_stateful)])
    assert fields_of(again) == fields_of(made)
    assert again.is_stateful is False


@given(layers, layers)
def test_a_template_says_for_a_silent_pod_what_it_would_say_itself(upper: dict[str, Any], lower: dict[str, Any]):
    lower = {"image": "x", **lower}
    assert defined({}, [Layer(upper), Layer(lower)]) == defined(upper, [Layer(lower)])
