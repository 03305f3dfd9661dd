"""Time span of the simulated logs."""

DAYS = 30
START_MS = 1_704_067_200_000  # 2024-01-01 UTC
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
