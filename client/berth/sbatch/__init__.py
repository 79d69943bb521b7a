"""Slurm batch scripts: ``#SBATCH`` lines and sbatch's options, turned into a job file's fields. Pure.

The whole script travels in the job and runs inside a container image, which the script names in a line
``#BERTH image=docker://...`` or the caller by ``--image``. ``options`` is the table of what becomes of each option,
``reading`` finds options in a script and on a command line, ``asking`` makes a job of them, ``script`` joins it all.
"""
