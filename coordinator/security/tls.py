"""The files for TLS that the configuration names: what callers see, and how they are verified."""

import logging
import ssl
from collections.abc import Callable
from typing import Any

from coordinator.settings import Access, Settings, SettingsError
from shard_client.tls import Tls, context_of, stamp_of

log = logging.getLogger(__name__)


def check_tls(loaded: Settings) -> None:
    """Raise SettingsError unless all files can be used."""
    for section, of in (("mysql", loaded.mysql), ("zookeeper", loaded.zookeeper)):
        try:
            context_of(Tls(of.tls_ca, of.tls_certificate, of.tls_key))
        except OSError as error:
            given = f"{section}.tls_ca = {of.tls_ca!r}"
            if of.tls_certificate:
                given += f", tls_certificate = {of.tls_certificate!r}, tls_key = {of.tls_key!r}"
            raise SettingsError(
                f"{given} cannot be used: {error}; wanted are certificates of authorities, and if "
                "given a certificate and its key without a passphrase, PEM"
            ) from None
    if loaded.access.tls_certificate:
        _check_served(loaded.access)


def _check_served(access: Access) -> None:
    """Raise SettingsError unless gunicorn will be able to use the files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # The passphrase of a key that has one would be asked for, at the terminal, again and again.
        context.load_cert_chain(access.tls_certificate, access.tls_key, password=lambda: "")
    except OSError as error:
        raise SettingsError(
            f"access.tls_certificate = {access.tls_certificate!r} and access.tls_key = "
            f"{access.tls_key!r} cannot be used: {error}; wanted are a certificate chain and its "
            "key without a passphrase, PEM"
        ) from None
    if access.tls_client_ca:
        try:
            context.load_verify_locations(access.tls_client_ca)
        except OSError as error:
            raise SettingsError(
                f"access.tls_client_ca = {access.tls_client_ca!r} cannot be used: {error}; wanted "
                "are certificates of authorities, PEM"
            ) from None
    if access.tls_client_crl:
        try:
            heed_revocations(context, access.tls_client_crl)
        except OSError as error:
            raise SettingsError(
                f"access.tls_client_crl = {access.tls_client_crl!r} cannot be used: {error}; "
                "wanted is a revocation list of each authority in access.tls_client_ca, PEM"
            ) from None


def heed_revocations(context: ssl.SSLContext, file: str) -> None:
    """Refuse client certificates that the lists in `file` name, and those of an authority that has
    no list there, or one that is too old. Raises OSError.
    """
    context.load_verify_locations(file)
    if not context.cert_store_stats()["crl"]:
        raise OSError("it holds no revocation list")
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    # Who goes on with a session of before is not asked for a certificate again.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0


class ServerContexts:
    """The context for each new connection, with the files as they are then: they are read when they
    have changed, since a long revocation list takes a while. If they cannot be used, one being half
    written, say, the last good one is used, loudly.
    """

    def __init__(self, crl: str) -> None:
        self._crl = crl
        self._last: ssl.SSLContext | None = None
        self._stamps: list[tuple[int, ...]] = []
        self._trouble = ""

    def __call__(self, config: Any, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        """Gunicorn's hook `ssl_context`; `make` reads certificate, key and authorities. Raises
        OSError if there never was a good one.
        """
        files = (config.certfile, config.keyfile, config.ca_certs, self._crl)
        try:
            stamps = [stamp_of(file) for file in files if file]
            if self._last and stamps == self._stamps:
                return self._last
            made = make()
            if self._crl:
                heed_revocations(made, self._crl)
        except OSError as error:
            if self._last is None:
                raise
            if self._trouble != str(error):
                log.error(
                    "the files for TLS are not used, the last good ones stay in force: %s",
                    error,
                    extra={"event": "tls.unusable"},
                )
            self._trouble = str(error)
            return self._last
        self._last, self._trouble, self._stamps = made, "", stamps
        return made


def tls_options(access: Access) -> dict[str, Any]:
    """Gunicorn's options for TLS. It reads the files for each new connection."""
    if not access.tls_certificate:
        return {}
    options: dict[str, Any] = {
        "certfile": access.tls_certificate,
        "keyfile": access.tls_key,
        "ssl_context": ServerContexts(access.tls_client_crl),
    }
    if access.tls_client_ca:
        options |= {"ca_certs": access.tls_client_ca, "cert_reqs": ssl.CERT_REQUIRED}
    return options
