#!/bin/sh
set -x
POD_NAME=$1
while [ ${POD_NAME%${POD_NAME#?}} = "-" ]
do
shift
POD_NAME=$1
done
shift
/opt/kube/kubectl cp /opt/kube/hosts ${POD_NAME}:/etc/hosts_of_nodes
/opt/kube/kubectl exec ${POD_NAME} -- /bin/sh -c "cat /etc/hosts_of_nodes >> /etc/hosts && $*"
