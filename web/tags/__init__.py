"""Create, change and delete tags, and tag images."""
