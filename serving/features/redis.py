"""Redis backend: a server that many processes share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from serving.features.backend import Stored
from usr_tf.errors import InputError

_T = TypeVar("_T")


class RedisBackend:
    """Keys and values in Redis, or in a server that speaks its protocol.

    A read is one `MGET`. A transaction watches what it reads and writes by `MULTI`/`EXEC`; if another writer was there
    first it runs again. How durable a write is, `appendonly` and `appendfsync` of the server say; whatever is lost, the
    offset of the ingest is lost with it.

    Args:
      url: `redis://HOST:PORT/DATABASE`, or `rediss://` or `unix://`, as the package `redis` takes it.
      prefix: of every key, for a server that others use too.

    Raises:
      InputError: an invalid URL, no server there, or the package is missing.
    """

    def __init__(self, url: str, prefix: str = "usr:"):
        try:
            import redis
        except ImportError as error:
            raise InputError(url, "no module redis", "what this installs: pip install 'usr-tf[features]'") from error
        self._prefix = prefix
        self._changed: type[Exception] = redis.WatchError
        try:
            self._client: Any = redis.Redis.from_url(url)
            self._client.ping()
        except (ValueError, redis.RedisError) as error:
            raise InputError(url, f"no Redis server ({error})", "redis://HOST:PORT/DATABASE of one") from error

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        return self._client.mget(self._names(keys)) if keys else []

    def transact(self, work: Callable[["_Transaction"], _T]) -> _T:
        while True:
            with self._client.pipeline() as pipeline:
                try:
                    return work(_Transaction(pipeline, self._names))
                except self._changed:
                    continue

    def close(self) -> None:
        self._client.close()

    def _names(self, keys: Sequence[str]) -> list[str]:
        return [self._prefix + key for key in keys]


class _Transaction:
    def __init__(self, pipeline: Any, names: Callable[[Sequence[str]], list[str]]):
        self._pipeline, self._names = pipeline, names

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        if not keys:
            return []
        names = self._names(keys)
        self._pipeline.watch(*names)
        return self._pipeline.mget(names)

    def write(self, values: Mapping[str, Stored | None]) -> None:
        self._pipeline.multi()
        for name, stored in zip(self._names([*values]), values.values(), strict=True):
            if stored:
                self._pipeline.set(name, stored.value, px=stored.lifetime)
            else:
                self._pipeline.delete(name)
        self._pipeline.execute()
