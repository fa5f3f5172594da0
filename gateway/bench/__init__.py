"""The hub's speed, measured beside what it is compared with, in one run."""
