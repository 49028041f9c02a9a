"""Bridges to other libraries, one module each; a bridge imports its library only when used."""
