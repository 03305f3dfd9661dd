"""Experiments on finished models and on grids of them: `grid` and its `specs`, `tune`, `abtest`."""
