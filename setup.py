"""Installs motion_jax: self-supervised video representations in JAX."""

import pathlib

import setuptools

CORE = [
  "absl-py>=2.1",
  "array-record>=0.8",
  "av>=18",
  "clu>=0.0.12",
  "flax>=0.12.8",
  "grain>=0.2.15",
  "importlib_resources>=6",  # tensorflow-datasets imports it without declaring it
  "jax>=0.10.2",
  "matplotlib>=3.8",
  "ml-collections>=1.0",
  "numpy>=2.0",
  "opencv-python-headless>=4.10",
  "optax>=0.2.5",
  "orbax-checkpoint>=0.12",
  "pillow>=10",
  "tensorboardX>=2.6",
  "tensorflow-datasets>=4.9.9",
  "tqdm>=4.66",
]

setuptools.setup(
  name="motion_jax",
  version="0.1.0",
  description="Self-supervised video representations in JAX: MoSI, MoDist, MAS",
  long_description=pathlib.Path("README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  python_requires=">=3.11",
  # Installed by -e, a path that Python searches, not a finder of setuptools', which a
  # clone's folder of the same name would hide from scripts that lie beside it.
  package_dir={"": "."},
  packages=setuptools.find_packages(include=["motion_jax", "motion_jax.*"]),
  install_requires=CORE,
  extras_require={
    "cuda12": ["jax[cuda12]"],
    "cuda13": ["jax[cuda13]"],
    "tpu": ["jax[tpu]"],
    "evaluation": ["scikit-learn>=1.5"],  # linear SVMs of ASLAN and YUPENN
    "visualize": ["scikit-learn>=1.5"],  # t-SNE and k-means
    "export": ["flatbuffers>=24"],
    "tensorboard": ["tensorboard>=2.18"],
    "xmanager": ["xmanager>=0.8.5"],
    "test": [
      "flatbuffers>=24",
      "pytest>=8",
      "pytest-xdist>=3.6",
      "ruff>=0.6",
      "scikit-learn>=1.5",
      "setuptools>=68",
      "wheel>=0.43",
    ],
  },
)
