"""TLS and mutual TLS of a client, over gRPC and over REST."""

import ssl
from pathlib import Path
from typing import NamedTuple

import grpc

from usr_tf.errors import InputError


class Tls(NamedTuple):
    """PEM files of a client. With a certificate and a key of its own it is mutual TLS."""

    ca: str | Path | None = None
    """The authorities whose servers it trusts; those that the library brings when absent."""
    cert: str | Path | None = None
    """The client's certificate, its chain after it."""
    key: str | Path | None = None
    """The certificate's private key, without a password."""

    def context(self) -> ssl.SSLContext:
        """For HTTPS.

        Raises:
          InputError: a file that cannot be read or is something else, or a certificate without its key.
        """
        if (self.cert is None) != (self.key is None):
            raise InputError("TLS", f"the {'key' if self.cert is None else 'certificate'} alone", "both, or neither")
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise InputError(self.ca, _reason(error), "certificates in PEM") from error
        if self.cert is not None:
            try:
                context.load_cert_chain(self.cert, self.key, password="")  # rather than ask at the terminal
            except OSError as error:
                raise InputError(self.cert, _reason(error), f"a certificate in PEM, and its key {self.key}") from error
        return context

    def credentials(self) -> grpc.ChannelCredentials:
        """For gRPC.

        Raises:
          InputError: as `context`.
        """
        self.context()  # of a bad file gRPC says only that there is no server
        ca, key, cert = (Path(path).read_bytes() if path else None for path in (self.ca, self.key, self.cert))
        return grpc.ssl_channel_credentials(ca, key, cert)


def _reason(error: OSError) -> str:
    return f"a file that does not load ({error.strerror or error})"
