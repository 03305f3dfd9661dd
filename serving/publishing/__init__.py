"""Publishing: versions, golden requests, smoke test, labels, canary, warm-up records."""
