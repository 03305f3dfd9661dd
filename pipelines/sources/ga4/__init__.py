"""Google Analytics 4 as a log source: the import of its export's events, and SQL that does the same in BigQuery."""

from pipelines.sources.ga4.source import GA4

__all__ = ["GA4"]
