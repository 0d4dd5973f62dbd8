"""hrtemd: finds the atoms in HRTEM frames while the sample is still under the beam."""
