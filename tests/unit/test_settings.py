"""The configuration: what the file documents is what holds, and every mistake is named."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from coordinator.http.schemas import BATCH_MAX
from coordinator.settings import NOT_SETTINGS, SECTIONS, Settings, SettingsError, load

FILE = Path(__file__).parents[2] / "config" / "tandem.toml"
KEYS = [(section, key) for section, t in SECTIONS.items() for key in t.__struct_fields__]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Away from the project's own configuration."""
    monkeypatch.chdir(tmp_path)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "some.toml"
    path.write_text(text)
    return path


def complaint(tmp_path: Path, text: str = "", **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(written(tmp_path, text), environ)
    return str(caught.value)


# --- the file that is shipped ---------------------------------------------------------------


def test_the_file_lists_every_key_with_its_default() -> None:
    documented = tomllib.loads(FILE.read_text())
    defaults = msgspec.to_builtins(Settings())
    assert documented == defaults


def test_the_file_explains_every_key() -> None:
    """A comment stands above each key or above the keys that it belongs to."""
    is_explained = False
    for line in FILE.read_text().splitlines():
        if line.startswith(("[", "#")) or not line:
            is_explained = line.startswith("#")
        else:
            assert is_explained, line


def test_the_file_can_be_loaded() -> None:
    assert load(FILE, {}) == Settings()


def test_without_a_file_the_defaults_hold() -> None:
    assert load(environ={}) == Settings()


# --- where values come from -----------------------------------------------------------------


def test_variables_win_over_the_file_and_the_file_over_defaults_of_a_local_cluster(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, "[engine]\ngroup_max = 5\nexecutors = 6\n")
    environ = {"TANDEM_ENGINE_GROUP_MAX": "7"}
    found = load(path, environ, {"TANDEM_ENGINE_QUEUE_MAX": "9"})
    engine = found.engine
    assert (engine.group_max, engine.executors, engine.queue_max) == (7, 6, 9)


def test_the_file_can_be_named_by_a_variable(tmp_path: Path) -> None:
    path = written(tmp_path, '[cluster]\nid = "mine"\n')
    assert load(environ={"TANDEM_CONFIG": str(path)}).cluster.id == "mine"


def test_the_usual_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "tandem.toml").write_text('[cluster]\nid = "usual"\n')
    assert load(environ={}).cluster.id == "usual"


@pytest.mark.parametrize(
    ("variable", "section", "key", "value"),
    [
        ("TANDEM_CLUSTER_ID=blue", "cluster", "id", "blue"),
        ("TANDEM_COORDINATOR_BODY_MAX_BYTES=1024", "coordinator", "body_max_bytes", 1024),
        ("TANDEM_ZOOKEEPER_SESSION_TIMEOUT_S=2.5", "zookeeper", "session_timeout_s", 2.5),
        ("TANDEM_ZOOKEEPER_HOSTS=a:1,b:2", "zookeeper", "hosts", "a:1,b:2"),
        ("TANDEM_MYSQL_PASSWORD=a=b,c", "mysql", "password", "a=b,c"),
        ("TANDEM_MYSQL_PASSWORD=123", "mysql", "password", "123"),
        ("TANDEM_MYSQL_WEAK_DURABILITY=flag", "mysql", "weak_durability", "flag"),
        ("TANDEM_ENGINE_SKIPS_MAX=0", "engine", "skips_max", 0),
    ],
)
def test_a_variable_for_a_key(variable: str, section: str, key: str, value: object) -> None:
    name, _, text = variable.partition("=")
    found = load(environ={name: text, "HOME": "/", "TANDEMX": "no"})
    assert getattr(getattr(found, section), key) == value


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_every_key_has_a_variable(section: str, key: str) -> None:
    value = getattr(SECTIONS[section](), key)
    found = load(environ={f"TANDEM_{section}_{key}".upper(): str(value)})
    assert getattr(getattr(found, section), key) == value


def test_shards_in_the_file_and_in_a_variable(tmp_path: Path) -> None:
    path = written(tmp_path, '[shards]\ns1 = "h:1/d"\n')
    assert load(path, {}).shards == {"s1": "h:1/d"}
    environ = {"TANDEM_SHARDS": "a=h:1/d, b=127.0.0.1:3312/tandem"}
    assert load(path, environ).shards == {"a": "h:1/d", "b": "127.0.0.1:3312/tandem"}


@pytest.mark.parametrize("name", sorted(NOT_SETTINGS - {"TANDEM_CONFIG"}))
def test_variables_of_the_command_line_are_left_alone(name: str) -> None:
    assert load(environ={name: "anything"}) == Settings()


# --- mistakes -------------------------------------------------------------------------------


def test_an_unknown_key(tmp_path: Path) -> None:
    text = complaint(tmp_path, "[engine]\ngroupmax = 5\n")
    assert "engine.groupmax is no setting" in text
    assert "some.toml" in text
    assert "group_max, executors" in text


def test_an_unknown_section(tmp_path: Path) -> None:
    text = complaint(tmp_path, "[engines]\ngroup_max = 5\n")
    assert "[engines] is no section" in text
    assert (
        "cluster, coordinator, access, zookeeper, mysql, eventstore, engine, log, tracing, shards"
        in text
    )


def test_a_section_that_is_no_table(tmp_path: Path) -> None:
    assert "engine must be a table" in complaint(tmp_path, "engine = 5\n")
    assert "shards must be a table" in complaint(tmp_path, 'shards = "s1"\n')


@pytest.mark.parametrize(
    "name", ["TANDEM_ENGINE_GROUPMAX", "TANDEM_GROUP_MAX", "TANDEM_", "TANDEM_X"]
)
def test_an_unknown_variable(tmp_path: Path, name: str) -> None:
    text = complaint(tmp_path, **{name: "5"})
    assert f"{name} is no setting" in text
    assert "TANDEM_ENGINE_GROUP_MAX" in text
    assert "TANDEM_SHARDS" in text


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("[engine]\ngroup_max = 0", "a whole number from 1 to 10000"),
        ("[engine]\ngroup_max = 10001", "a whole number from 1 to 10000"),
        ('[engine]\ngroup_max = "5"', "a whole number from 1 to 10000"),
        ("[engine]\ngroup_max = 1.5", "a whole number from 1 to 10000"),
        ("[engine]\ngroup_max = true", "a whole number from 1 to 10000"),
        ("[engine]\nlock_timeout_ms = -1", "a whole number from 1 to 3600000"),
        ("[zookeeper]\nsession_timeout_s = 0.5", "a number from 1 to 120"),
        ("[zookeeper]\nsession_timeout_s = nan", "a number from 1 to 120"),
        ("[zookeeper]\nsession_timeout_s = inf", "a number from 1 to 120"),
        ('[zookeeper]\nhosts = "localhost"', "text like"),
        ('[cluster]\nid = "Tandem"', "text like"),
        ('[cluster]\nid = "elevenchars"', "text like"),
        ('[cluster]\nid = ""', "text like"),
        ('[cluster]\nid = "a.b"', "text like"),
        ('[coordinator]\nid = "c1\\n"', "text like"),
        ('[coordinator]\nlisten = "8080"', "text like"),
        ('[mysql]\nweak_durability = "ignore"', "'refuse' or 'flag'"),
        ("[mysql]\nuser = 5", "text"),
        ('[shards]\ns1 = "127.0.0.1:3306"', "text like"),
        ('[shards]\n"s.1" = "h:1/d"', "text like"),
        ("[shards]\ns1 = 3306", "text like"),
    ],
)
def test_a_bad_value_in_the_file(tmp_path: Path, line: str, allowed: str) -> None:
    text = complaint(tmp_path, line)
    section = line[1 : line.index("]")]
    key = line.partition("\n")[2].partition(" = ")[0]
    assert f"{section}.{key.strip(chr(34))}" in text
    assert "cannot be used" in text
    assert allowed in text


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("TANDEM_ENGINE_GROUP_MAX", "many", "a whole number from 1 to 10000"),
        ("TANDEM_ENGINE_GROUP_MAX", "", "a whole number from 1 to 10000"),
        ("TANDEM_ENGINE_GROUP_MAX", "0", "a whole number from 1 to 10000"),
        ("TANDEM_ZOOKEEPER_SESSION_TIMEOUT_S", "nan", "a number from 1 to 120"),
        ("TANDEM_CLUSTER_ID", "a b", "text like"),
        ("TANDEM_MYSQL_WEAK_DURABILITY", "no", "'refuse' or 'flag'"),
        ("TANDEM_SHARDS", "s1", "text like"),
        ("TANDEM_SHARDS", "=h:1/d", "text like"),
        ("TANDEM_SHARDS", "s1=h/d", "text like"),
    ],
)
def test_a_bad_value_in_a_variable(tmp_path: Path, name: str, value: str, allowed: str) -> None:
    text = complaint(tmp_path, **{name: value})
    assert allowed in text
    if name != "TANDEM_SHARDS":
        assert name in text
        assert repr(value) in text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[mysql]\ntls_certificate = "a"', "mysql.tls_certificate and mysql.tls_key go together"),
        ('[zookeeper]\ntls_key = "a"', "zookeeper.tls_certificate and zookeeper.tls_key go"),
        ('[mysql]\ntls_certificate = "a"\ntls_key = "a"', "of no use without mysql.tls_ca"),
        ('[access]\ntls_client_crl = "a"', "of no use without access.tls_client_ca"),
    ],
)
def test_what_is_of_use_together_only(tmp_path: Path, text: str, named: str) -> None:
    assert named in complaint(tmp_path, text + "\n")


@pytest.mark.parametrize("key", ["password", "admin_password"])
def test_a_password_is_never_shown(tmp_path: Path, key: str) -> None:
    text = complaint(tmp_path, f'[mysql]\n{key} = ["hunter2"]\n')
    assert f"mysql.{key}" in text
    assert "hunter2" not in text
    text = complaint(tmp_path, f"[mysql]\n{key} = 1234567\n")
    assert "1234567" not in text


@pytest.mark.parametrize(
    "content", [b"[engine", b"\xff", b"[a]\n[a]\n", b"a = " + b"[" * 5000, b"a = " + b"1" * 5000]
)
def test_a_file_that_is_no_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"broken\.toml cannot be read"):
        load(path, {})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no configuration file .*none\.toml"):
        load(tmp_path / "none.toml", {})
    with pytest.raises(SettingsError, match=r"no configuration file .*none\.toml"):
        load(environ={"TANDEM_CONFIG": str(tmp_path / "none.toml")})


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path, {})


def test_a_worker_has_room_for_the_largest_batches_of_four_clients() -> None:
    """Connections are not dealt out evenly: all of them may come to one worker."""
    assert Settings().engine.queue_max >= 4 * BATCH_MAX
