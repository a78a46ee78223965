"""Reading event logs: JSON Lines and Parquet."""
