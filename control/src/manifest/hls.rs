//! The multivariant playlist of a session (draft-pantos-hls-rfc8216bis): every rendition on every pathway, and where to ask for the order of pathways.
//!
//! Renditions stand as the origin's own playlist has them, with absolute addresses. A player that knows no content steering takes the
//! pathways after the first for redundant streams.

use std::{
    collections::HashSet,
    fmt::{self, Write as _},
};

use wire::{
    object::PathError,
    title::{Media, Rendition},
};

use super::Pathway;

/// What CMAF players expect.
const VERSION: u32 = 7;

/// The playlist; there is at least one pathway.
pub(crate) fn multivariant(renditions: &[Rendition], pathways: &[Pathway<'_>], steering_url: &str) -> Result<String, PathError> {
    let (video, audio): (Vec<_>, Vec<_>) =
        renditions.iter().partition(|rendition| matches!(rendition.media, Media::Video { .. }));
    let mut text = format!("#EXTM3U\n#EXT-X-VERSION:{VERSION}\n#EXT-X-INDEPENDENT-SEGMENTS\n");
    let first = pathways.first().map_or("", |pathway| pathway.id.as_str());
    line(&mut text, format_args!("#EXT-X-CONTENT-STEERING:SERVER-URI={},PATHWAY-ID={}", Quoted(steering_url), Quoted(first)));
    for pathway in pathways {
        let group = format!("audio.{}", pathway.id);
        media(&mut text, &audio, &group, pathway)?;
        for rendition in &video {
            variant(&mut text, rendition, &audio, &group, pathway)?;
        }
    }
    Ok(text)
}

fn media(text: &mut String, audio: &[&Rendition], group: &str, pathway: &Pathway<'_>) -> Result<(), PathError> {
    let mut names = HashSet::new();
    for (at, rendition) in audio.iter().enumerate() {
        let Media::Audio { channels, language, .. } = &rendition.media else { continue };
        let is_known = language != "und";
        // RFC 8216 §4.3.4.1.1: names in a group differ.
        let mut name = if is_known { language.clone() } else { "Audio".to_owned() };
        if !names.insert(name.clone()) {
            name = format!("{name} ({})", rendition.id);
        }
        let url = pathway.pass.url(pathway.base, &rendition.playlist)?;
        let mut attributes = format!("TYPE=AUDIO,GROUP-ID={},NAME={}", Quoted(group), Quoted(&name));
        if is_known {
            add(&mut attributes, format_args!("LANGUAGE={}", Quoted(language)));
        }
        if at == 0 {
            add(&mut attributes, format_args!("DEFAULT=YES"));
        }
        add(&mut attributes, format_args!("AUTOSELECT=YES,CHANNELS=\"{channels}\""));
        if is_stable(&rendition.id) {
            add(&mut attributes, format_args!("STABLE-RENDITION-ID={}", Quoted(&rendition.id)));
        }
        add(&mut attributes, format_args!("URI={}", Quoted(&url)));
        line(text, format_args!("#EXT-X-MEDIA:{attributes}"));
    }
    Ok(())
}

fn variant(
    text: &mut String,
    rendition: &Rendition,
    audio: &[&Rendition],
    group: &str,
    pathway: &Pathway<'_>,
) -> Result<(), PathError> {
    let Media::Video { width, height, frame_rate } = rendition.media else { return Ok(()) };
    let most = |bits: fn(&Rendition) -> u64| audio.iter().map(|rendition| bits(rendition)).max().unwrap_or(0);
    let peak = rendition.bits_per_second_peak + most(|audio| audio.bits_per_second_peak);
    let mean = rendition.bits_per_second_mean + most(|audio| audio.bits_per_second_mean);
    let mut codecs: Vec<_> = audio.iter().map(|rendition| rendition.codecs.as_str()).collect();
    codecs.sort_unstable();
    codecs.dedup();
    let codecs: Vec<_> = std::iter::once(rendition.codecs.as_str()).chain(codecs).collect();
    let mut attributes = format!(
        "BANDWIDTH={peak},AVERAGE-BANDWIDTH={mean},CODECS={},RESOLUTION={width}x{height},FRAME-RATE={frame_rate:.3}",
        Quoted(&codecs.join(","))
    );
    if !audio.is_empty() {
        add(&mut attributes, format_args!("AUDIO={}", Quoted(group)));
    }
    add(&mut attributes, format_args!("CLOSED-CAPTIONS=NONE,PATHWAY-ID={}", Quoted(pathway.id.as_str())));
    if is_stable(&rendition.id) {
        add(&mut attributes, format_args!("STABLE-VARIANT-ID={}", Quoted(&rendition.id)));
    }
    line(text, format_args!("#EXT-X-STREAM-INF:{attributes}"));
    line(text, format_args!("{}", pathway.pass.url(pathway.base, &rendition.playlist)?));
    Ok(())
}

/// Whether a rendition's id may be one that is the same on all pathways (rfc8216bis §4.4.6.1).
pub(super) fn is_stable(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'.' | b'-' | b'_'))
}

fn line(text: &mut String, line: fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a String takes all");
}

fn add(attributes: &mut String, attribute: fmt::Arguments<'_>) {
    write!(attributes, ",{attribute}").expect("a String takes all");
}

/// A quoted string, in which neither a quote nor a line's end can stand (RFC 8216 §4.2).
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        self.0.chars().filter(|c| *c != '"' && !c.is_control()).try_for_each(|c| f.write_char(c))?;
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::Rig, *};

    #[test]
    fn every_rendition_stands_on_every_pathway_with_an_address_of_its_own() {
        let mut rig = Rig::new(&["e1", "e2"]);
        rig.entry.renditions[2].media = Media::Audio { channels: 2, sample_rate: 48_000, language: "de".into() };
        rig.entry.renditions[0].codecs = "avc1.64001f\"\n".into();
        let text = multivariant(&rig.entry.renditions, &rig.pathways(), "https://control/steering/s").unwrap();
        let of = |edge: &str| {
            let url = |playlist: &str| rig.url(edge, playlist);
            format!(
                "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio.{edge}\",NAME=\"de\",LANGUAGE=\"de\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\",\
                 STABLE-RENDITION-ID=\"a1\",URI=\"{}\"\n\
                 #EXT-X-STREAM-INF:BANDWIDTH=3128000,AVERAGE-BANDWIDTH=1564000,CODECS=\"avc1.64001f,mp4a.40.2\",RESOLUTION=1280x720,\
                 FRAME-RATE=25.000,AUDIO=\"audio.{edge}\",CLOSED-CAPTIONS=NONE,PATHWAY-ID=\"{edge}\",STABLE-VARIANT-ID=\"v720\"\n{}\n\
                 #EXT-X-STREAM-INF:BANDWIDTH=928000,AVERAGE-BANDWIDTH=464000,CODECS=\"avc1.64001e,mp4a.40.2\",RESOLUTION=640x360,\
                 FRAME-RATE=25.000,AUDIO=\"audio.{edge}\",CLOSED-CAPTIONS=NONE,PATHWAY-ID=\"{edge}\",STABLE-VARIANT-ID=\"v360\"\n{}\n",
                url("a1/playlist.m3u8"),
                url("v720/playlist.m3u8"),
                url("v360/playlist.m3u8"),
            )
        };
        let head = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n\
                    #EXT-X-CONTENT-STEERING:SERVER-URI=\"https://control/steering/s\",PATHWAY-ID=\"e1\"\n";
        assert_eq!(text, format!("{head}{}{}", of("e1"), of("e2")));
    }

    #[test]
    fn silent_films_have_no_audio_and_tracks_of_one_language_have_names_of_their_own() {
        let mut rig = Rig::new(&["e1"]);
        let track = rig.entry.renditions.pop().unwrap();
        let text = multivariant(&rig.entry.renditions, &rig.pathways(), "s").unwrap();
        assert!(!text.contains("AUDIO") && text.contains("CODECS=\"avc1.64001f\""), "{text}");
        rig.entry.renditions.extend([track.clone(), Rendition { id: "a 2".into(), ..track }]);
        let text = multivariant(&rig.entry.renditions, &rig.pathways(), "s").unwrap();
        assert!(text.contains("NAME=\"Audio\"") && text.contains("NAME=\"Audio (a 2)\""), "{text}");
        assert_eq!(text.matches("STABLE-RENDITION-ID").count(), 1, "an id with a blank is not one");
    }
}
