"""The probability path: noising, timestep laws and sampling."""
