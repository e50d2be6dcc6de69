//! What containers say, while kubelet and the daemon are restarted and killed and kubelet rotates the logs.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use kevel_e2e::{Cluster, run, until};

use crate::{identity, ready, soak};

/// Chatty containers go on through restarts of kubelet and the daemon: they are the same, and no line is lost, doubled or out
/// of order, over rotations.
pub(crate) fn survive_restarts(cluster: &Cluster) {
    let (count, rounds) = if soak() { (8, 12) } else { (2, 1) };
    let pods: Vec<_> = (1..=count).map(|n| format!("counter-{n}")).collect();
    for pod in &pods {
        let file = cluster.path("counter.yaml");
        fs::write(&file, cluster.manifest("counter.yaml").unwrap().replace("NAME", pod)).unwrap();
        cluster.kubectl(&["apply", "-f", file.to_str().unwrap()]).unwrap();
    }
    let before: Vec<_> =
        pods.iter().map(|pod| identity(&cluster.until_pod(pod, "to be ready", ready).unwrap())).collect();
    let app = identity(&cluster.until_pod("app", "to be ready", ready).unwrap());
    for _ in 0..rounds {
        let rotated = files(&folder(cluster, &pods[0], "long").unwrap());
        for (how, process) in
            [("restart", "kubelet"), ("restart", "keveld"), ("kill", "keveld"), ("kill", "kubelet"), ("kill", "keveld")]
        {
            cluster.again(how, process).unwrap();
            until_more(cluster, &pods);
        }
        until("a log to be rotated", || (files(&folder(cluster, &pods[0], "long")?) != rotated).then_some(())).unwrap();
    }
    for (pod, before) in pods.iter().zip(&before) {
        assert_eq!(&identity(&cluster.until_pod(pod, "to be ready again", ready).unwrap()), before);
    }
    assert_eq!(identity(&cluster.until_pod("app", "to be ready again", ready).unwrap()), app);
    fs::write(cluster.path("host/enough"), "").unwrap();
    let mut rotated = 0;
    for (pod, before) in pods.iter().zip(&before) {
        let ended = cluster.until_pod(pod, "to succeed", |pod| pod["status"]["phase"] == "Succeeded").unwrap();
        assert_eq!(&identity(&ended), before);
        for container in ["out", "both", "long"] {
            let folder = folder(cluster, pod, container).unwrap();
            until("logs to be compressed", || files(&folder).iter().all(|file| !ends(file, "tmp")).then_some(()))
                .unwrap();
            rotated += files(&folder).len() - 1;
            check(&folder, if container == "both" { 2 } else { 1 });
        }
    }
    assert!(rotated > 0, "no log was rotated");
    cluster
        .kubectl(&[&["delete", "pod", "--wait"], &pods.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat())
        .unwrap();
}

/// Waits until every pod has said something that it had not before.
fn until_more(cluster: &Cluster, pods: &[String]) {
    let size = |pod: &str| fs::metadata(folder(cluster, pod, "out")?.join("0.log")).ok().map(|file| file.len());
    for pod in pods {
        let before = size(pod);
        until("a container to go on", || (size(pod).is_some() && size(pod) != before).then_some(())).unwrap();
    }
}

/// On each of the streams, the lines of a container's log are `line 1`, `line 2`, … and the total.
fn check(folder: &Path, streams: usize) {
    let said = lines(folder);
    assert_eq!(said.len(), streams, "{said:#?}");
    for (stream, lines) in said {
        let (total, lines) = lines.split_last().unwrap();
        assert_eq!(total, &format!("total {}", lines.len()), "{}: {stream}", folder.display());
        let wrong = lines.iter().enumerate().find(|(n, line)| line.trim_start() != format!("line {}", n + 1));
        assert_eq!(wrong, None, "{}: {stream}", folder.display());
    }
}

/// What a container said on each stream, with lines that were split put together.
fn lines(folder: &Path) -> BTreeMap<String, Vec<String>> {
    let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut parts: BTreeMap<String, String> = BTreeMap::new();
    for file in files(folder) {
        let text = if ends(&file, "gz") {
            run(Path::new("/bin/zcat"), &[file.to_str().unwrap()]).unwrap().ok().unwrap()
        } else {
            fs::read_to_string(&file).unwrap()
        };
        for line in text.lines() {
            let mut fields = line.splitn(4, ' ').skip(1);
            let (stream, tag) = (fields.next().unwrap().to_owned(), fields.next().unwrap());
            let part = parts.entry(stream.clone()).or_default();
            part.push_str(fields.next().unwrap_or_default());
            if tag == "F" {
                said.entry(stream).or_default().push(std::mem::take(part));
            }
        }
    }
    assert!(parts.values().all(String::is_empty), "a line without an end: {parts:?}");
    said
}

/// The files of a container's log, oldest first: rotated ones carry their time, the last one is `0.log`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect();
    files.sort_by_key(|file| (file.ends_with("0.log"), file.clone()));
    files
}

fn ends(file: &Path, with: &str) -> bool {
    file.extension().is_some_and(|end| end == with)
}

fn folder(cluster: &Cluster, pod: &str, container: &str) -> Option<PathBuf> {
    let folders = fs::read_dir(cluster.path("pods")).ok()?.flatten().map(|entry| entry.path());
    let start = format!("default_{pod}_");
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start));
    Some(folders.into_iter().find(named)?.join(container))
}
