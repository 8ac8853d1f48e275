"""How the commands present themselves: a token and certificates, which no error shows."""

from pathlib import Path

import click
import pytest

from tandem.cli.client import credentials, trust
from tests.certificates import Authority

HEADER = {"Authorization": "Bearer tandem_x"}


def test_a_token_from_a_variable_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("tandem_x\n")
    assert credentials({}) == {}
    assert credentials({"TANDEM_TOKEN": "tandem_x"}) == HEADER
    assert credentials({"TANDEM_TOKEN_FILE": str(file)}) == HEADER
    both = {"TANDEM_TOKEN": "tandem_x", "TANDEM_TOKEN_FILE": "/nowhere"}
    assert credentials(both) == HEADER


@pytest.mark.parametrize("token", ["hush hush", "hush\nhush", "hüsh"])
def test_more_than_a_token_is_refused_and_not_shown(tmp_path: Path, token: str) -> None:
    file = tmp_path / "token"
    file.write_text(token)
    for variable, value in (("TANDEM_TOKEN", token), ("TANDEM_TOKEN_FILE", str(file))):
        with pytest.raises(click.UsageError, match="not shown") as caught:
            credentials({variable: value})
        assert "hush" not in caught.value.message
    with pytest.raises(click.UsageError, match="none"):
        credentials({"TANDEM_TOKEN_FILE": str(tmp_path / "none")})


def test_whom_to_trust(tmp_path: Path) -> None:
    assert trust({}) is None
    authority = Authority(tmp_path, "authority")
    found = trust(
        {"TANDEM_CA": str(authority.file), "TANDEM_CLIENT_CERT": str(authority.sign("me"))}
    )
    assert found is not None
    (known,) = found.get_ca_certs()
    assert known["subject"] == ((("commonName", "authority"),),)


@pytest.mark.parametrize("variable", ["TANDEM_CA", "TANDEM_CLIENT_CERT"])
def test_certificates_that_cannot_be_used(variable: str) -> None:
    with pytest.raises(click.UsageError, match=f"{variable}=/nowhere"):
        trust({variable: "/nowhere"})
