"""Beam stages of evaluation and batch scoring over score files."""
