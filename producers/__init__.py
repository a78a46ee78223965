"""Where events come from: a simulated market, log files, and playing them into Kafka."""
