"""What runs on the broker now, and what of it is worth an alarm."""
