"""Size of each extra: packages and MB in a fresh environment with the wheel of dist/.

make wheel && python tools/extras.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = ("", "client", "serve", "pipelines", "train", "train,pipelines", "baseline", "notebook", "docs", "dev")


def measure(wheel: Path, extra: str) -> tuple[int, float]:
    """Measures an extra of the wheel in a new environment.

    Returns:
      The number of packages, pip aside, and MB on disk, pip included.
    """
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [f"{folder}/bin/python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
        requirement = f"{wheel}[{extra}]" if extra else str(wheel)
        subprocess.run([*pip, "install", "-c", ROOT / "constraints.txt", requirement], check=True, stdout=sys.stderr)
        packages = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout.splitlines()
        size = sum(path.lstat().st_blocks * 512 for path in Path(folder).rglob("*")) / 1e6
    return len(packages), size


def main() -> None:
    (wheel,) = (ROOT / "dist").glob("usr_tf-*.whl")
    print(f"| extra, Python {sys.version_info.major}.{sys.version_info.minor} | packages | MB |\n| --- | --- | --- |")
    for extra in EXTRAS:
        packages, size = measure(wheel, extra)
        print(f"| `{extra or 'none'}` | {packages} | {size:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
