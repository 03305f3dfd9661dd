"""Raw logs: readers of table files and BigQuery, validation, rejected rows, and the log writer."""
