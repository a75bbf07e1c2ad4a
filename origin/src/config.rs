//! What an operator writes in `origin.toml`, and what the code trusts.

use std::{net::SocketAddr, path::PathBuf};

use wire::config::Document;

/// Connections that may be open at once, at most, whatever is configured.
pub const CONNECTIONS_MAX: u32 = 65_536;
const CONNECTIONS_DEFAULT: u32 = 1024;

/// An origin's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where edges reach it, in plain HTTP/1.1. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where titles and files are kept; made if it is missing.
    pub state_dir: PathBuf,
    /// A file with the secret that edges send (`Authorization: Bearer …`).
    pub fill_token_file: PathBuf,
    /// Connections open at once, 1 to [`CONNECTIONS_MAX`]; more wait in the system's queue.
    pub connections_max: u32,
    /// Where titles are catalogued once they are published here; of no use to serving.
    pub control: Option<Control>,
}

/// The control plane that catalogues what is ingested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Scheme, host and port, such as `http://127.0.0.1:8080`.
    pub url: String,
    /// A file with the secret of its operators.
    pub token_file: PathBuf,
}

impl Config {
    /// Reads it. `None` if a problem was recorded; `document.finish()` then has all of them.
    pub fn read(document: &mut Document) -> Option<Self> {
        let path = |path: String| PathBuf::from(path);
        let listen = document.value(
            "listen",
            Some(SocketAddr::from(([127, 0, 0, 1], 9450))),
            "an address and port such as 127.0.0.1:9450",
        );
        let state_dir = document.value("state_dir", Some("/var/lib/larder/origin".to_owned()), "a directory").map(path);
        let fill_token_file = document
            .value("fill_token_file", None, "the path of a file with the secret that edges and this origin share")
            .map(path);
        let connections = document.value("limits.connections", Some(CONNECTIONS_DEFAULT), "a number from 1 to 65536");
        let connections_max = connections.filter(|connections| (1..=CONNECTIONS_MAX).contains(connections));
        if connections != connections_max {
            document.problem("limits.connections", "a number from 1 to 65536");
        }
        let url = document.optional("control.url", "a URL such as http://127.0.0.1:8080");
        let token_file = document.optional("control.token_file", "the path of a file with control's operator secret").map(path);
        let control = match (url, token_file) {
            (Some(url), Some(token_file)) => Some(Some(Control { url, token_file })),
            (None, None) => Some(None),
            (url, _) => {
                let missing = if url.is_none() { "control.url" } else { "control.token_file" };
                document.problem(missing, "both control.url and control.token_file, or neither");
                None
            }
        };
        Some(Self {
            listen: listen?,
            state_dir: state_dir?,
            fill_token_file: fill_token_file?,
            connections_max: connections_max?,
            control: control?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_defaults_and_bounds() {
        let mut document = Document::parse("fill_token_file = \"/t\"\nlisten = \"[::1]:0\"\n").unwrap();
        let config = Config::read(&mut document).unwrap();
        assert!(document.finish().is_ok());
        assert_eq!((config.connections_max, config.listen.port()), (CONNECTIONS_DEFAULT, 0));
        assert_eq!(config.state_dir, PathBuf::from("/var/lib/larder/origin"));

        let control = "fill_token_file = \"/t\"\n[control]\nurl = \"http://c:1\"\n";
        let mut document = Document::parse(control).unwrap();
        assert_eq!(Config::read(&mut document), None);
        assert_eq!(document.finish().unwrap_err()[0].key, "control.token_file");

        let mut document = Document::parse("state_dri = \"/x\"\n[limits]\nconnections = 0\n").unwrap();
        assert_eq!(Config::read(&mut document), None);
        let problems: Vec<_> = document.finish().unwrap_err().iter().map(|problem| problem.key.clone()).collect();
        assert_eq!(problems, ["state_dri", "fill_token_file", "limits.connections"]);
    }
}
