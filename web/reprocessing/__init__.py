"""Process many images again."""
