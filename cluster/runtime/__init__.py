"""Ray itself: sessions, tokens, nodes, resources, jobs of a remote cluster. Splits and detectors do
not belong here."""
