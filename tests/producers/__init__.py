"""Tests of the log reader, the simulator and the producer."""
