"""Join of the log tables: labels, histories, as-of attributes, time split, logged requests."""
