"""The runner of FORK jobs: one program for this machine and for every host that is reached over SSH."""
