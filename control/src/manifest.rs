//! What steered players read: an HLS multivariant playlist and a DASH manifest made for one session, and the steering manifest that both
//! ask for again and again. Pure: values in, text out.

pub(crate) mod dash;
pub(crate) mod hls;
pub(crate) mod steering;

use crate::{fleet::EdgeId, playback::Pass};

/// One edge as a player may use it: HLS calls it a pathway, DASH a service location.
pub(crate) struct Pathway<'a> {
    pub(crate) id: &'a EdgeId,
    /// Where it is: scheme, host and port.
    pub(crate) base: &'a str,
    pub(crate) pass: &'a Pass<'a>,
}

#[cfg(test)]
mod tests {
    use wire::{
        object::ObjectPath,
        title::Rendition,
        token::{Algorithm, SigningKey},
    };

    use super::*;
    use crate::{catalogue::tests::title, playback::Signer};

    pub(super) struct Titled {
        root: ObjectPath,
        pub(super) renditions: Vec<Rendition>,
    }

    /// A title, and edges that it is on.
    pub(super) struct Rig {
        pub(super) entry: Titled,
        pub(super) edges: Vec<(EdgeId, String)>,
        pass: Pass<'static>,
    }

    impl Rig {
        pub(super) fn new(edges: &[&str]) -> Self {
            let title = title("demo");
            // For as long as the test's process lives.
            let root: &'static ObjectPath = Box::leak(Box::new(title.root.clone()));
            let key = SigningKey::generate(Algorithm::EdDsa, "k").unwrap();
            let signer = Signer::new(key, "test".into(), std::time::Duration::from_secs(60));
            let edge = |id: &&str| (id.parse().unwrap(), format!("https://{id}.example:8443"));
            Self {
                entry: Titled { root: title.root, renditions: title.renditions },
                edges: edges.iter().map(edge).collect(),
                pass: signer.pass(root, 0).unwrap(),
            }
        }

        pub(super) fn pathways(&self) -> Vec<Pathway<'_>> {
            self.edges.iter().map(|(id, base)| Pathway { id, base, pass: &self.pass }).collect()
        }

        fn base(&self, edge: &str) -> &str {
            &self.edges.iter().find(|(id, _)| id.as_str() == edge).unwrap().1
        }

        pub(super) fn url(&self, edge: &str, path: &str) -> String {
            self.pass.url(self.base(edge), path).unwrap()
        }

        pub(super) fn folder(&self, edge: &str) -> String {
            let url = self.url(edge, "x");
            assert!(url.contains(self.entry.root.as_str()));
            url[..url.len() - 1].to_owned()
        }
    }
}
