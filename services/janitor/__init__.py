"""The janitor: deletes what has expired, a little at a time, beside services that go on working."""
