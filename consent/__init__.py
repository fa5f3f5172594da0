"""Pillar: may this be disclosed, what of it, and the proof that we asked."""
