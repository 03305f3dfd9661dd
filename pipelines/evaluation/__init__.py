"""Evaluation and batch scoring at scale, as Beam stages over score files."""
