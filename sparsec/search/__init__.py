"""Search: choosing among the schedules that the rules propose by what they take on this machine."""
