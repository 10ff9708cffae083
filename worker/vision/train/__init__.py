"""Train the bundled detector: draw images, compose scenes, fit the network, and evaluate the result."""
