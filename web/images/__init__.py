"""List, return, change and delete images, and find images that look alike."""
