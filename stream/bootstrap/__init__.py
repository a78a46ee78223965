"""A replay's state becomes the state of live workers: load it, split it by partition, write it."""
