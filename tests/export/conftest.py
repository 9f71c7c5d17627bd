"""Settings of all export tests."""

from hypothesis import settings

# No deadline: a busy machine is no failure. Derandomised, so that a change breaks the run that made it, not a later one.
settings.register_profile("edgeport-export", deadline=None, derandomize=True, max_examples=15, database=None)
settings.load_profile("edgeport-export")
