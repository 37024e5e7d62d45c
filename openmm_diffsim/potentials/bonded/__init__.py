"""Tables of bonds, angles and dihedral angles."""
