"""When is an application answered? Rules, the machine that applies them, and how early it knows."""
