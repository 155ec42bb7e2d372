"""Ray itself: sessions, tokens, nodes, resources, submitted jobs. Nothing here knows a split."""
