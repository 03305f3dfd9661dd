"""Pseudonyms of user ids: a keyed hash, which only the holder of the key can tie to a person. Needs no TensorFlow.

`usr-tf pseudonymize` puts them in place of the ids in logs. A client of a model that was trained on such logs sends
them too: `pseudonym("u42", read_key("pseudonyms.key"))`.
"""

import hashlib
import hmac
from pathlib import Path

from usr_tf.errors import InputError

_LEAST_BYTES = 16


def pseudonym(user_id: str, key: bytes) -> str:
    """32 hexadecimal digits: the first half of HMAC-SHA256 of the id."""
    return hmac.new(key, user_id.encode("utf-8"), hashlib.sha256).hexdigest()[:32]


def read_key(path: str | Path) -> bytes:
    """Key from a file, without white space at its ends.

    Raises:
      InputError: an unreadable file, or a key that is too short.
    """
    try:
        key = Path(path).read_bytes().strip()
    except OSError as error:
        raise InputError(path, f"no readable file ({error.strerror})", "a key") from error
    if len(key) < _LEAST_BYTES:
        raise InputError(path, f"{len(key)} bytes", f"a key of at least {_LEAST_BYTES} random bytes")
    return key
