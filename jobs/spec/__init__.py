"""The YAML file that describes a watch: its sections, its checks, its errors with line numbers."""
