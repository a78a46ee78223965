"""Where a broker is and how to talk to it; a throw-away one for trying things out."""
