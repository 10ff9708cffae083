"""The processing of untrusted images in a child process that has limits on memory and time."""
