"""The three clients behind one blocking interface."""

import asyncio

from serving.client import AsyncRanker, Ranker, RestRanker


class InLoop:
    """`AsyncRanker` on its own event loop."""

    def __init__(self, *arguments, **options):
        self._runner = asyncio.Runner()
        try:
            self._ranker = self._runner.run(self._make(*arguments, **options))
        except BaseException:
            self._runner.close()
            raise
        self.address = self._ranker.address

    async def _make(self, *arguments, **options):
        return AsyncRanker(*arguments, **options)

    def __getattr__(self, name):
        method = getattr(self._ranker, name)
        return lambda *arguments, **options: self._runner.run(method(*arguments, **options))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._runner.run(self._ranker.close())
        self._runner.close()


KINDS = {"grpc": Ranker, "asyncio": InLoop, "rest": RestRanker}
