#!/bin/sh
# Says which of a rank and a process it has started gets SIGUSR1. The argument is a file that is made when both listen.
trap 'echo rank' USR1
sh -c 'trap "echo child" USR1; touch "$0"; sleep 1 & wait; wait' "$1" &
wait
wait
