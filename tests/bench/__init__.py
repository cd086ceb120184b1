"""The benchmark: Penstock beside a bare driver, a C client and its rivals, on the same broker in the same run."""
