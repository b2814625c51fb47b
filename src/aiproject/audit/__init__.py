"""Who did what: an append-only log of administrative acts, each entry sealed by the next."""
