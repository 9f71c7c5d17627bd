"""The devices that edgeport knows: one TOML file each, found by its name."""
