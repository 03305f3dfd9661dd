"""Grids of configuration × seed on simulated shops or given data, from a YAML spec to tables with intervals."""
