#!/bin/bash
# An MPI program as PMI-1 sees it that spawns another one, which ends with this code, and ends well itself.
ask() { echo "$1" >&"$PMI_FD"; read -r answer <&"$PMI_FD"; }
ask 'cmd=init pmi_version=1 pmi_subversion=1'
printf '%s\n' mcmd=spawn nprocs=1 execname=sh totspawns=1 spawnssofar=1 argcnt=2 arg1=-c "arg2=exit $1" \
  preput_num=0 info_num=0 endcmd >&"$PMI_FD"
read -r answer <&"$PMI_FD"
case $answer in *rc=0*) echo spawned ;; *) echo "$answer" ;; esac
ask 'cmd=finalize'
