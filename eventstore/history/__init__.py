"""The sealed segments of a list as Parquet files, for whoever asks questions of a query engine."""
