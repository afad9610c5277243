"""How a node comes back: bootstrap, resync, recovery from lost streams, repair of a mirror."""
