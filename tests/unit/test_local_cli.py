"""`tandem local` as a person and a script see it, with a cluster that does not run."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tandem.cli.local import local
from tandem.local import state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    state.save(tmp_path, state.new("mariadb", 1, 1, [8080, 8081, 8082]))
    return tmp_path


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(local, [str(argument) for argument in arguments])


def test_status_for_machines(folder: Path) -> None:
    result = call("status", "--json", "--data-dir", folder)
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    kinds = [(process["name"], process["kind"]) for process in told["processes"]]
    assert kinds == [("zk", "zookeeper"), ("s1", "mysql"), ("c1", "coordinator")]
    assert told["data_dir"] == str(folder)


def test_status_for_people_shows_no_password(folder: Path) -> None:
    result = call("status", "--data-dir", folder)
    assert result.exit_code == 0
    assert "127.0.0.1:8082" in result.stdout
    assert state.load(folder).admin_password not in result.stdout  # type: ignore[union-attr]


def test_the_data_folder_comes_from_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_DATA_DIR", str(folder))
    assert call("status").exit_code == 0


@pytest.mark.parametrize("command", [["status"], ["start", "s1"], ["stop", "s1"]])
def test_without_a_cluster_the_error_names_the_folder(tmp_path: Path, command: list[str]) -> None:
    result = call(*command, "--data-dir", tmp_path)
    assert result.exit_code == 1
    assert f"there is no local cluster in {tmp_path}" in result.stderr


def test_down_without_a_cluster_is_no_error(tmp_path: Path) -> None:
    assert call("down", "--data-dir", tmp_path).exit_code == 0


def test_run_refuses_another_engine_than_the_folder_holds(folder: Path) -> None:
    result = call("run", "--detach", "--engine", "mysql", "--data-dir", folder)
    assert result.exit_code == 1
    assert "holds a cluster of MariaDB: shards 1" in result.stderr
