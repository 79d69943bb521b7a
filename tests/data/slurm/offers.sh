# What the captures of reservations and licences were made of: run as root on the login machine, then capture those two.
printf 'Licenses=matlab:4,ansys@flex:2\n' >> /etc/slurm/slurm.conf
scontrol reconfigure
sacctmgr -i modify account lab set GrpTRESMins=cpu=60000
sleep 3
runuser -u alice -- sbatch -Q --chdir=/tmp --licenses=matlab:3 --wrap 'sleep 600' -o /dev/null
scontrol create reservation ReservationName=upgrade StartTime=2030-01-07T06:00:00 Duration=12:00:00 Nodes=ALL Users=root Flags=MAINT,IGNORE_JOBS
scontrol create reservation ReservationName=course StartTime=2030-02-01T09:00:00 Duration=120 NodeCnt=1 PartitionName=cpu Users=alice
scontrol create reservation ReservationName=some StartTime=2030-03-01T09:00:00 Duration=60 CoreCnt=2 Nodes=n1 Accounts=lab
sleep 3
