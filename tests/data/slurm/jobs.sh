# The jobs of the captures: run as the user on the login machine, then capture at once.
sbatch -Q --wrap 'true' --job-name=done -o /dev/null
sbatch -Q --wrap 'exit 3' --job-name=fails -o /dev/null
sbatch -Q --wrap 'sleep 100' --job-name=cancelled -o /dev/null --mem=100M
sbatch -Q --wrap 'kill -9 $$' --job-name=killed -o /dev/null
sbatch -Q --array=1-3%1 --wrap 'exit $((SLURM_ARRAY_TASK_ID % 2))' --job-name=array -o /dev/null
sbatch -Q --wrap 'true' --job-name=nodir -o /no/such/dir/x
sleep 8
scancel --name=cancelled --me
sbatch -Q -H --array=0-9:3,20%2 --wrap 'true' --job-name=held-array -o /dev/null
sbatch -Q -H --wrap 'true' --job-name=held -o /dev/null
sbatch -Q --wrap 'sleep 60' --job-name=running -o /dev/null --mem=100M
sleep 4
