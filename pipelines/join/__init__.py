"""The join: labels, histories and as-of attributes of each impression, the splits, and logged requests."""
