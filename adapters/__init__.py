"""Pillar: one file per agency, translating between its native format and canonical messages."""
