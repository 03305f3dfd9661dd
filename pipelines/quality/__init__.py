"""Data quality: statistics and sketches of each split, row counts, and drift between two data directories."""
