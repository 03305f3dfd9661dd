"""Experiments: `grid` and its `specs`, `tune`, `abtest`."""
