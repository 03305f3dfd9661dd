"""Raw logs: table files and BigQuery tables in, checked Arrow tables and rejected rows out; also the writer."""
