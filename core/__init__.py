"""Core: what to keep, and when. It knows no framework and no bucket."""
