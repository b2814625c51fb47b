"""An append-only log of administrative acts, each entry sealed by the hash of the next."""
