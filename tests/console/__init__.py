"""Tests of stream.console."""
