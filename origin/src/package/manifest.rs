//! One set of segments in two descriptions: HLS playlists (RFC 8216) and a DASH manifest (ISO/IEC 23009-1). Both are
//! written from what was measured, with relative addresses only, so that a token in the path is inherited.

use std::{
    collections::HashSet,
    io::{self, Write},
};

use m3u8_rs::{
    AlternativeMedia, AlternativeMediaType, ClosedCaptionGroupId, Map, MasterPlaylist, MediaPlaylist, MediaPlaylistType,
    MediaSegment, Resolution, VariantStream,
};
use quick_xml::{
    Writer,
    events::{BytesDecl, Event},
};

use super::{
    INIT, PLAYLIST, SEGMENT_S,
    segment::{Kind, MeasuredRendition},
};

/// `EXT-X-MAP` outside of an I-frame playlist needs version 6; 7 is what CMAF players expect.
const HLS_VERSION: usize = 7;
const AUDIO_GROUP: &str = "audio";

/// The multivariant playlist: every video rendition with the group of all audio renditions.
pub(crate) fn multivariant(renditions: &[MeasuredRendition]) -> Vec<u8> {
    let (video, audio) = split(renditions);
    let peak_of_audio = audio.iter().map(|r| r.bits_per_second_peak()).max().unwrap_or(0);
    let mean_of_audio = audio.iter().map(|r| r.bits_per_second_mean()).max().unwrap_or(0);
    let mut audio_codecs: Vec<_> = audio.iter().map(|r| r.track.codecs.as_str()).collect();
    audio_codecs.sort_unstable();
    audio_codecs.dedup();

    let variants = video.iter().map(|rendition| {
        let codecs: Vec<_> = std::iter::once(rendition.track.codecs.as_str()).chain(audio_codecs.iter().copied()).collect();
        VariantStream {
            uri: format!("{}/{PLAYLIST}", rendition.id),
            bandwidth: rendition.bits_per_second_peak() + peak_of_audio,
            average_bandwidth: Some(rendition.bits_per_second_mean() + mean_of_audio),
            codecs: Some(codecs.join(",")),
            resolution: match rendition.track.kind {
                Kind::Video { width, height } => Some(Resolution { width: width.into(), height: height.into() }),
                Kind::Audio { .. } => None,
            },
            // RFC 8216 §4.3.4.2: "rounded to three decimal places".
            frame_rate: rendition.frame_rate.map(|rate| (rate.per_second() * 1000.0).round() / 1000.0),
            audio: (!audio.is_empty()).then(|| AUDIO_GROUP.to_owned()),
            closed_captions: Some(ClosedCaptionGroupId::None),
            ..VariantStream::default()
        }
    });
    let playlist = MasterPlaylist {
        version: Some(HLS_VERSION),
        independent_segments: true,
        alternatives: alternatives(&audio),
        variants: variants.collect(),
        ..MasterPlaylist::default()
    };
    written(|out| playlist.write_to(out))
}

fn alternatives(audio: &[&MeasuredRendition]) -> Vec<AlternativeMedia> {
    let mut names = HashSet::new();
    let mut alternatives = Vec::new();
    for rendition in audio {
        let Some((language, name)) = &rendition.audio else { continue };
        // RFC 8216 §4.2: a quoted string has no quotes and no line ends in it; §4.3.4.1.1: names in a group differ.
        let unnamed = if language == "und" { "Audio" } else { language };
        let mut name: String = name.as_deref().unwrap_or(unnamed).chars().filter(|c| *c != '"' && !c.is_control()).collect();
        if name.is_empty() || names.contains(&name) {
            name = format!("{name} ({})", rendition.id);
        }
        names.insert(name.clone());
        alternatives.push(AlternativeMedia {
            media_type: AlternativeMediaType::Audio,
            uri: Some(format!("{}/{PLAYLIST}", rendition.id)),
            group_id: AUDIO_GROUP.to_owned(),
            language: (language != "und").then(|| language.clone()),
            name,
            default: alternatives.is_empty(),
            autoselect: true,
            channels: match rendition.track.kind {
                Kind::Audio { channels, .. } => Some(channels.to_string()),
                Kind::Video { .. } => None,
            },
            ..AlternativeMedia::default()
        });
    }
    alternatives
}

/// The media playlist of one rendition.
pub(crate) fn media(rendition: &MeasuredRendition) -> Vec<u8> {
    let mut segments: Vec<_> = rendition
        .segments
        .iter()
        .map(|segment| MediaSegment {
            uri: file_name(&segment.path).to_owned(),
            duration: rendition.seconds(segment.duration) as f32,
            ..MediaSegment::default()
        })
        .collect();
    if let Some(first) = segments.first_mut() {
        first.map = Some(Map { uri: INIT.to_owned(), ..Map::default() });
    }
    // RFC 8216 §4.3.3.1: no segment is longer than the target when both are rounded to whole seconds.
    let longest_s = segments.iter().map(|segment| segment.duration.round() as u64).max();
    let playlist = MediaPlaylist {
        version: Some(HLS_VERSION),
        target_duration: longest_s.unwrap_or(0).max(u64::from(SEGMENT_S)),
        media_sequence: 1,
        independent_segments: true,
        playlist_type: Some(MediaPlaylistType::Vod),
        end_list: true,
        segments,
        ..MediaPlaylist::default()
    };
    written(|out| playlist.write_to(out))
}

/// The DASH manifest. Renditions of the same kind are aligned, so an adaptation set has one timeline for all of them.
pub(crate) fn dash(renditions: &[MeasuredRendition]) -> Vec<u8> {
    let (video, audio) = split(renditions);
    let duration_s = renditions.iter().map(MeasuredRendition::end_s).fold(0.0, f64::max);
    written(|out| {
        let mut xml = Writer::new_with_indent(out, b' ', 2);
        xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        xml.create_element("MPD")
            .with_attributes([
                ("xmlns", "urn:mpeg:dash:schema:mpd:2011"),
                ("profiles", "urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019"),
                ("type", "static"),
                ("mediaPresentationDuration", &format!("PT{duration_s:.3}S")),
                ("minBufferTime", &format!("PT{SEGMENT_S}S")),
            ])
            .write_inner_content(|xml| {
                xml.create_element("Period").with_attributes([("id", "1"), ("start", "PT0S")]).write_inner_content(|xml| {
                    adaptation_set(xml, &video)?;
                    audio.iter().try_for_each(|rendition| adaptation_set(xml, &[rendition]))
                })?;
                Ok(())
            })?;
        Ok(())
    })
}

fn adaptation_set<W: Write>(xml: &mut Writer<W>, renditions: &[&MeasuredRendition]) -> io::Result<()> {
    let Some(first) = renditions.first() else { return Ok(()) };
    let (content, mime) = match first.track.kind {
        Kind::Video { .. } => ("video", "video/mp4"),
        Kind::Audio { .. } => ("audio", "audio/mp4"),
    };
    let mut set = xml.create_element("AdaptationSet").with_attributes([
        ("contentType", content),
        ("mimeType", mime),
        ("segmentAlignment", "true"),
        ("startWithSAP", "1"),
    ]);
    if let Some((language, _)) = &first.audio {
        set = set.with_attribute(("lang", language.as_str()));
    }
    set.write_inner_content(|xml| {
        if let Some((_, Some(name))) = &first.audio {
            xml.create_element("Label").write_text_content(quick_xml::events::BytesText::new(name))?;
        }
        timeline(xml, first)?;
        renditions.iter().try_for_each(|rendition| representation(xml, rendition))
    })?;
    Ok(())
}

fn timeline<W: Write>(xml: &mut Writer<W>, rendition: &MeasuredRendition) -> io::Result<()> {
    xml.create_element("SegmentTemplate")
        .with_attributes([
            ("timescale", rendition.track.timescale.to_string().as_str()),
            ("initialization", &format!("$RepresentationID$/{INIT}")),
            ("media", "$RepresentationID$/$Number%05d$.m4s"),
            ("startNumber", "1"),
        ])
        .write_inner_content(|xml| {
            xml.create_element("SegmentTimeline").write_inner_content(|xml| {
                for run in rendition.segments.chunk_by(|a, b| a.duration == b.duration) {
                    let mut s = xml.create_element("S");
                    if run[0].start == rendition.segments[0].start {
                        s = s.with_attribute(("t", run[0].start.to_string().as_str()));
                    }
                    s = s.with_attribute(("d", run[0].duration.to_string().as_str()));
                    if run.len() > 1 {
                        s = s.with_attribute(("r", (run.len() - 1).to_string().as_str()));
                    }
                    s.write_empty()?;
                }
                Ok(())
            })?;
            Ok(())
        })?;
    Ok(())
}

fn representation<W: Write>(xml: &mut Writer<W>, rendition: &MeasuredRendition) -> io::Result<()> {
    let bandwidth = rendition.bits_per_second_peak().to_string();
    let element = xml.create_element("Representation").with_attributes([
        ("id", rendition.id.as_str()),
        ("bandwidth", &bandwidth),
        ("codecs", &rendition.track.codecs),
    ]);
    match rendition.track.kind {
        Kind::Video { width, height } => {
            let mut element =
                element.with_attributes([("width", width.to_string().as_str()), ("height", &height.to_string()), ("sar", "1:1")]);
            if let Some(rate) = rendition.frame_rate {
                element = element.with_attribute(("frameRate", rate.to_string().as_str()));
            }
            element.write_empty()?;
        }
        Kind::Audio { channels, sample_rate } => {
            element.with_attribute(("audioSamplingRate", sample_rate.to_string().as_str())).write_inner_content(|xml| {
                xml.create_element("AudioChannelConfiguration")
                    .with_attributes([
                        ("schemeIdUri", "urn:mpeg:dash:23003:3:audio_channel_configuration:2011"),
                        ("value", channels.to_string().as_str()),
                    ])
                    .write_empty()?;
                Ok(())
            })?;
        }
    }
    Ok(())
}

fn split(renditions: &[MeasuredRendition]) -> (Vec<&MeasuredRendition>, Vec<&MeasuredRendition>) {
    renditions.iter().partition(|rendition| matches!(rendition.track.kind, Kind::Video { .. }))
}

fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out).expect("memory takes every write");
    if !out.ends_with(b"\n") {
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::{
        ladder::FrameRate,
        segment::{Measured, Track},
    };

    fn rendition(id: &str, kind: Kind, durations: &[u64], bytes: u64) -> MeasuredRendition {
        let mut start = 0;
        let segments = durations.iter().enumerate().map(|(n, duration)| {
            let segment =
                Measured { path: format!("{id}/{:05}.m4s", n + 1), bytes, start, duration: *duration, independent: true };
            start += duration;
            segment
        });
        let video = matches!(kind, Kind::Video { .. });
        MeasuredRendition {
            id: id.into(),
            segments: segments.collect(),
            track: Track { timescale: 30_000, codecs: if video { "avc1.64001f" } else { "mp4a.40.2" }.into(), kind },
            audio: (!video).then(|| ("de".into(), Some("Ton \"1\" & <2>".into()))),
            frame_rate: video.then(|| FrameRate::new(30_000, 1001)),
        }
    }

    fn title() -> Vec<MeasuredRendition> {
        let durations = [120_120, 120_120, 119_119, 15_015];
        let audio = Kind::Audio { channels: 2, sample_rate: 48_000 };
        vec![
            rendition("v720", Kind::Video { width: 1280, height: 720 }, &durations, 1_000_000),
            rendition("a1", audio, &[120_000, 120_000, 120_000, 15_000], 64_000),
            rendition("a2", audio, &[120_000], 64_000),
        ]
    }

    #[test]
    fn playlists_say_what_was_measured() {
        let title = title();
        // 1 MB in 3.97 s is the densest segment; the short last one counts only together with the one before it.
        let peak = (2_000_000.0f64 * 8.0 / ((119_119.0 + 15_015.0) / 30_000.0)).ceil() as u64;
        assert_eq!(title[0].bits_per_second_peak(), peak);
        let multivariant = String::from_utf8(multivariant(&title)).unwrap();
        assert_eq!(
            multivariant,
            format!(
                "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n\
                #EXT-X-MEDIA:TYPE=AUDIO,URI=\"a1/playlist.m3u8\",GROUP-ID=\"audio\",LANGUAGE=\"de\",NAME=\"Ton 1 & <2>\",\
                DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\"\n\
                #EXT-X-MEDIA:TYPE=AUDIO,URI=\"a2/playlist.m3u8\",GROUP-ID=\"audio\",LANGUAGE=\"de\",NAME=\"Ton 1 & <2> (a2)\",\
                AUTOSELECT=YES,CHANNELS=\"2\"\n\
                #EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={},CODECS=\"avc1.64001f,mp4a.40.2\",RESOLUTION=1280x720,\
                FRAME-RATE=29.97,AUDIO=\"audio\",CLOSED-CAPTIONS=NONE\nv720/playlist.m3u8\n",
                title[0].bits_per_second_peak() + title[1].bits_per_second_peak(),
                title[0].bits_per_second_mean() + title[1].bits_per_second_mean(),
            )
        );
        assert_eq!(
            String::from_utf8(media(&title[0])).unwrap(),
            "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:1\n\
            #EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:4.004,\n00001.m4s\n#EXTINF:4.004,\n00002.m4s\n\
            #EXTINF:3.9706333,\n00003.m4s\n#EXTINF:0.5005,\n00004.m4s\n#EXT-X-ENDLIST\n"
        );
    }

    #[test]
    fn the_dash_manifest_has_the_same_times() {
        let dash = String::from_utf8(dash(&title())).unwrap();
        for line in [
            "mediaPresentationDuration=\"PT12.500S\"",
            "<S t=\"0\" d=\"120120\" r=\"1\"/>",
            "<S d=\"119119\"/>",
            "<AdaptationSet contentType=\"audio\" mimeType=\"audio/mp4\" segmentAlignment=\"true\" startWithSAP=\"1\" lang=\"de\">",
            "<Label>Ton &quot;1&quot; &amp; &lt;2&gt;</Label>",
            "codecs=\"avc1.64001f\" width=\"1280\" height=\"720\" sar=\"1:1\" frameRate=\"30000/1001\"/>",
            "<AudioChannelConfiguration schemeIdUri=\"urn:mpeg:dash:23003:3:audio_channel_configuration:2011\" value=\"2\"/>",
        ] {
            assert!(dash.contains(line), "{line} is not in\n{dash}");
        }
    }

    #[test]
    fn silent_films_have_no_audio_group() {
        let text = String::from_utf8(multivariant(&title()[..1])).unwrap();
        assert!(text.contains("CODECS=\"avc1.64001f\"") && !text.contains("AUDIO"), "{text}");
    }
}
