//! Pods of a RuntimeClass whose handler is gVisor.

use kevel_e2e::{Cluster, until};

use crate::{container, processes};

/// Its containers have gVisor's kernel; they answer probes and exec, are read, end as they want to, and are deleted.
pub(crate) fn run(cluster: &Cluster) {
    cluster.apply("gvisor.yaml").unwrap();
    let ended = |pod: &serde_json::Value| container(pod, "once")["state"]["terminated"]["exitCode"] == 7;
    let is_ready = |pod: &serde_json::Value| container(pod, "main")["ready"] == true;
    cluster.until_pod("sandboxed", "to be ready", |pod| is_ready(pod) && ended(pod)).unwrap();
    assert!(processes(cluster, "runsc-sandbox") > 0);
    assert_eq!(cluster.kubectl(&["logs", "sandboxed", "-c", "main"]).unwrap(), "1\n");
    assert_eq!(cluster.kubectl(&["logs", "sandboxed", "-c", "once"]).unwrap(), "once\n");
    let exec = ["exec", "sandboxed", "-c", "main", "--", "sh", "-c"];
    let said = cluster.kubectl(&[&exec[..], &["dmesg; echo $HOSTNAME"]].concat()).unwrap();
    assert!(said.contains("gVisor") && said.ends_with("\nsandboxed\n"), "{said}");
    let failed = cluster.try_kubectl(&[&exec[..], &["echo no >&2; exit 5"]].concat()).unwrap();
    assert_eq!((failed.code, failed.stderr.contains("no\n")), (5, true), "{failed:?}");
    cluster.kubectl(&["delete", "pod", "sandboxed", "--wait"]).unwrap();
    until("gVisor's processes to end", || (processes(cluster, "runsc-sandbox") == 0).then_some(())).unwrap();
    cluster.kubectl(&["delete", "runtimeclass", "gvisor"]).unwrap();
}
