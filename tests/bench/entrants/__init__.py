"""One small program per entrant, all with the same roles; each runs in the environment it belongs to."""
