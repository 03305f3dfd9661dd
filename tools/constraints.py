"""Generator of constraints.txt: exact versions of every dependency, resolved by pip on each supported Python.

    python tools/constraints.py python3.11 python3.12 python3.13 > constraints.txt

Pip picks the newest versions that setup.py allows. A version that differs between Pythons gets a marker.
"""

import collections
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def resolve(python: str) -> tuple[str, dict[str, str]]:
    """Resolves the `dev` extra in a new environment.

    Returns:
      The Python's version, such as `3.11`, and name → version of everything installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        pip = [f"{folder}/bin/python", "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", "-e", f"{ROOT}[dev]"], check=True, stdout=sys.stderr)
        frozen = subprocess.run([*pip, "freeze", "--exclude-editable"], check=True, capture_output=True, text=True)
        number = "import sys; print('{}.{}'.format(*sys.version_info))"
        version = subprocess.run([pip[0], "-c", number], check=True, capture_output=True, text=True).stdout.strip()
    return version, dict(line.split("==") for line in frozen.stdout.splitlines())


def merge(resolved: Mapping[str, Mapping[str, str]]) -> list[str]:
    """One line per package, or one per Python where versions differ.

    Args:
      resolved: Python's version → name → version.
    """
    versions: dict[str, dict[str, str]] = collections.defaultdict(dict)
    for python, packages in resolved.items():
        for name, version in packages.items():
            versions[name][python] = version
    lines = []
    for name in sorted(versions, key=str.lower):
        if len(set(versions[name].values())) == 1:
            lines.append(f"{name}=={next(iter(versions[name].values()))}")
        else:
            lines += [f'{name}=={found}; python_version == "{python}"' for python, found in versions[name].items()]
    return lines


def main(pythons: Sequence[str]) -> None:
    resolved = dict(map(resolve, pythons))
    print(f"# Exact versions of everything, for Python {', '.join(resolved)}. Made by `make constraints`.")
    print("\n".join(merge(resolved)))


if __name__ == "__main__":
    main(sys.argv[1:])
