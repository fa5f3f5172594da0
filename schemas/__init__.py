"""Ground floor: what is said between agencies. Imports nothing of ours."""
