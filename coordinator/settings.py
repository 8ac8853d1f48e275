"""What a user can configure: the file `config/tandem.toml` and the `TANDEM_...` variables.

Every key has a type, a range and a default here; the file explains them.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

from shard_client.shard_map import ADDRESS_PATTERN, GROUP_PATTERN, HOST_PATTERN

Name = Annotated[str, Meta(pattern=r"^[a-z0-9_-]{1,10}\Z")]
Milliseconds = Annotated[int, Meta(ge=1, le=3_600_000)]
_LISTENER = rf"{HOST_PATTERN}:\d{{1,5}}"
Address = Annotated[str, Meta(pattern=rf"^{_LISTENER}\Z")]
Hosts = Annotated[str, Meta(pattern=rf"^{_LISTENER}(,{_LISTENER})*(/\S*)?\Z")]
Endpoint = Annotated[str, Meta(pattern=r"^(https?://\S+)?\Z")]
ShardAddress = Annotated[str, Meta(pattern=f"{ADDRESS_PATTERN}|{GROUP_PATTERN}")]


class SettingsError(Exception):
    """The configuration cannot be used; the text names the key and what is allowed."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the configuration file."""


class Cluster(Section, frozen=True):
    id: Name = "tandem"


class Coordinator(Section, frozen=True):
    id: Name = "c1"
    listen: Address = "127.0.0.1:8080"
    workers: Annotated[int, Meta(ge=1, le=64)] = 2
    connections: Annotated[int, Meta(ge=1, le=10_000)] = 512
    body_max_bytes: Annotated[int, Meta(ge=1024, le=1 << 30)] = 8 << 20
    request_max_bytes: Annotated[int, Meta(ge=16 << 10, le=1 << 20)] = 32 << 10
    scratch_dir: str = ""


class Access(Section, frozen=True):
    tokens_file: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    tls_client_crl: str = ""


class ZooKeeper(Section, frozen=True):
    hosts: Hosts = "127.0.0.1:2181"
    session_timeout_s: Annotated[float, Meta(ge=1, le=120)] = 6.0
    user: Annotated[str, Meta(pattern=r"^[^\s:]*\Z")] = ""
    password: str = ""
    previous_password: str = ""
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""


class MySQL(Section, frozen=True):
    user: str = "tandem"
    password: str = ""
    admin_user: str = ""
    admin_password: str = ""
    audit_user: str = ""
    audit_password: str = ""
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    weak_durability: Literal["refuse", "flag"] = "refuse"
    connect_timeout_ms: Milliseconds = 1000
    idle_timeout_s: Annotated[int, Meta(ge=2, le=3600)] = 10


class EventStore(Section, frozen=True):
    secret: str = ""


class Engine(Section, frozen=True):
    protocol: Literal["xa", "tcc", "saga"] = "xa"
    group_max: Annotated[int, Meta(ge=1, le=10_000)] = 2000
    executors: Annotated[int, Meta(ge=1, le=64)] = 4
    queue_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 40_000
    request_deadline_ms: Milliseconds = 5000
    batch_deadline_ms: Milliseconds = 30_000
    lock_timeout_ms: Milliseconds = 2000
    write_timeout_ms: Milliseconds = 5000
    skips_max: Annotated[int, Meta(ge=0, le=1000)] = 3
    stuck_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    unfinished_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 100
    sweep_interval_ms: Milliseconds = 2000
    sweep_grace_ms: Milliseconds = 15_000
    collect_after_ms: Annotated[int, Meta(ge=1000, le=86_400_000)] = 60_000


class Log(Section, frozen=True):
    format: Literal["auto", "json", "text"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    requests: Literal["all", "errors"] = "all"


class Tracing(Section, frozen=True):
    endpoint: Endpoint = ""
    sample_ratio: Annotated[float, Meta(ge=0, le=1)] = 0.01


class Settings(Section, frozen=True):
    """The whole configuration, checked."""

    cluster: Cluster = Cluster()
    coordinator: Coordinator = Coordinator()
    access: Access = Access()
    zookeeper: ZooKeeper = ZooKeeper()
    mysql: MySQL = MySQL()
    eventstore: EventStore = EventStore()
    engine: Engine = Engine()
    log: Log = Log()
    tracing: Tracing = Tracing()
    shards: dict[Name, ShardAddress] = {}


SECTIONS: dict[str, type[Section]] = {
    "cluster": Cluster,
    "coordinator": Coordinator,
    "access": Access,
    "zookeeper": ZooKeeper,
    "mysql": MySQL,
    "eventstore": EventStore,
    "engine": Engine,
    "log": Log,
    "tracing": Tracing,
}

# Variables of the command line that are no keys of the file.
NOT_SETTINGS = {"TANDEM_CONFIG", "TANDEM_URL", "TANDEM_DATA_DIR", "TANDEM_SERVERS"}
# How the command line presents itself to the service, and knows it.
NOT_SETTINGS |= {"TANDEM_TOKEN", "TANDEM_TOKEN_FILE"}
NOT_SETTINGS |= {"TANDEM_CA", "TANDEM_CLIENT_CERT", "TANDEM_CLIENT_KEY"}
DEFAULT_FILE = Path("config/tandem.toml")


def load(
    path: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    defaults: Mapping[str, str] | None = None,
) -> Settings:
    """Read the configuration: the file at `path` (or at TANDEM_CONFIG, or config/tandem.toml),
    over it `defaults`, which lead to a local cluster, and over both `environ`, each as TANDEM_...
    variables.

    Raises SettingsError, which names the file or variable, the key, the value and what is allowed.
    """
    named = path or (Path(environ["TANDEM_CONFIG"]) if environ.get("TANDEM_CONFIG") else None)
    tables = _read_file(named or DEFAULT_FILE, required=named is not None)
    sources = {
        f"{section}.{key}": f"{named or DEFAULT_FILE}"
        for section, values in tables.items()
        for key in (values if isinstance(values, dict) else ())
    }
    for variables, what in ((defaults or {}, "local cluster"), (environ, "environment")):
        for name, text in variables.items():
            if name.startswith("TANDEM_") and name not in NOT_SETTINGS:
                section, key, value = _from_variable(name, text)
                if section == "shards":
                    tables["shards"] = value
                else:
                    tables.setdefault(section, {})[key] = value
                sources[f"{section}.{key}"] = f"{what}: {name}"
    return _checked(tables, sources)


def _read_file(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        if not required:
            return {}
        raise SettingsError(f"there is no configuration file {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error


def _from_variable(name: str, text: str) -> tuple[str, str, Any]:
    """Section, key and value of one TANDEM_... variable."""
    if name == "TANDEM_SHARDS":
        pairs = [item.partition("=") for item in text.split(",") if item.strip()]
        return "shards", "", {shard.strip(): address.strip() for shard, _, address in pairs}
    section, _, key = name.removeprefix("TANDEM_").lower().partition("_")
    if section not in SECTIONS or key not in SECTIONS[section].__struct_fields__:
        known = ", ".join(
            f"TANDEM_{s}_{k}".upper() for s, t in SECTIONS.items() for k in t.__struct_fields__
        )
        raise SettingsError(f"{name} is no setting; there are: {known}, TANDEM_SHARDS")
    return section, key, text


def _checked(tables: dict[str, Any], sources: dict[str, str]) -> Settings:
    sections: dict[str, Any] = {}
    for section, values in tables.items():
        if section not in {*SECTIONS, "shards"}:
            allowed = ", ".join([*SECTIONS, "shards"])
            raise SettingsError(f"[{section}] is no section; there are: {allowed}")
        if not isinstance(values, dict):
            raise SettingsError(f"{section} must be a table, [{section}]; it is {values!r}")
        if section == "shards":
            sections[section] = {k: _value("shards", k, v, ShardAddress) for k, v in values.items()}
            for name in values:
                _value("shards", name, name, Name)
            continue
        types = msgspec.structs.fields(SECTIONS[section])
        known = {field.name: field.type for field in types}
        for key, value in values.items():
            if key not in known:
                where = sources.get(f"{section}.{key}", "")
                raise SettingsError(
                    f"{section}.{key} is no setting ({where}); [{section}] has: {', '.join(known)}"
                )
            values[key] = _value(section, key, value, known[key], sources)
        sections[section] = SECTIONS[section](**values)
    settings = Settings(**sections)
    _check_grace(settings.engine)
    _check_secrets(settings)
    return settings


def _check_grace(engine: Engine) -> None:
    """The sweep must leave alone what may still be at work."""
    longest_ms = engine.lock_timeout_ms + 2 * engine.write_timeout_ms
    if engine.sweep_grace_ms <= longest_ms:
        raise SettingsError(
            f"engine.sweep_grace_ms = {engine.sweep_grace_ms} cannot be used: a group may be at "
            f"work for {longest_ms} ms (lock_timeout_ms + 2 x write_timeout_ms); allowed: a whole "
            f"number above that"
        )


def _check_secrets(settings: Settings) -> None:
    """What is of use together only, or must be apart."""
    keeper, mysql, access = settings.zookeeper, settings.mysql, settings.access
    if bool(keeper.user) != bool(keeper.password):
        raise SettingsError(
            "zookeeper.user and zookeeper.password go together: give both, or neither"
        )
    if keeper.previous_password and not keeper.user:
        raise SettingsError("zookeeper.previous_password is of no use without zookeeper.user")
    if mysql.audit_user and mysql.audit_user in (mysql.user, mysql.admin_user):
        raise SettingsError(
            f"mysql.audit_user = {mysql.audit_user!r} is another one's name too: the auditor is to "
            "have a user of its own, that can only read"
        )
    if bool(access.tls_certificate) != bool(access.tls_key):
        raise SettingsError(
            "access.tls_certificate and access.tls_key go together (they may name one file): give "
            "both, or neither"
        )
    if access.tls_client_ca and not access.tls_certificate:
        raise SettingsError(
            f"access.tls_client_ca = {access.tls_client_ca!r} is of no use without "
            "access.tls_certificate and access.tls_key"
        )
    if access.tls_client_crl and not access.tls_client_ca:
        raise SettingsError(
            f"access.tls_client_crl = {access.tls_client_crl!r} is of no use without "
            "access.tls_client_ca"
        )
    for section, of in (("mysql", mysql), ("zookeeper", keeper)):
        if bool(of.tls_certificate) != bool(of.tls_key):
            raise SettingsError(
                f"{section}.tls_certificate and {section}.tls_key go together (they may name one "
                "file): give both, or neither"
            )
        if of.tls_certificate and not of.tls_ca:
            raise SettingsError(
                f"{section}.tls_certificate is of no use without {section}.tls_ca: servers that "
                "are shown it are verified"
            )


def _value(
    section: str, key: str, value: Any, allowed: Any, sources: Mapping[str, str] = {}
) -> Any:
    try:
        # Variables are text, so numbers are taken from text there; a file says what it means.
        from_text = not sources.get(f"{section}.{key}", "").endswith(".toml")
        return msgspec.convert(value, allowed, strict=not from_text)
    except msgspec.ValidationError as error:
        shown = "(not shown)" if "password" in key or key == "secret" else repr(value)
        where = sources.get(f"{section}.{key}", "")
        raise SettingsError(
            f"{section}.{key} = {shown} cannot be used"
            f"{f' ({where})' if where else ''}: {error}; allowed: {_allowed(allowed)}"
        ) from None


def _allowed(kind: Any) -> str:
    """What a key takes, in words."""
    if get_origin(kind) is Literal:
        return " or ".join(repr(choice) for choice in get_args(kind))
    if get_origin(kind) is not Annotated:
        return {str: "text", int: "a whole number", float: "a number"}.get(kind, str(kind))
    base, meta = get_args(kind)[:2]
    if meta.pattern:
        return f"text like {meta.pattern}"
    noun = "a number" if base is float else "a whole number"
    return f"{noun} from {meta.ge} to {meta.le}"
