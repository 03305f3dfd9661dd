"""Simulated shop of 24 users, and fake models."""

import dataclasses
from pathlib import Path

import numpy as np

from pipelines.simulator.simulate import Simulation, simulate
from usr_tf.experiments.abtest.arms import Ranking
from usr_tf.experiments.abtest.replay import Plan
from usr_tf.schema import Schema, load_schema

IMPRESSIONS, DAYS = 6_000, 3


@dataclasses.dataclass
class FakeModel:
    """Fake model: scores by popularity or a function of the inputs, and records its calls."""

    schema: Schema
    sign: float = 1.0
    path: Path = Path("fake")
    asked: list = dataclasses.field(default_factory=list)

    def score(self, scenario, inputs):
        self.asked.append((scenario, inputs))
        ctr = 1 / (1 + np.exp(-self.sign * np.log1p(inputs["popularity"]))) * 0.1
        return {"ctr": ctr, "ctcvr": ctr / 10}


def write_logs(folder: Path, impressions: int = IMPRESSIONS, **arguments) -> Path:
    simulate(folder, impressions, seed=5, progress=False, **arguments)
    return folder


def plan_of(simulation: Simulation, **changes) -> Plan:
    ranking = Ranking(by="ctr + 5 * ctcvr", explore=0.1, temperature=2.0)
    users = sum(chunk.users for chunk in simulation.chunks())
    return Plan(**({"simulation": simulation, "days": DAYS, "users": users, "seed": 0, "ranking": ranking} | changes))


def schema_of(logs: Path) -> Schema:
    return load_schema(logs / "schema.yaml")
