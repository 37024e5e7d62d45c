"""What a fit leaves behind: tables and figures."""
