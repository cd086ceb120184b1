"""Schedules: what a team writes down about work that comes by the clock, and the arithmetic of its instants."""
