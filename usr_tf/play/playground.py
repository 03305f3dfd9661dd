"""Playground: users, rankings side by side, explanations, and actions that the feature store learns of."""

import threading
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.features import Backend, FeatureStore, RequestBuilder
from serving.features.event import EventReader
from usr_tf.errors import InputError
from usr_tf.log_rows import allowed_values, feature_columns
from usr_tf.play.logged_shop import LoggedShop, Slate
from usr_tf.play.overlay import Overlay
from usr_tf.play.page_request import PageRequest, edited
from usr_tf.play.retrieval import Retrieval
from usr_tf.play.scorers import Scores, ServedModel, Trees
from usr_tf.schema import (
    ACTION,
    CANDIDATE_GROUPS,
    ITEM,
    PAST_QUERIES,
    PAST_QUERIES_AGE,
    POSITION,
    REQUEST,
    SCENARIO,
    TIMESTAMP,
    USER,
    history_column,
)

Document = dict[str, Any]

_QUERY, _TITLE = "query", "title"
_USERS = 50
_SLATES = 50
_TO_ACT, _TO_NEXT_PAGE = 20_000, 100_000
"""ms from a page to the action on it, and from there to the next page: longer than the delay of most counters."""
_TOP = 3
"""Items that the oracle's expected actions are summed over."""
_GONE = ("late", "unknown_item")


class Playground:
    """Rankings of a logged shop by models, trees, the logs and the oracle.

    Actions of the page change the feature store in memory alone. Methods may be called from several threads.

    Args:
      shop, base: as `logged_shop.read_shop` gives them.
      models: one, or two to be compared.
      trees: a tree baseline.

    Raises:
      InputError: a model takes an input that the shop's schema does not give.
    """

    def __init__(self, shop: LoggedShop, base: Backend, models: Sequence[ServedModel], trees: Trees | None = None):
        self._shop, self._base, self._models, self._trees = shop, base, models, trees
        self._retrieval = Retrieval(shop.schema, shop.items, shop.popularity)
        self._actions = allowed_values(shop.schema)[ACTION]
        self._pages = 0
        self._lock = threading.Lock()
        self.reset()
        self._check_models()

    def reset(self) -> Document:
        """Forgets the actions of the page."""
        self._store = FeatureStore(Overlay(self._base), place="--store")
        self._builder = RequestBuilder(self._store)
        return {}

    def describe(self) -> Document:
        """What the page shows of the shop as a whole."""
        shop, schema = self._shop, self._shop.schema
        slates = shop.slates.values()
        return {
            "scenarios": [{"name": name, "queries": shop.has_queries(name)} for name in schema.scenarios],
            "tasks": [{"name": task.name, "action": task.action} for task in schema.tasks],
            "actions": self._actions,
            "models": [{"name": model.name, "explains": model.explains} for model in self._models],
            "counts": {"items": len(shop.items), "users": len(shop.users), "requests": len(slates)},
            "oracle": any(slate.oracle for slate in slates),
            "since": shop.since,
            "end": shop.end,
        }

    def users(self, find: str = "") -> Document:
        """Users with the most requests, of those whose id has `find` in it."""
        counts = Tally(slate.user_id for slate in self._shop.slates.values() if find in slate.user_id)
        return {"users": [{"id": user, "requests": number} for user, number in counts.most_common(_USERS)]}

    def user(self, user: str) -> Document:
        """A user's row and newest logged requests; an unknown user has neither."""
        slates = self._shop.slates_of(user)
        return {
            "id": user,
            "known": user in self._shop.users or bool(slates),
            "features": self._shop.users.get(user, {}),
            "slates": [
                {
                    "request_id": slate.request_id,
                    "scenario": slate.scenario,
                    "moment": slate.moment,
                    "query": slate.query,
                    "items": len(slate.items),
                    "actions": Tally(action for found in slate.actions.values() for action in found),
                }
                for slate in slates[:_SLATES]
            ],
        }

    def rank(self, page: PageRequest) -> Document:
        """The page's candidates, ranked by everything that can rank them.

        Raises:
          InputError: an unknown scenario, task, request or edit, or a server that refuses.
        """
        schema = self._shop.schema
        if page.task not in schema.task_names:
            raise InputError("task", repr(page.task), f"one of {', '.join(schema.task_names)}")
        slate, moment, items, document = self._build(page)
        plain = document["inputs"]
        document["inputs"] = edited(plain, page.edits, items, schema)
        of_item = feature_columns(schema.features_of(*CANDIDATE_GROUPS))
        return {
            "moment": moment,
            "scenario": page.scenario,
            "query": plain.get(_QUERY),
            "request_id": slate.request_id if slate else None,
            "items": [
                {
                    "id": item,
                    "title": self._title(item),
                    "features": {name: document["inputs"][name][row] for name in of_item if name != ITEM},
                    "actions": slate.actions[item] if slate else (),
                }
                for row, item in enumerate(items)
            ],
            "request": {
                name: document["inputs"][name]
                for name in feature_columns(schema.features_of("user", "query", "context"))
                if name != USER
            },
            "history": self._history(plain, page.edits.history),
            "queries": [
                {"query": query, "age": age}
                for query, age in zip(plain.get(PAST_QUERIES, ()), plain.get(PAST_QUERIES_AGE, ()), strict=True)
            ],
            "rankings": self._rankings(page.task, slate, document) if items else [],
        }

    def explain(self, page: PageRequest, item: str, model: int) -> Document:
        """Explanation of an item's scores by a model (`Explanation.to_document`).

        Raises:
          InputError: as `rank`, an unknown item or model, or one without a run.
        """
        *_, items, document = self._build(page)
        document["inputs"] = edited(document["inputs"], page.edits, items, self._shop.schema)
        if item not in items:
            raise InputError("item", repr(item), "an item of the page")
        if not 0 <= model < len(self._models):
            raise InputError("model", str(model), f"0 to {len(self._models) - 1}")
        served = self._models[model].score(document)
        return self._models[model].explain(document, items.index(item), served)

    def act(self, page: PageRequest, item: str, action: str) -> Document:
        """Tells the feature store of an action on the page, and of the page where the logs have it not.

        An action of a later task comes with those of the tasks before it.

        Returns:
          The moments of the action and of the next page, and the actions.

        Raises:
          InputError: as `rank`, an unknown item or action, or one that the store refuses.
        """
        slate, moment, items, _ = self._build(page)
        if item not in items:
            raise InputError("item", repr(item), "an item of the page")
        if action not in self._actions:
            raise InputError("action", repr(action), f"one of {', '.join(self._actions)}")
        reader, schema = EventReader(self._shop.schema), self._shop.schema
        with self._lock:
            self._pages += 1
            request_id = f"play-{self._pages}"
        of_page = {USER: page.user, SCENARIO: page.scenario}
        events = []
        if slate and moment == slate.moment:
            request_id = slate.request_id
        else:
            of_page_too = {**self._context(page, slate, moment), _QUERY: self._query(page, slate), TIMESTAMP: moment}
            events = [
                reader.check(
                    "impressions", {**of_page_too, **of_page, REQUEST: request_id, ITEM: each, POSITION: place}
                )
                for place, each in enumerate(items, start=1)
            ]
        chain = [task.action for task in schema.tasks]
        done = chain[: chain.index(action) + 1] if action in chain else [action]
        events += [
            reader.check(
                "actions",
                {**of_page, REQUEST: request_id, ITEM: item, ACTION: each, TIMESTAMP: moment + _TO_ACT + after},
            )
            for after, each in enumerate(done)
        ]
        outcomes = self._store.apply(events)
        for outcome in _GONE:
            if outcomes[outcome]:
                expected = (
                    "one that it takes: the lateness of the store covers the logged requests, and it has the item"
                )
                raise InputError("feature store", f"an event that it refuses as {outcome}", expected)
        acted = moment + _TO_ACT
        return {"acted": acted, "moment": acted + _TO_NEXT_PAGE, "actions": done}

    def _check_models(self) -> None:
        item = next(iter(self._shop.items), "")
        for scenario in self._shop.schema.scenarios:
            document = self._builder.build(scenario, None, None, [item], moment=self._shop.end)
            for model in self._models:
                model.score(document)

    def _build(self, page: PageRequest) -> tuple[Slate | None, int, list[str], dict[str, Any]]:
        """The slate, moment, items and request document of a page."""
        shop = self._shop
        if page.scenario not in shop.schema.scenarios:
            raise InputError("scenario", repr(page.scenario), f"one of {', '.join(shop.schema.scenarios)}")
        slate = None if page.request_id is None else shop.slates.get(page.request_id)
        if page.request_id is not None and (
            slate is None or (slate.user_id, slate.scenario) != (page.user, page.scenario)
        ):
            raise InputError("request_id", repr(page.request_id), "a logged request of this user and scenario")
        moment = page.moment if page.moment is not None else slate.moment if slate else shop.end
        query = self._query(page, slate)
        items = page.items or (list(slate.items) if slate else self._retrieve(page, query, moment))
        for item in items:
            if item not in shop.items:
                raise InputError("items", repr(item), "items of the catalogue")
        document = self._builder.build(
            page.scenario,
            page.user,
            query,
            items or [""],
            self._context(page, slate, moment),
            candidates=slate.candidates if slate and items == list(slate.items) else None,
            moment=moment,
            # The query of a logged request is a past one on the pages after it.
            request_id=slate.request_id if slate and moment == slate.moment else None,
        )
        return slate, moment, items, document

    def _query(self, page: PageRequest, slate: Slate | None) -> str | None:
        if _QUERY not in self._shop.schema.features_of("query"):
            return None
        return slate.query if slate and page.query is None else page.query

    def _context(self, page: PageRequest, slate: Slate | None, moment: int) -> Mapping[str, Any]:
        """Of the logged request, or of the user's latest one before."""
        slates = [slate] if slate else self._shop.slates_of(page.user)
        return next((slate.context for slate in slates if slate.moment <= moment), {})

    def _retrieve(self, page: PageRequest, query: str | None, moment: int) -> list[str]:
        if query and query.strip():
            return self._retrieval.search(page.scenario, query)
        inputs = self._builder.build(page.scenario, page.user, None, [""], moment=moment)["inputs"]
        columns = {name: inputs[history_column(name)] for name in self._shop.schema.history_features}
        history = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return self._retrieval.feed(page.scenario, history)

    def _rankings(self, task: str, slate: Slate | None, document: Mapping[str, Any]) -> list[Document]:
        oracle = slate.oracle if slate and len(slate.items) == len(document["inputs"][ITEM]) else {}
        rankings: list[Document] = [
            _ranking("model", model.name, model.score(document), task) | {"model": number}
            for number, model in enumerate(self._models)
        ]
        if self._trees:
            rankings.append(_ranking("trees", self._trees.name, self._trees.score(document), task))
        if slate:
            rankings.append(_ranking("logged", "Logged order", {}, task, len(slate.items)))
        if oracle:
            rankings.append(_ranking("oracle", "Oracle", {name: np.array(each) for name, each in oracle.items()}, task))
        if task in oracle:
            for ranking in rankings:
                ranking["expected"] = sum(oracle[task][row] for row in ranking["order"][:_TOP])
        return rankings

    def _history(self, inputs: Mapping[str, Any], dropped: Sequence[int]) -> list[Document]:
        """Actions of the history, newest first."""
        schema = self._shop.schema
        if not schema.history_columns:
            return []
        columns = {
            name: inputs[history_column(name)] for name in ("action", "scenario", "age", *schema.history_features)
        }
        entries = [
            {"place": place, "dropped": place in dropped, **dict(zip(columns, values, strict=True))}
            for place, values in enumerate(zip(*columns.values(), strict=True))
        ]
        for entry in entries:
            entry["title"] = self._title(entry[ITEM]) if ITEM in entry else ""
        return entries[::-1]

    def _title(self, item: str) -> str:
        """The item's title, or what texts it has, or its id."""
        row = self._shop.items.get(item, {})
        texts = [row.get(_TITLE)] if row.get(_TITLE) else [text for text in row.values() if isinstance(text, str)]
        return " · ".join(text for text in texts if text) or item


def _ranking(kind: str, name: str, scores: Scores, task: str, count: int = 0) -> Document:
    """A ranking of the items by a task; in their order where it has no scores for it."""
    order = np.argsort(-scores[task], kind="stable").tolist() if task in scores else list(range(count))
    return {
        "kind": kind,
        "name": name,
        "order": order,
        "scores": {task: np.asarray(values, np.float64).tolist() for task, values in scores.items()},
    }
