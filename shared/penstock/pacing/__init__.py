"""Calls to others, paced: rate limits, circuit breakers, and a line for those that have to wait."""
