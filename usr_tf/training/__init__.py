"""Training support: checkpoints, schedules, progress, strategies, NaN guard, TensorBoard, warm start."""
