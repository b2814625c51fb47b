"""Everything that touches the world: database, clock, passwords, log, outgoing HTTP."""
