"""Tests of the Faust worker, on the embedded broker."""
