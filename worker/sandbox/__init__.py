"""Processing of untrusted images in a child process with limits on memory and time."""
