#!/bin/sh
# Stands for the program of a real script: says what it was started as and with.
echo "${0##*/} $RANK/$WORLD_SIZE $*"
