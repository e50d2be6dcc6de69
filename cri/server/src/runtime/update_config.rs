//! UpdateRuntimeConfig: the kubelet tells which addresses the node's pods have.

use std::path::Path;

use kevel_model::{Error, Result};
use kevel_proto::runtime::v1::UpdateRuntimeConfigRequest;

use crate::{files::blocking, server::Server};

/// The file that the template is written to.
const FILE: &str = "10-containerd-net.conflist";

impl Server {
    /// Writes the network configuration from the operator's template, if there is one and no other configuration.
    pub(crate) async fn update_runtime_config(&self, request: &UpdateRuntimeConfigRequest) -> Result<()> {
        let network = request.runtime_config.as_ref().and_then(|config| config.network_config.as_ref());
        let cidrs = network.map_or("", |network| network.pod_cidr.as_str());
        if cidrs.is_empty() {
            return Ok(());
        }
        let ranges: Vec<String> = cidrs.split(',').map(|cidr| cidr.trim().to_owned()).collect();
        for range in &ranges {
            check(range)?;
        }
        let cni = &self.settings.config.cni;
        if cni.conf_template.is_empty() {
            return Ok(());
        }
        let (template, dir) = (cni.conf_template.clone(), cni.conf_dir.clone());
        blocking(move || write(Path::new(&template), &dir, &ranges)).await?;
        self.default_network()?.reload();
        Ok(())
    }
}

fn check(range: &str) -> Result<()> {
    let wrong = || Error::invalid_argument(format!("runtime_config.network_config.pod_cidr: {range:?} is no range"));
    let (address, bits) = range.split_once('/').ok_or_else(wrong)?;
    let address: std::net::IpAddr = address.parse().map_err(|_| wrong())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    if bits.parse::<u8>().is_ok_and(|bits| bits <= most) { Ok(()) } else { Err(wrong()) }
}

/// Fills in `{{.PodCIDR}}`, and for each range what stands between `{{range $i, $range := .PodCIDRRanges}}` and
/// `{{end}}`, where `{{$range}}` is the range: what containerd's example template uses. Blocks.
fn write(template: &Path, dir: &Path, ranges: &[String]) -> Result<()> {
    let doing = || format!("making a network configuration from {}", template.display());
    let text = std::fs::read_to_string(template).map_err(|error| Error::io(doing(), error))?;
    let filled = fill(&text, ranges);
    if filled.contains("{{") {
        return Err(Error::invalid_argument(format!("{}: it uses more than PodCIDR and PodCIDRRanges", doing())));
    }
    std::fs::create_dir_all(dir).map_err(|error| Error::io(doing(), error))?;
    let new = dir.join(format!(".{FILE}.new"));
    let written = std::fs::write(&new, filled).and_then(|()| std::fs::rename(&new, dir.join(FILE)));
    written.map_err(|error| Error::io(doing(), error))
}

fn fill(text: &str, ranges: &[String]) -> String {
    const BEGIN: &str = "{{range $i, $range := .PodCIDRRanges}}";
    const END: &str = "{{end}}";
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        out.push_str(before);
        let Some((body, after)) = split_end(after) else { break };
        for (index, range) in ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            out.push_str(&body.replace("{{if $i}}, {{end}}", comma).replace("{{$range}}", range));
        }
        rest = after;
    }
    out.push_str(rest);
    return out.replace("{{.PodCIDR}}", ranges.first().map_or("", String::as_str));

    /// The end of a loop, past the ends of the conditions in it.
    fn split_end(text: &str) -> Option<(&str, &str)> {
        let (mut depth, mut at) = (0, 0);
        loop {
            let open = text[at..].find("{{")? + at;
            let close = text[open..].find("}}")? + open + 2;
            match &text[open..close] {
                END if depth == 0 => return Some((&text[..open], &text[close..])),
                END => depth -= 1,
                other if other.starts_with("{{if") => depth += 1,
                _ => {}
            }
            at = close;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates() {
        let ranges = ["10.1.0.0/24".to_owned(), "fd00::/64".to_owned()];
        assert_eq!(fill("a {{.PodCIDR}} b", &ranges), "a 10.1.0.0/24 b");
        let text = r#"[{{range $i, $range := .PodCIDRRanges}}{{if $i}}, {{end}}["{{$range}}"]{{end}}]"#;
        assert_eq!(fill(text, &ranges), r#"[["10.1.0.0/24"], ["fd00::/64"]]"#);
        assert!(fill("{{.Other}}", &ranges).contains("{{"));
        for bad in ["", "1.2.3.4", "1.2.3.4/33", "x/1", "::/129"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
