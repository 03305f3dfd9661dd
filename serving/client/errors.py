"""What can go wrong between a client and a model server."""

import grpc

from usr_tf.errors import InputError


class ServingError(Exception):
    """A call that the server did not answer as asked.

    Attributes:
      code: the gRPC status; over REST the one that TF Serving gives the HTTP status for.
      message: what the server said, or the library where there was none, in one line.
      address: whom it was asked of.
      asked: what was asked, such as `Predict search of usr`.
    """

    expected = "an answer"

    def __init__(self, code: grpc.StatusCode, message: str, address: str, asked: str = "a call"):
        message = " ".join(str(message).split())
        Exception.__init__(self, code, message, address, asked)  # these make it again where it is unpickled
        self.code, self.message, self.address, self.asked = code, message, address, asked

    def __str__(self) -> str:
        said = f" ({self.message})" if self.message else ""
        return f"{self.address}: {self.asked}: found {self.code.name}{said}, expected {self.expected}"


class Overloaded(ServingError):
    """The server has no room for the request: too many wait, or it is too large. The message says which."""

    expected = "room for the request"


# The rest lie with who asks: the address, the time allowed, the name or the inputs. The console program exits with 2.


class Unavailable(ServingError, InputError):
    """No server there, or one that is not ready."""

    expected = "a server that is ready"


class DeadlineExceeded(ServingError, InputError):
    """No answer in the time that the caller gave."""

    expected = "an answer in that time"


class NotFound(ServingError, InputError):
    """The server has no such model or version."""

    expected = "a model and version that it serves"


class Refused(ServingError, InputError):
    """The server does not take the request: its signature, label, inputs or caller. Asking again is no use."""

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


def serving_error(code: grpc.StatusCode, message: str, address: str, asked: str) -> ServingError:
    """The error of the kind that a status is."""
    return _KINDS.get(code, ServingError)(code, message, address, asked)
