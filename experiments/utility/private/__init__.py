"""Arms of the comparison of private training; see privacy.py beside this folder."""
