"""What administrators do: look at work queues, workers and failed images, pause queues, and retry images."""
