"""Read and change the annotations of images."""
