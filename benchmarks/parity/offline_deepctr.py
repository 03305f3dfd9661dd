"""Disables the update check of `deepctr`, which contacts the package index on import; import this first."""

import sys
from types import SimpleNamespace

sys.modules.setdefault("deepctr.utils", SimpleNamespace(check_version=lambda version: None))
