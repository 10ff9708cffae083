"""What the service is compared with, each as small as it can be."""
