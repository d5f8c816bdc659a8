"""Settings: each declared once, from which options, environment, TOML file and documentation follow."""
