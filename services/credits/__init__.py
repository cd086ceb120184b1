"""The credits service: keeps users' balances, and books every job exactly once."""
