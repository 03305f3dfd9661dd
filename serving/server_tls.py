"""TLS of the server, over gRPC and over REST; mutual TLS where clients have to show a certificate too."""

import ssl
from pathlib import Path
from typing import NamedTuple

import grpc

from usr_tf.errors import InputError


class ServerTls(NamedTuple):
    """PEM files of a server."""

    cert: str | Path
    """The server's certificate, its chain after it."""
    key: str | Path
    """The certificate's private key, without a password."""
    client_ca: str | Path | None = None
    """The authorities whose clients it lets in; everyone when absent."""

    def context(self) -> ssl.SSLContext:
        """For HTTPS.

        Raises:
          InputError: a file that cannot be read or is something else, or a key that is another certificate's.
        """
        for path in filter(None, self):
            _check_readable(path)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.cert, self.key, password="")  # rather than ask at the terminal
        except (OSError, ValueError) as error:
            found = f"what does not load with the key {self.key} ({_reason(error)})"
            raise InputError(self.cert, found, "a certificate in PEM and its private key without a password") from error
        if self.client_ca:
            try:
                context.load_verify_locations(self.client_ca)
            except (OSError, ValueError) as error:
                found = f"what does not load ({_reason(error)})"
                raise InputError(self.client_ca, found, "certificates of authorities in PEM") from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def credentials(self) -> grpc.ServerCredentials:
        """For gRPC.

        Raises:
          InputError: as `context`.
        """
        self.context()  # of a bad file gRPC says only that the port cannot be had
        pair = (Path(self.key).read_bytes(), Path(self.cert).read_bytes())
        client_ca = Path(self.client_ca).read_bytes() if self.client_ca else None
        return grpc.ssl_server_credentials([pair], client_ca, require_client_auth=client_ca is not None)


def _check_readable(path: str | Path) -> None:
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise InputError(path, f"no readable file ({error.strerror})", "a file in PEM") from error


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)
