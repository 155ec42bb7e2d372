"""Foreign Parquet files, each through the verbs of a watch: scored, set aside or refused."""
