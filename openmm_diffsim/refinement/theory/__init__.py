"""What liquid-state theory says before much was sampled."""
