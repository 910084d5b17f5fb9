"""Tables and figures of many runs, from their metrics.json."""
