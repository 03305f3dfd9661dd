"""Package of usr_tf. Exact versions of everything stand in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

setup(
    name="usr-tf",
    version=re.search(r'__version__ = "(.+)"', (ROOT / "usr_tf/__init__.py").read_text())[1],
    description="USR: one ranking model for search and recommendation, from raw logs to served scores.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["usr_tf*", "pipelines*", "serving*"]),
    package_data={
        "usr_tf": ["configs/*.yaml", "py.typed", "report/*.css"],
        "serving": ["docker/*", "kubernetes/*"],
        "usr_tf.experiments": ["specs/*.yaml"],
    },
    install_requires=[
        "absl-py",
        "aiohttp",
        "apache-beam>=2.77,<2.78",
        "grpcio",
        "grpcio-health-checking",
        "grpcio-reflection",
        "httpx",
        "matplotlib",
        "numpy",
        "optuna",
        "orjson",
        "pandas",
        "prometheus-client",
        "pyarrow",
        "pydantic>=2",
        "pyyaml",
        "rich",
        "scikit-learn",
        "scipy",
        "tensorboard",
        "tensorflow>=2.21,<2.22",
        "tensorflow-metadata",
        "tensorflow-recommenders==0.7.7",
        "tensorflow-serving-api==2.19.1",  # what tfx-bsl 1.21 allows
        "tensorflow-transform>=1.21,<1.22",
        "tf-keras>=2.21,<2.22",
        "tfx-bsl>=1.21,<1.22",
    ],
    extras_require={
        "dev": [
            "cryptography",
            "deepctr==0.9.4",
            "hypothesis",
            "ipykernel",
            "nbclient",
            "nbformat",
            "pytest",
            "pytest-xdist",
            "ranx",
            "ruff",
        ],
        "parity": ["torch", "torch-rechub==0.9.0"],
    },
    entry_points={"console_scripts": ["usr-tf=usr_tf.cli:main"]},
)
