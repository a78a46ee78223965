"""Tests of stream.configuration."""
