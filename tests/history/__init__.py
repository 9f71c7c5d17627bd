"""The history in a real PostgreSQL."""
