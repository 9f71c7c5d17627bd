"""The networks that edgeport knows: one file each, found by its name."""
