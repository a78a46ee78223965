"""Tests of deploy, docker-compose.yml and Dockerfile."""
