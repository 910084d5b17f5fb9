"""NUS-WIDE for TFDS: prepared once from a user's own download, then loaded offline."""
