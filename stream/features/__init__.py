"""What is known of an application when it is read."""
