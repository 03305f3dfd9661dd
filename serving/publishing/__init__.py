"""Publishing: versions of a model, golden requests, smoke tests, labels, canaries and warm-up records."""
