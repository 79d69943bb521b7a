"""Settings come from one place, are checked at start, and say which variable is wrong."""

import pytest
from pydantic import ValidationError

from scheduler.settings import Settings, SettingsInvalid, load


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BERTH_HOME", str(tmp_path))
    return tmp_path


def test_the_database_is_a_file_in_home_when_not_said(home):
    settings = load()
    assert settings.effective_database_url == f"sqlite+aiosqlite:///{home}/berth.sqlite"
    assert settings.is_sqlite


def test_what_is_for_berth_alone_is_known(home):
    settings = load(
        database_url="sqlite+aiosqlite:////data/berth.sqlite", gateway_key="/tls/k", gateway_certificate="/c"
    )
    assert {str(path) for path in settings.own_places} == {
        str(home),
        f"{home}/pod-volumes",
        "/data/berth.sqlite",
        "/tls/k",
    }


def test_the_environment_wins_over_the_file_and_the_command_over_both(home, monkeypatch):
    (home / "berth.toml").write_text('port = 9000\nhost = "::1"\nlog_level = "debug"\n')
    monkeypatch.setenv("BERTH_PORT", "9001")
    settings = load(log_level="warning")
    assert (settings.port, settings.host, settings.log_level) == (9001, "::1", "warning")
    assert settings.base_url == "http://[::1]:9001"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BERTH_PORT", "many"),
        ("BERTH_PORT", "70000"),
        ("BERTH_GATEWAY_PORT", "70000"),
        ("BERTH_PODS_DOMAIN", "-pods.example.org"),
        ("BERTH_DATABASE_URL", "mysql://x"),
        ("BERTH_LOST_AFTER_S", "-1"),
        ("BERTH_PROBE_ALLOW", "10.0.0.0/99"),
        ("BERTH_LOG_LEVEL", "loud"),
        ("BERTH_PUBLIC_URL", "ftp://x"),
        ("BERTH_REGISTRY_MIRRORS", "mirror.example.org"),
        ("BERTH_REGISTRY_MIRRORS", '{"docker.io": ["https://mirror.example.org"]}'),
        ("BERTH_REGISTRY_MIRRORS", '{"docker.io": ["mirror.example.org/../v2"]}'),
        ("BERTH_PLAIN_HTTP_REGISTRIES", "http://login:5000"),
    ],
)
def test_a_wrong_value_names_its_variable(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid, match=name):
        load()


def test_an_unknown_setting_in_the_file_is_named(home):
    (home / "berth.toml").write_text("prot = 1\n")
    with pytest.raises(SettingsInvalid, match=r"prot in berth\.toml"):
        load()


def test_lists_of_networks_are_read_from_one_variable(monkeypatch):
    monkeypatch.setenv("BERTH_INPUT_PRIVATE_ALLOW", "127.0.0.1/32, 10.0.0.0/8")
    assert [str(network) for network in load().input_private_allow] == ["127.0.0.1/32", "10.0.0.0/8"]


def test_mirrors_are_a_table_and_registries_a_list(home, monkeypatch):
    (home / "berth.toml").write_text('[registry_mirrors]\n"docker.io" = ["mirror.example.org:5000/hub", "b.org"]\n')
    monkeypatch.setenv("BERTH_PLAIN_HTTP_REGISTRIES", "login:5000, localhost:5001")
    monkeypatch.setenv("BERTH_IMAGE_FOLDERS", "/srv/images")
    settings = load()
    assert settings.registry_mirrors == {"docker.io": ("mirror.example.org:5000/hub", "b.org")}
    assert settings.plain_http_registries == ("login:5000", "localhost:5001")
    assert [str(folder) for folder in settings.image_folders] == ["/srv/images"]


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        load().port = 1


def test_a_secret_never_shows(monkeypatch):
    monkeypatch.setenv("BERTH_SECRETS_KEY", "A" * 43 + "=")
    assert "AAAA" not in repr(Settings())
