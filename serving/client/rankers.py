"""Ranking clients: `Ranker` (gRPC), `AsyncRanker` (gRPC on asyncio) and `RestRanker` (REST)."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from serving.client.session import Metadata, Ranking, Session
from serving.client.transport import AioTransport, GrpcTransport, RestTransport, Transport

if TYPE_CHECKING:  # whoever brings whole requests needs no store
    from serving.features import RequestBuilder

_T = TypeVar("_T")


class Ranker(Session):
    """Ranks candidates with the signatures of a served model, over gRPC.

    It holds one connection and is thread-safe. Close it, or use it in a `with` statement.

    Args:
      address: `HOST:PORT` of the server; IPv6 with or without brackets.
      model: name of the served model.
      version: version to use; the latest by default.
      label: label of the version to use, such as `stable` or `canary`; excludes `version`.
      timeout: seconds that a method may take, including all its requests to the server.
      tls: PEM files of the connection (`serving.network.tls.Tls`); clear text by default.
      retries: number of retries, from 0 to 4, while the server is unavailable.
      request_log: log of what `score` sends and gets (`serving.request_log.RequestLog`); none by default.

    Raises:
      InputError: an invalid address, both a version and a label, or an unreadable file of `tls`.
    """

    _transport_type: type[Transport] = GrpcTransport

    def metadata(self, timeout: float | None = None) -> Metadata:
        """Signature → input → `(dtype, shape)`, requested from the server once and cached.

        Args:
          timeout: overrides the client's timeout.

        Raises:
          ServingError: the subclass for the status, see `serving.client.errors`.
        """
        return _at_once(self._metadata(timeout))

    def wait_until_ready(self, timeout: float | None = None) -> float:
        """Waits until a starting server serves the model.

        Args:
          timeout: overrides the client's timeout.

        Returns:
          Remaining seconds of the timeout.

        Raises:
          ServingError: no server within that time, or an error response.
        """
        return _at_once(self._wait_until_ready(timeout))

    def predict(self, signature: str, inputs: Mapping[str, Any], timeout: float | None = None) -> dict[str, np.ndarray]:
        """Runs a signature on arrays or rectangular lists, sent with the signature's dtypes.

        Raises:
          ServingError: as `metadata`.
          InputError: an unknown signature, or ragged lists.
        """
        return _at_once(self._predict(signature, inputs, timeout))

    def score(
        self,
        scenario: str,
        request: Mapping[str, Any],
        by: str | None = None,
        place: Any = "request",
        timeout: float | None = None,
    ) -> Ranking:
        """Ranks the items of a request document (see `serving.formats.request.load_request`), best first.

        Args:
          scenario: a scenario of the model.
          request: the request document.
          by: ranking score: an output, or a formula (`serving.client.formula.Formula`) over outputs and numbers of the
            items, such as `ctcvr * price`. Default: `ctr`, or the first output if there is no `ctr`.
          place: name of the document in errors, such as its file.
          timeout: overrides the client's timeout.

        Returns:
          One row per item, see `serving.client.ranking.rank`.

        Raises:
          ServingError: as `metadata`.
          InputError: an unknown scenario, an invalid formula, or a document that does not match the signature.
        """
        return _at_once(self._score(scenario, request, by, place, timeout))

    def rank(
        self,
        builder: "RequestBuilder",
        scenario: str,
        user_id: str | None,
        query: str | None,
        item_ids: Sequence[str],
        context: Mapping[str, Any] | None = None,
        *,
        candidates: Mapping[str, Sequence[Any]] | None = None,
        by: str | None = None,
        moment: int | None = None,
        timeout: float | None = None,
    ) -> Ranking:
        """Ranks items for a user, best first: builds the request from a feature store, and scores it.

        Args:
          builder: of the feature store.
          scenario, user_id, query, item_ids, context, candidates, moment: as `RequestBuilder.build` takes them.
          by, timeout: as for `score`. The timeout is that of the server, without the look-ups.

        Returns:
          One row per item, see `serving.client.ranking.rank`.

        Raises:
          ServingError: as `metadata`.
          InputError: as `RequestBuilder.build` and `score`.
        """
        request = builder.build(scenario, user_id, query, item_ids, context, candidates=candidates, moment=moment)
        return self.score(scenario, request, by, timeout=timeout)

    def close(self) -> None:
        """Closes the connection and cancels calls in progress."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RestRanker(Ranker):
    """`Ranker` over REST (port 8501 of TF Serving), for networks without gRPC.

    JSON cannot tell the shape of an empty list of lists, so a history that holds lists must not be empty.
    """

    _transport_type = RestTransport


class AsyncRanker(Session):
    """`Ranker` with coroutines. Create, use and close it on one event loop."""

    _transport_type = AioTransport

    async def metadata(self, timeout: float | None = None) -> Metadata:
        """As `Ranker.metadata`."""
        return await self._metadata(timeout)

    async def wait_until_ready(self, timeout: float | None = None) -> float:
        """As `Ranker.wait_until_ready`."""
        return await self._wait_until_ready(timeout)

    async def predict(
        self, signature: str, inputs: Mapping[str, Any], timeout: float | None = None
    ) -> dict[str, np.ndarray]:
        """As `Ranker.predict`."""
        return await self._predict(signature, inputs, timeout)

    async def score(
        self,
        scenario: str,
        request: Mapping[str, Any],
        by: str | None = None,
        place: Any = "request",
        timeout: float | None = None,
    ) -> Ranking:
        """As `Ranker.score`."""
        return await self._score(scenario, request, by, place, timeout)

    async def rank(
        self,
        builder: "RequestBuilder",
        scenario: str,
        user_id: str | None,
        query: str | None,
        item_ids: Sequence[str],
        context: Mapping[str, Any] | None = None,
        *,
        candidates: Mapping[str, Sequence[Any]] | None = None,
        by: str | None = None,
        moment: int | None = None,
        timeout: float | None = None,
    ) -> Ranking:
        """As `Ranker.rank`. The look-ups run in a thread."""
        request = await asyncio.to_thread(
            builder.build, scenario, user_id, query, item_ids, context, candidates=candidates, moment=moment
        )
        return await self.score(scenario, request, by, timeout=timeout)

    async def close(self) -> None:
        """As `Ranker.close`."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _at_once(steps: Coroutine[Any, Any, _T]) -> _T:
    """Result of a coroutine that never suspends, because its transport blocks."""
    try:
        steps.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a blocking transport waited")
