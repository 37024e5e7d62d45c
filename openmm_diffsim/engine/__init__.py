"""OpenMM: forces, recording, sampling, segments."""
