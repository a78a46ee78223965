"""Tests of stream.quality."""
