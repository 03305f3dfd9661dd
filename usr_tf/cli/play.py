"""Verb of the local page: rankings of a logged shop, live."""

import contextlib
from collections.abc import Sequence

from absl import flags

from usr_tf.cli.verb import PROGRAM, Verb
from usr_tf.errors import InputError

_MODELS = 2


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_multi_string(
        "model", None, "Directory of a model's versions; a second one is compared with the first", flag_values=values
    )
    flags.DEFINE_multi_string(
        "run", [], "Run that --model was exported from, one for each, to explain scores", flag_values=values
    )
    flags.DEFINE_string("logs", None, "Log directory: catalogue, users and requests", flag_values=values)
    flags.DEFINE_string("baseline", None, "Run directory of baseline, to rank beside the models", flag_values=values)
    flags.DEFINE_string(
        "store",
        None,
        "Feature store that `features load` filled from the logs, only read; one in memory when absent",
        flag_values=values,
    )
    flags.DEFINE_string(
        "host", "127.0.0.1", "Address to listen on; others than loopback let anyone in", flag_values=values
    )
    flags.DEFINE_integer("port", 8600, "Port of the page; 0 takes any", 0, 65535, flag_values=values)


def _play(values: flags.FlagValues, _: Sequence[str]) -> None:
    place = f"{PROGRAM} play"
    if len(values.model) > _MODELS:
        raise InputError(f"{place}: --model", f"{len(values.model)}", f"at most {_MODELS}")
    if len(values.run) not in (0, len(values.model)):
        raise InputError(f"{place}: --run", f"{len(values.run)}", f"{len(values.model)}, one for each --model, or none")

    from pathlib import Path

    from rich.console import Console

    from serving.local_server import serve_in_background
    from usr_tf.play import Playground, serve_page
    from usr_tf.play.logged_shop import open_base, read_shop
    from usr_tf.play.scorers import ServedModel, Trees
    from usr_tf.schema import load_schema

    load_schema(Path(values.logs) / "schema.yaml")  # models take seconds to load, and a wrong --logs none to see
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(serve_in_background(model)) for model in values.model]
        runs = values.run or [None] * len(servers)
        models = [
            stack.enter_context(contextlib.closing(ServedModel(path, server.address, run)))
            for path, server, run in zip(values.model, servers, runs, strict=True)
        ]
        trees = Trees(values.baseline, models[0].counters) if values.baseline else None
        counters = any(scorer.needs_counts for scorer in (*models, trees) if scorer)
        base = open_base(values.store) if values.store else None
        with Console(stderr=True).status(f"reading {values.logs}"):
            shop, store = read_shop(values.logs, base, counters)
        serve_page(Playground(shop, store, models, trees), values.host, values.port)


VERBS = {
    "play": Verb(
        "Page in the browser: rank for a user of the logs, live, and see why",
        _define,
        _play,
        ("model", "logs"),
        example="--model SERVING --run RUN --baseline TREES --logs LOGS",
        extras=("serve", "train", "pipelines"),
    ),
}
