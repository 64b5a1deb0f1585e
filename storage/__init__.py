"""Storage: durable bytes. It knows no metric's meaning and no framework."""
