"""What ``penstock doctor`` looks at, and what it says of each thing."""
