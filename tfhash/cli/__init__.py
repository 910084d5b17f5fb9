"""The command line: flags made of configurations, and what every main shares."""
