"""Training: what one `fit` needs beside the model (checkpoints, schedules, progress, strategies, checks)."""
