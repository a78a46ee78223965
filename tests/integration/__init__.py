"""The whole worker on a real Kafka: whatever happens to it, what it learned is the same."""
