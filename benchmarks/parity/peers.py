"""Public packages of the parity checks, and which of them are installed."""

import importlib
import importlib.util

from benchmarks.parity.comparison import Comparison

PEERS = {"deepctr": ("deepctr",), "deep-rec-kit": ("recsys",), "torch-rechub": ("torch", "torch_rechub")}
"""Of each package, by its name in the index, the modules that the comparisons import."""


def missing(peer: str) -> str | None:
    """Reason why there are no comparisons with `peer`; None if there are."""
    modules = [module for module in PEERS[peer] if importlib.util.find_spec(module) is None]
    return f"{' and '.join(modules)} not installed; `make parity` does it" if modules else None


def comparisons(peer: str) -> list[Comparison]:
    """Comparisons with an installed `peer`."""
    return importlib.import_module(f"benchmarks.parity.against_{peer.replace('-', '_')}").COMPARISONS
