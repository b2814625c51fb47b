"""The relay against its baselines: the same load, the same upstream, one after the other, each on a core of its own."""
