"""Import this before `deepctr`, which otherwise asks the package index for a newer version of itself, in a thread."""

import sys
from types import SimpleNamespace

sys.modules.setdefault("deepctr.utils", SimpleNamespace(check_version=lambda version: None))
