"""What has happened to members, jobs and pairs so far, counted: inputs of a global model."""
