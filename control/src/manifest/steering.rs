//! The steering manifest, which HLS (draft-pantos-hls-rfc8216bis §7) and DASH (ETSI TS 103 998) share: which pathways to use, best first, and
//! how to make those that the playlist does not name out of one that it does.

use std::collections::BTreeMap;

use http::Uri;
use serde::Serialize;
use wire::{
    object::PathError,
    title::{Media, Rendition},
};

use super::{Pathway, hls::is_stable};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Hls,
    Dash,
}

/// What a player follows until the next one.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
pub(crate) struct SteeringManifest {
    version: u32,
    /// Seconds.
    ttl: u64,
    reload_uri: String,
    pathway_priority: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pathway_clones: Vec<PathwayClone>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
struct PathwayClone {
    base_id: String,
    id: String,
    uri_replacement: Replacement,
}

/// Another host, or other addresses: where the port is another one, a host's name alone does not lead there.
#[derive(Debug, PartialEq, Default, Serialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
struct Replacement {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    per_variant_uris: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    per_rendition_uris: BTreeMap<String, String>,
}

impl SteeringManifest {
    /// The manifest for a player that has `base`'s pathways, the first of which others are made of, and should use `ranked`, best first.
    pub(crate) fn new(
        dialect: Dialect,
        ttl_s: u64,
        reload_uri: String,
        base: &[Pathway<'_>],
        ranked: &[Pathway<'_>],
        renditions: &[Rendition],
    ) -> Result<Self, PathError> {
        let mut manifest = Self {
            version: 1,
            ttl: ttl_s,
            reload_uri,
            pathway_priority: Vec::with_capacity(ranked.len()),
            pathway_clones: Vec::new(),
        };
        for pathway in ranked {
            if !base.iter().any(|known| known.id == pathway.id) {
                let Some(origin) = base.first() else { continue };
                let Some(uri_replacement) = Replacement::of(dialect, origin, pathway, renditions)? else { continue };
                let (base_id, id) = (origin.id.to_string(), pathway.id.to_string());
                manifest.pathway_clones.push(PathwayClone { base_id, id, uri_replacement });
            }
            manifest.pathway_priority.push(pathway.id.to_string());
        }
        Ok(manifest)
    }

    /// Whether it leaves the player nowhere to go: nobody can serve, or none of those who can is to be made of what the player knows.
    pub(crate) fn names_nobody(&self) -> bool {
        self.pathway_priority.is_empty()
    }

    /// Keeps the player where it is.
    pub(crate) fn stay(ttl_s: u64, reload_uri: String, pathways: impl IntoIterator<Item = String>) -> Self {
        let pathway_priority = pathways.into_iter().collect();
        Self { version: 1, ttl: ttl_s, reload_uri, pathway_priority, pathway_clones: Vec::new() }
    }
}

impl Replacement {
    /// How to make addresses at `pathway` of those at `origin`; none if that cannot be said.
    fn of(
        dialect: Dialect,
        origin: &Pathway<'_>,
        pathway: &Pathway<'_>,
        renditions: &[Rendition],
    ) -> Result<Option<Self>, PathError> {
        let (Ok(from), Ok(to)) = (origin.base.parse::<Uri>(), pathway.base.parse::<Uri>()) else { return Ok(None) };
        let is_near = from.scheme() == to.scheme() && from.port_u16() == to.port_u16();
        match dialect {
            Dialect::Hls if is_near => Ok(Some(Self { host: to.host().map(str::to_owned), ..Self::default() })),
            // dash.js takes a port with the host.
            Dialect::Dash if from.scheme() == to.scheme() => {
                Ok(Some(Self { host: to.authority().map(ToString::to_string), ..Self::default() }))
            }
            Dialect::Dash => Ok(None),
            Dialect::Hls => Self::of_each(pathway, renditions),
        }
    }

    fn of_each(pathway: &Pathway<'_>, renditions: &[Rendition]) -> Result<Option<Self>, PathError> {
        let mut replacement = Self::default();
        for rendition in renditions {
            if !is_stable(&rendition.id) {
                return Ok(None);
            }
            let url = pathway.pass.url(pathway.base, &rendition.playlist)?;
            let uris = match rendition.media {
                Media::Video { .. } => &mut replacement.per_variant_uris,
                Media::Audio { .. } => &mut replacement.per_rendition_uris,
            };
            uris.insert(rendition.id.clone(), url);
        }
        Ok(Some(replacement))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, to_value};

    use super::{super::tests::Rig, *};

    fn told(dialect: Dialect, base: &Rig, ranked: &Rig) -> Value {
        let renditions = &base.entry.renditions;
        let manifest =
            SteeringManifest::new(dialect, 30, "/steering/next".into(), &base.pathways(), &ranked.pathways(), renditions);
        to_value(manifest.unwrap()).unwrap()
    }

    #[test]
    fn pathways_of_the_playlist_are_put_in_order() {
        let told = told(Dialect::Hls, &Rig::new(&["e1", "e2", "e3"]), &Rig::new(&["e3", "e1"]));
        let expected = json!({ "VERSION": 1, "TTL": 30, "RELOAD-URI": "/steering/next", "PATHWAY-PRIORITY": ["e3", "e1"] });
        assert_eq!(told, expected);
    }

    #[test]
    fn other_edges_are_cloned_from_the_first() {
        let (base, ranked) = (Rig::new(&["e1"]), Rig::new(&["e9", "e1"]));
        for (dialect, host) in [(Dialect::Hls, "e9.example"), (Dialect::Dash, "e9.example:8443")] {
            let told = told(dialect, &base, &ranked);
            assert_eq!(told["PATHWAY-PRIORITY"], json!(["e9", "e1"]));
            let clone = json!([{ "BASE-ID": "e1", "ID": "e9", "URI-REPLACEMENT": { "HOST": host } }]);
            assert_eq!(told["PATHWAY-CLONES"], clone, "{dialect:?}");
        }
    }

    #[test]
    fn where_all_that_the_player_knows_is_gone_nobody_is_named() {
        let (known, gone) = (Rig::new(&["e1"]), Rig::new(&[]));
        let of = |base: &Rig, ranked: &Rig| {
            let (base, ranked) = (base.pathways(), ranked.pathways());
            SteeringManifest::new(Dialect::Hls, 30, "/steering/next".into(), &base, &ranked, &known.entry.renditions).unwrap()
        };
        assert!(of(&gone, &known).names_nobody() && of(&known, &gone).names_nobody() && !of(&known, &known).names_nobody());
    }

    #[test]
    fn an_edge_on_another_port_is_cloned_address_by_address() {
        let (base, mut ranked) = (Rig::new(&["e1"]), Rig::new(&["e9"]));
        ranked.edges[0].1 = "https://e9.example:9999".into();
        let told_hls = told(Dialect::Hls, &base, &ranked);
        let replacement = &told_hls["PATHWAY-CLONES"][0]["URI-REPLACEMENT"];
        assert_eq!(replacement.get("HOST"), None);
        assert_eq!(replacement["PER-VARIANT-URIS"]["v360"], ranked.url("e9", "v360/playlist.m3u8"));
        assert_eq!(replacement["PER-RENDITION-URIS"], json!({ "a1": ranked.url("e9", "a1/playlist.m3u8") }));
        assert_eq!(
            told(Dialect::Dash, &base, &ranked)["PATHWAY-CLONES"][0]["URI-REPLACEMENT"],
            json!({ "HOST": "e9.example:9999" })
        );
        ranked.edges[0].1 = "http://e9.example:9999".into();
        assert_eq!(told(Dialect::Dash, &base, &ranked)["PATHWAY-PRIORITY"], json!([]), "no host leads to another scheme");
    }
}
