"""Package of usr_tf. Exact versions of everything stand in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
HOME = "https://github.com/usr-tf/usr_tf"
BRANCH = "main"

TENSORFLOW = ["tensorflow>=2.21,<2.22", "tensorflow-serving-api==2.19.1"]  # the newest API that tfx-bsl 1.21 allows
FIGURES = ["matplotlib", "pandas", "scikit-learn", "scipy"]
CLIENT = ["grpcio", "httpx", "numpy", "orjson", "protobuf>=5"]  # no TensorFlow: serving.formats.messages
SERVE = [*CLIENT, *TENSORFLOW, "aiohttp", "grpcio-health-checking", "grpcio-reflection", "prometheus-client", "rich"]
FEATURES = ["kafka-python", "orjson", "redis"]
PIPELINES = [
    *TENSORFLOW,
    *FIGURES,
    "apache-beam>=2.77,<2.78",
    "fastavro",
    "numpy",
    "orjson",
    "pyarrow",
    "rich",
    "tensorflow-metadata",
    "tensorflow-transform>=1.21,<1.22",
    "tf-keras>=2.21,<2.22",
    "tfx-bsl>=1.21,<1.22",
]
TRAIN = [
    *SERVE,
    *FIGURES,
    "optuna",
    "tensorboard",
    "tensorflow-recommenders==0.7.7",
    "tensorflow-transform>=1.21,<1.22",
    "tf-keras>=2.21,<2.22",
]
BASELINE = ["lightgbm"]
LAKEHOUSE = ["deltalake", "pyiceberg"]
NOTEBOOK = ["ipykernel", "nbclient", "nbformat"]
DOCS = ["mkdocs-material", "mkdocstrings[python]"]
TOOLS = [
    "build",
    "cryptography",
    "deepctr==0.9.4",
    "duckdb",
    "hypothesis",
    "mypy",
    "playwright",
    "pytest",
    "pytest-xdist",
    "ranx",
    "ruff",
    "sqlglot",
    "twine",
    "types-PyYAML",
    "types-protobuf",
]


def long_description() -> str:
    """README.md with absolute links and images, for a package index shows it without the repository."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"(!\[[^]]*\]\()(?![a-z]+:)", rf"\g<1>{HOME}/raw/{BRANCH}/", text)
    return re.sub(r"(\]\()(?![a-z]+:|#)", rf"\g<1>{HOME}/blob/{BRANCH}/", text)


setup(
    name="usr-tf",
    version=re.search(r'__version__ = "(.+)"', (ROOT / "usr_tf/__init__.py").read_text(encoding="utf-8"))[1],
    description="USR: one ranking model for search and recommendation, from raw logs to served scores.",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    author="The usr_tf authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    url=HOME,
    project_urls={
        "Documentation": f"{HOME}/tree/{BRANCH}/docs",
        "Changelog": f"{HOME}/blob/{BRANCH}/CHANGELOG.md",
        "Issues": f"{HOME}/issues",
    },
    keywords=[
        "learning to rank",
        "multi-scenario learning",
        "multi-task learning",
        "recommender systems",
        "search",
        "click-through rate",
        "conversion rate",
        "e-commerce",
        "tensorflow",
        "keras",
        "apache beam",
        "tensorflow serving",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["usr_tf*", "pipelines*", "serving*"]),
    package_data={
        "usr_tf": ["configs/*.yaml", "py.typed", "evaluation/report/*.css"],
        "usr_tf.experiments": ["specs/*.yaml"],
        "usr_tf.play": ["page/*"],
        "serving": ["docker/*", "docker/grafana/*/*", "kubernetes/*"],
    },
    install_requires=["absl-py", "pydantic>=2", "pyyaml"],
    extras_require={
        "client": CLIENT,
        "serve": SERVE,
        "features": FEATURES,
        "pipelines": PIPELINES,
        "train": TRAIN,
        "baseline": BASELINE,
        "lakehouse": LAKEHOUSE,
        "notebook": NOTEBOOK,
        "docs": DOCS,
        "dev": [*PIPELINES, *TRAIN, *FEATURES, *BASELINE, *LAKEHOUSE, *NOTEBOOK, *DOCS, *TOOLS],
        "parity": ["torch", "torch-rechub==0.9.0"],
    },
    entry_points={"console_scripts": ["usr-tf=usr_tf.cli:main"]},
)
