"""TLS and mutual TLS of clients and servers, for gRPC and REST."""

import ssl
from pathlib import Path
from typing import NamedTuple

import grpc

from usr_tf.errors import InputError

_File = str | Path | None


class Tls(NamedTuple):
    """PEM files of a client; mutual TLS with a certificate and a key."""

    ca: _File = None
    """The authorities whose servers it trusts; those that the library brings when absent."""
    cert: _File = None
    """The client's certificate, its chain after it."""
    key: _File = None
    """The certificate's private key, without a password."""

    def context(self) -> ssl.SSLContext:
        """SSL context for HTTPS.

        Raises:
          InputError: a file that cannot be read or is something else, or a certificate without its own key.
        """
        if (self.cert is None) != (self.key is None):
            raise InputError("TLS", f"the {'key' if self.cert is None else 'certificate'} alone", "both, or neither")
        return _context(ssl.Purpose.SERVER_AUTH, self.ca, self.cert, self.key)

    def credentials(self) -> grpc.ChannelCredentials:
        """Channel credentials for gRPC.

        Raises:
          InputError: as `context`.
        """
        self.context()  # of a bad file gRPC says only that there is no server
        ca, key, cert = (Path(path).read_bytes() if path else None for path in (self.ca, self.key, self.cert))
        return grpc.ssl_channel_credentials(ca, key, cert)


class ServerTls(NamedTuple):
    """PEM files of a server; mutual TLS with `client_ca`."""

    cert: str | Path
    """The server's certificate, its chain after it."""
    key: str | Path
    """The certificate's private key, without a password."""
    client_ca: _File = None
    """The authorities whose clients it lets in; everyone when absent."""

    def context(self) -> ssl.SSLContext:
        """SSL context for HTTPS.

        Raises:
          InputError: a file that cannot be read or is something else, or a key that is another certificate's.
        """
        context = _context(ssl.Purpose.CLIENT_AUTH, self.client_ca, self.cert, self.key)
        if self.client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def credentials(self) -> grpc.ServerCredentials:
        """Server credentials for gRPC.

        Raises:
          InputError: as `context`.
        """
        self.context()  # of a bad file gRPC says only that the port cannot be had
        pair = (Path(self.key).read_bytes(), Path(self.cert).read_bytes())
        client_ca = Path(self.client_ca).read_bytes() if self.client_ca else None
        return grpc.ssl_server_credentials([pair], client_ca, require_client_auth=client_ca is not None)


def _context(purpose: ssl.Purpose, ca: _File, cert: _File, key: _File) -> ssl.SSLContext:
    if key and not Path(key).exists():  # of which the library says no more than that the pair does not load
        raise InputError(key, "no such file", "a private key in PEM")
    try:
        context = ssl.create_default_context(purpose, cafile=ca)
    except (OSError, ValueError) as error:
        raise InputError(ca, _reason(error), "certificates in PEM") from error
    if cert:
        try:
            context.load_cert_chain(cert, key, password="")  # rather than ask at the terminal
        except (OSError, ValueError) as error:
            expected = f"a certificate in PEM, and its key {key} without a password"
            raise InputError(cert, _reason(error), expected) from error
    return context


def _reason(error: Exception) -> str:
    return f"a file that does not load ({getattr(error, 'reason', None) or getattr(error, 'strerror', None) or error})"
