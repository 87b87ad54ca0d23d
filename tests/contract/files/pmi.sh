#!/bin/bash
# An MPI program as PMI-1 sees it: rank 1 aborts with code 7, or ends without finalizing.
ask() { echo "$1" >&"$PMI_FD"; read -r answer <&"$PMI_FD"; }
ask 'cmd=init pmi_version=1 pmi_subversion=1'
test "$PMI_RANK" = 1 || exec sleep "${2:-20}"
case $1 in
  abort) echo 'cmd=abort exitcode=7' >&"$PMI_FD"; exec sleep 20 ;;
  leave) exit 0 ;;
esac
