"""The sync service: pulls from other people's HTTP APIs, page by page, and keeps what it found."""
