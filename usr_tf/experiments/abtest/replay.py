"""Replay of an arm: the simulated shop after the month of its logs, under another ranker.

The month is played again, as `pipelines.simulator.simulate` did, up to the state that it left everybody in. Then the
same people come at the same times in every arm, and the same random numbers decide what they want and do. Only
the slates differ, and what follows from them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator import noise
from pipelines.simulator.behaviour import Play, Shop
from pipelines.simulator.people import Visits, plan_visits
from pipelines.simulator.ranker import SLATE
from pipelines.simulator.simulate import Chunk, Simulation, play_chunk
from pipelines.simulator.tables import price_and_stock
from pipelines.simulator.world import DAY_MS, DAYS, START_MS, World
from usr_tf.experiments.abtest.arms import SHOP, TASKS, ArmRanker, ModelPolicy, OwnPolicy, Policy, Ranking, Scorer
from usr_tf.experiments.abtest.policies import candidate_chances, place_chances, slate_chances
from usr_tf.experiments.abtest.raw_requests import Requests
from usr_tf.experiments.abtest.user_history import Histories


@dataclass(frozen=True)
class Plan:
    """Replay parameters shared by all arms."""

    simulation: Simulation
    days: int
    users: int  # the first so many of the shop's
    seed: int
    ranking: Ranking

    def visits(self, shop: Shop, chunk: Chunk) -> Visits:
        """Visits of a chunk's users, at the pace of the month."""
        rng = self.stream("visits", chunk)
        requests = round(chunk.impressions / SLATE * self.days / DAYS)
        visits = plan_visits(rng, shop.users, requests, DAYS, DAYS + self.days)
        visits = Visits(visits.user, visits.time, visits.opens, visits.rank, shop.users.devices(rng, visits.user))
        return visits.rows(visits.user < self.users - chunk.first_user)

    def stream(self, purpose: str, chunk: Chunk) -> np.random.Generator:
        """Random stream per purpose and chunk, equal in every arm."""
        key = ("visits", "luck", "slates", "chances").index(purpose), chunk.number
        return np.random.default_rng(np.random.SeedSequence([self.simulation.seed, self.seed], spawn_key=key))


@dataclass(frozen=True)
class Target:
    """Propensities of another policy in the requests of an arm, `[n]` per impression row."""

    slate_chance: NDArray  # that it shows this here, given what the arm showed above
    place_chance: NDArray  # that it shows this here, whatever it shows above
    reward: NDArray  # [tasks, n], what its model expects of this item
    direct: NDArray  # [tasks, n], what its model expects of what it would show here
    truth: NDArray  # [tasks, n], the true chance of a click or purchase of what it would show here


@dataclass(frozen=True)
class ArmLog:
    """Log of an arm, `[n]` impressions, requests of a user in time order."""

    scenario: NDArray
    user: NDArray  # number in the shop
    day: NDArray  # from 0, of the test
    position: NDArray
    click: NDArray
    buy: NDArray
    return_buy: NDArray  # looked up later, outside of any list, and bought
    price: NDArray
    propensity: NDArray  # given what was shown above
    place_chance: NDArray  # whatever was shown above
    targets: dict[str, Target] = field(default_factory=dict)

    @classmethod
    def together(cls, logs: Sequence["ArmLog"]) -> "ArmLog":
        """Concatenation of logs."""
        columns = {
            name: np.concatenate([getattr(log, name) for log in logs]) for name in vars(logs[0]) if name != "targets"
        }
        targets = {
            name: Target(
                **{
                    column: np.concatenate([getattr(log.targets[name], column) for log in logs], axis=-1)
                    for column in vars(logs[0].targets[name])
                }
            )
            for name in logs[0].targets
        }
        return cls(**columns, targets=targets)


def play_arm(
    plan: Plan,
    world: World,
    chunk: Chunk,
    arm: str,
    models: Mapping[str, Scorer],
    progress: Callable[[int], object] = lambda requests: None,
) -> ArmLog:
    """Replays the days of the test for a chunk's users.

    Args:
      arm: whose slates they see: a key of `models`, or `SHOP`.
      models: name → model; what each would have shown is computed beside.
      progress: called with the number of newly finished requests.
    """
    shop, month = play_chunk(world, plan.simulation.seed, chunk)
    histories = Histories(chunk.users, plan.simulation.scenarios)
    histories.add(month, plan.simulation.record(world, chunk, month))
    policies: dict[str, Policy] = {SHOP: OwnPolicy(shop.ranker)}
    for name, model in models.items():
        requests = Requests(model.schema, world, shop.users, chunk.first_user, model.path)
        policies[name] = ModelPolicy(plan.ranking, model, requests, histories, plan.simulation.scenarios)
    ranker = shop.ranker = ArmRanker(shop.ranker, policies, arm, plan.stream("slates", chunk))
    prompt = world.of_scenarios("prompt")
    rng, unspoilt = plan.stream("luck", chunk), np.random.default_rng(0)
    parts = []
    for played in shop.rounds(rng, plan.visits(shop, chunk)):
        histories.add(played, noise.record(unspoilt, played, prompt, 0.0, 0.0))
        parts.append(played)
        progress(played.item.size // SLATE)
    return _log(plan, world, chunk, Play.together(parts), ranker, plan.stream("chances", chunk))


def _log(plan: Plan, world: World, chunk: Chunk, played: Play, ranker: ArmRanker, rng: np.random.Generator) -> ArmLog:
    rounds = ranker.rounds
    free, place = (np.concatenate([getattr(of, name) for of in rounds]) for name in ("free", "place"))
    truth = np.concatenate([of.truth for of in rounds], axis=1)
    examined = played.examined.reshape(place.shape)

    logits = {name: np.concatenate([of.logits[name] for of in rounds]) for name in ranker.policies}
    explore = {name: policy.explore for name, policy in ranker.policies.items()}

    def shown_chance(name: str) -> NDArray:
        return place_chances(rng, logits[name], free, explore[name], place).ravel()

    targets = {}
    for name in sorted(logits.keys() - {SHOP, ranker.arm}):
        reward = np.concatenate([of.rewards[name] for of in rounds], axis=1)
        would = candidate_chances(rng, logits[name], free, explore[name])
        expected, true = (np.einsum("rsc,trc->trs", would, values) for values in (reward, truth))
        targets[name] = Target(
            slate_chance=slate_chances(logits[name], free, explore[name], place).ravel(),
            place_chance=shown_chance(name),
            reward=np.take_along_axis(reward, place[None], axis=2).reshape(len(TASKS), -1),
            direct=expected.reshape(len(TASKS), -1),
            truth=(true * examined).reshape(len(TASKS), -1),
        )
    prices = price_and_stock(world, played.item, played.time)
    return ArmLog(
        scenario=played.scenario,
        user=chunk.first_user + played.user,
        day=np.minimum((played.time - START_MS) // DAY_MS - DAYS, plan.days - 1),
        position=played.position,
        click=played.click,
        buy=played.buy,
        return_buy=played.return_buys,
        price=prices.get("price_now", world.items.price[played.item]),
        propensity=played.propensity,
        place_chance=shown_chance(ranker.arm),
        targets=targets,
    )
