"""Top floor: the door, the story and the window; the only place that knows everything."""
