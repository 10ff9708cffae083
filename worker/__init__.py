"""The worker side: processing of images and inspections, the sweep, and the vision library."""
