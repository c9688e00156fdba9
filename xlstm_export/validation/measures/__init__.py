"""How far results are from the exact ones, in the units that people ask for."""
