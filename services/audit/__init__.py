"""The audit service: keeps a record of every job that is published, in a table that can only grow."""
