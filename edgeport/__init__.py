"""edgeport: takes a PyTorch network to an edge device and says how fast it is there, and why."""

__version__ = "0.1.0"
