"""SQLAlchemy's own suite for dialects, run in a process of its own: it brings a pytest plugin."""
