"""Training of the bundled detector: drawing, composing scenes, fitting, judging."""
