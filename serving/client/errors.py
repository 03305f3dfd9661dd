"""Exceptions of the client, one per kind of gRPC status."""

import grpc

from usr_tf.errors import InputError


class ServingError(Exception):
    """Base class of all errors of a call to a model server.

    Attributes:
      code: gRPC status; over REST the status that corresponds to the HTTP code.
      message: message of the server, or of the library without a response, in one line.
      address: address of the server.
      call: description of the call, such as `Predict search of usr`.
    """

    expected = "an answer"

    def __init__(self, code: grpc.StatusCode, message: str, address: str, call: str = "a call"):
        message = " ".join(str(message).split())
        Exception.__init__(self, code, message, address, call)  # arguments for unpickling
        self.code, self.message, self.address, self.call = code, message, address, call

    def __str__(self) -> str:
        said = f" ({self.message})" if self.message else ""
        return f"{self.address}: {self.call}: found {self.code.name}{said}, expected {self.expected}"


class Overloaded(ServingError):
    """The server has no capacity for the request: queue full, or request too large."""

    expected = "room for the request"


# The other errors are caused by the caller: address, timeout, name or inputs. The console program exits with 2.


class Unavailable(ServingError, InputError):
    """No server at the address, or one that is not ready."""

    expected = "a server that is ready"


class DeadlineExceeded(ServingError, InputError):
    """No response within the caller's timeout."""

    expected = "an answer in that time"


class NotFound(ServingError, InputError):
    """The server does not serve this model or version."""

    expected = "a model and version that it serves"


class Refused(ServingError, InputError):
    """The server rejects the request: signature, label, inputs or credentials. A retry cannot succeed."""

    expected = "a request that it takes"


_KINDS: dict[grpc.StatusCode, type[ServingError]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.INVALID_ARGUMENT: Refused,
    grpc.StatusCode.FAILED_PRECONDITION: Refused,
    grpc.StatusCode.OUT_OF_RANGE: Refused,
    grpc.StatusCode.UNIMPLEMENTED: Refused,
    grpc.StatusCode.PERMISSION_DENIED: Refused,
    grpc.StatusCode.UNAUTHENTICATED: Refused,
}


def serving_error(code: grpc.StatusCode, message: str, address: str, call: str) -> ServingError:
    """Exception of a gRPC status."""
    return _KINDS.get(code, ServingError)(code, message, address, call)
