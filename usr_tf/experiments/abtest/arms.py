"""Arms of an A/B test: policies, and records of the requests they served."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator.ranker import EXPLORE, Asked, Ranker, draw_slates
from pipelines.simulator.tables import query_texts
from serving.client.formula import Formula
from usr_tf.experiments.abtest.policies import ranking_logits
from usr_tf.experiments.abtest.raw_requests import Requests
from usr_tf.experiments.abtest.user_history import Histories
from usr_tf.schema import Schema

SHOP = "shop"
"""The policy of the shop's own ranker, the one that the logs are of."""
TASKS = ("ctr", "ctcvr")


class Scorer(Protocol):
    """Interface of a model in the replay: `exported_model.Model`, or a stand-in."""

    path: Path
    schema: Schema

    def score(self, scenario: str, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Task → `[N]`, for the raw features of one request."""


@dataclass(frozen=True)
class Ranking:
    """Ranking parameters: how the arms make slates of a model's outputs."""

    by: str  # a formula over them
    explore: float  # share of the places that are filled by any candidate left, all alike
    temperature: float  # in places of the ranking


class Policy(Protocol):
    """Interface of a rule that fills slates."""

    explore: float

    def logits(self, asked: Asked, item: NDArray, free: NDArray) -> tuple[NDArray, NDArray]:
        """Logits `[r, C]` from which slates are drawn, and expected rewards `[tasks, r, C]`."""


class OwnPolicy:
    """Policy of the shop's own ranker, without expected rewards."""

    explore = EXPLORE

    def __init__(self, ranker: Ranker):
        self._ranker = ranker

    def logits(self, asked: Asked, item: NDArray, free: NDArray) -> tuple[NDArray, NDArray]:
        return self._ranker.score(asked, item), np.zeros((len(TASKS), *item.shape), np.float32)


class ModelPolicy:
    """Policy that ranks by a formula over a model's outputs."""

    def __init__(
        self, ranking: Ranking, model: Scorer, requests: Requests, histories: Histories, scenarios: Sequence[str]
    ):
        self.explore, self._temperature = ranking.explore, ranking.temperature
        self._formula, self._scenarios = Formula(ranking.by, "--by"), scenarios
        self._model, self._requests, self._histories = model, requests, histories
        history = model.schema.history
        self._actions, self._length = frozenset(history.actions), history.max_length

    def logits(self, asked: Asked, item: NDArray, free: NDArray) -> tuple[NDArray, NDArray]:
        queries = query_texts(asked.query, asked.spelling)
        retrieval_score = asked.retrieval_score(item)
        score, reward = np.empty(item.shape), np.empty((len(TASKS), *item.shape), np.float32)
        for row, (user, now) in enumerate(zip(asked.user.tolist(), asked.now.tolist(), strict=True)):
            events = self._histories.before(user, now, self._actions, self._length)
            signals = asked.zero_results[row], asked.query_vector[row], retrieval_score[row]
            inputs = self._requests.inputs(user, now, queries[row], asked.device[row], events, item[row], *signals)
            outputs = self._model.score(self._scenarios[asked.scenario[row]], inputs)
            score[row] = self._formula(outputs)
            reward[:, row] = [outputs[task] for task in TASKS]
        return ranking_logits(score, free, self._temperature), reward


class ArmRanker:
    """Ranker that displays the slates of one policy and records the logits of every policy.

    Args:
      retriever: finds the candidates, with the shop's luck, so that all arms find the same in the same state.
      arm: the policy that is shown.
      rng: draws the slates.
    """

    def __init__(self, retriever: Ranker, policies: Mapping[str, Policy], arm: str, rng: np.random.Generator):
        self.policies, self.arm = policies, arm
        self.rounds: list[Round] = []
        self._retriever, self._rng = retriever, rng

    def slates(self, rng: np.random.Generator, asked: Asked) -> tuple[NDArray, NDArray]:
        item, free = self._retriever.candidates(rng, asked)
        thoughts = {name: policy.logits(asked, item, free) for name, policy in self.policies.items()}
        place, chance = draw_slates(self._rng, thoughts[self.arm][0], free, self.policies[self.arm].explore)
        relevance, convert = asked.chances(item)
        logits, rewards = ({name: thought[part] for name, thought in thoughts.items()} for part in (0, 1))
        self.rounds.append(
            Round(free, place, np.stack([relevance, relevance * convert]).astype(np.float32), logits, rewards)
        )
        return np.take_along_axis(item, place, axis=1), chance


@dataclass(frozen=True)
class Round:
    """Requests as an arm served them."""

    free: NDArray  # [r, C]
    place: NDArray  # [r, S], the columns that were shown
    truth: NDArray  # [tasks, r, C], true chances once examined
    logits: Mapping[str, NDArray]  # policy → [r, C]
    rewards: Mapping[str, NDArray]  # policy → [tasks, r, C]
