"""The latency gate on real sessions: short ones, on networks that differ much. No time is asserted."""
