"""MNIST: 28x28 grey images of handwritten digits."""

from __future__ import annotations

from suites import idx

MNIST_SOURCE = idx.source("MNIST", "12 MB")
