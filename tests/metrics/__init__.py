"""Tests of stream.metrics."""
