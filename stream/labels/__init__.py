"""When is an application answered? Rules, the machine that applies them, and event time."""
