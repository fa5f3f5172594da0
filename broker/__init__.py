"""Pillar: moves messages durably and knows nothing of what is inside."""
