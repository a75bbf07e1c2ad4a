//! The DASH manifest of a session (ISO/IEC 23009-1, ETSI TS 103 998): the title's timeline as it is catalogued, a base URL for each service
//! location, and where to ask for their order.
//!
//! What is the same for all sessions of a title, its period, is made once. Titles whose segments are not numbered have none: HLS is what they
//! are steered by.

use std::fmt::{self, Write as _};

use wire::{
    object::PathError,
    title::{Media, Rendition, Segment},
};

use super::Pathway;
use crate::fleet::files::Numbered;

/// Times are milliseconds, as they are catalogued.
const TIMESCALE: u32 = 1000;

/// The period of a title: `tracks` are its renditions in their order, with their segments. None if segments are not numbered.
pub(crate) fn period(tracks: &[(&Rendition, Vec<Segment>)]) -> Option<String> {
    let templates: Vec<_> = tracks.iter().map(|(rendition, segments)| template(rendition, segments)).collect::<Option<_>>()?;
    let mut text = String::from("  <Period id=\"1\" start=\"PT0S\">\n");
    let with_templates = tracks.iter().zip(&templates);
    let (video, audio): (Vec<_>, Vec<_>) =
        with_templates.partition(|((rendition, _), _)| matches!(rendition.media, Media::Video { .. }));
    adaptation_set(&mut text, &video);
    for track in audio {
        adaptation_set(&mut text, &[track]);
    }
    text.push_str("  </Period>\n");
    Some(text)
}

type Track<'a> = (&'a (&'a Rendition, Vec<Segment>), &'a String);

fn adaptation_set(text: &mut String, tracks: &[Track<'_>]) {
    let Some(((first, _), _)) = tracks.first() else { return };
    let (content, language) = match &first.media {
        Media::Video { .. } => ("video", None),
        Media::Audio { language, .. } => ("audio", Some(language)),
    };
    add(
        text,
        format_args!(
            "    <AdaptationSet contentType=\"{content}\" mimeType=\"{content}/mp4\" segmentAlignment=\"true\" startWithSAP=\"1\""
        ),
    );
    if let Some(language) = language {
        add(text, format_args!(" lang=\"{}\"", Escaped(language)));
    }
    text.push_str(">\n");
    for ((rendition, _), template) in tracks {
        representation(text, rendition, template);
    }
    text.push_str("    </AdaptationSet>\n");
}

fn representation(text: &mut String, rendition: &Rendition, template: &str) {
    add(
        text,
        format_args!(
            "      <Representation id=\"{}\" bandwidth=\"{}\" codecs=\"{}\"",
            Escaped(&rendition.id),
            rendition.bits_per_second_peak,
            Escaped(&rendition.codecs)
        ),
    );
    match &rendition.media {
        Media::Video { width, height, frame_rate } => {
            add(text, format_args!(" width=\"{width}\" height=\"{height}\" sar=\"1:1\" frameRate=\"{}\">\n", Ratio(*frame_rate)));
        }
        Media::Audio { channels, sample_rate, .. } => {
            add(text, format_args!(" audioSamplingRate=\"{sample_rate}\">\n"));
            let scheme = "urn:mpeg:dash:23003:3:audio_channel_configuration:2011";
            add(text, format_args!("        <AudioChannelConfiguration schemeIdUri=\"{scheme}\" value=\"{channels}\"/>\n"));
        }
    }
    text.push_str(template);
    text.push_str("      </Representation>\n");
}

/// The segments of a rendition, if they are numbered.
fn template(rendition: &Rendition, segments: &[Segment]) -> Option<String> {
    let (first, last) = (segments.first()?, segments.last()?);
    let numbered = Numbered::of(&first.path, &last.path, segments.len() as u64)?;
    let are_numbered = (numbered.first..).zip(segments).all(|(number, segment)| numbered.path(number) == segment.path);
    // A dollar in a template begins an identifier (ISO/IEC 23009-1 §5.3.9.4.4).
    let media = format!("{}$Number%0{}d${}", numbered.before, numbered.digits, numbered.after);
    if !are_numbered || media.matches('$').count() != 2 || rendition.init.contains('$') {
        return None;
    }
    let mut text = format!(
        "        <SegmentTemplate timescale=\"{TIMESCALE}\" initialization=\"{}\" media=\"{}\" startNumber=\"{}\">\n          <SegmentTimeline>\n",
        Escaped(&rendition.init),
        Escaped(&media),
        numbered.first
    );
    let mut expected_ms = None;
    for run in runs(segments) {
        text.push_str("            <S");
        if expected_ms != Some(run[0].start_ms) {
            add(&mut text, format_args!(" t=\"{}\"", run[0].start_ms));
        }
        add(&mut text, format_args!(" d=\"{}\"", run[0].duration_ms));
        if run.len() > 1 {
            add(&mut text, format_args!(" r=\"{}\"", run.len() - 1));
        }
        text.push_str("/>\n");
        expected_ms = run.last().map(|segment| segment.start_ms + segment.duration_ms);
    }
    text.push_str("          </SegmentTimeline>\n        </SegmentTemplate>\n");
    Some(text)
}

/// Segments of one length that follow each other without a gap.
fn runs(segments: &[Segment]) -> impl Iterator<Item = &[Segment]> {
    segments.chunk_by(|a, b| a.duration_ms == b.duration_ms && a.start_ms + a.duration_ms == b.start_ms)
}

/// The manifest of a session: `period` on these pathways, of which there is at least one.
pub(crate) fn manifest(
    period: &str,
    duration_ms: u64,
    pathways: &[Pathway<'_>],
    steering_url: &str,
) -> Result<String, PathError> {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    add(
        &mut text,
        format_args!(
            "<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" profiles=\"urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019\" \
             type=\"static\" mediaPresentationDuration=\"PT{}.{:03}S\" minBufferTime=\"PT4S\">\n",
            duration_ms / 1000,
            duration_ms % 1000
        ),
    );
    for pathway in pathways {
        let url = pathway.pass.folder(pathway.base);
        add(&mut text, format_args!("  <BaseURL serviceLocation=\"{}\">{}</BaseURL>\n", pathway.id, Escaped(&url)));
    }
    let first = pathways.first().map_or("", |pathway| pathway.id.as_str());
    add(
        &mut text,
        format_args!(
            "  <ContentSteering defaultServiceLocation=\"{first}\" queryBeforeStart=\"false\">{}</ContentSteering>\n",
            Escaped(steering_url)
        ),
    );
    text.push_str(period);
    text.push_str("</MPD>\n");
    Ok(text)
}

fn add(text: &mut String, more: fmt::Arguments<'_>) {
    text.write_fmt(more).expect("a String takes all");
}

/// Text as it may stand in an element or in an attribute with double quotes.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().filter(|c| !c.is_control()).try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            c => f.write_char(c),
        })
    }
}

/// A frame rate as DASH writes it: a whole number, or a fraction of thousandths.
struct Ratio(f64);

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.round();
        if (self.0 - whole).abs() < 1e-9 {
            return write!(f, "{whole}");
        }
        // Of television: 24000/1001, 30000/1001, 60000/1001.
        let of_television = (self.0 * 1.001).round();
        if (self.0 * 1.001 - of_television).abs() < 1e-3 {
            return write!(f, "{}/1001", of_television * 1000.0);
        }
        write!(f, "{}/1000", (self.0 * 1000.0).round())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::Rig, *};

    fn segments(rendition: &str, durations: &[u64]) -> Vec<Segment> {
        let mut start_ms = 0;
        let segment = |(n, duration_ms): (usize, &u64)| {
            let segment = Segment { path: format!("{rendition}/{:05}.m4s", n + 1), start_ms, duration_ms: *duration_ms };
            start_ms += duration_ms;
            segment
        };
        durations.iter().enumerate().map(segment).collect()
    }

    fn tracks<'a>(rig: &'a Rig, durations: &[u64]) -> Vec<(&'a Rendition, Vec<Segment>)> {
        rig.entry.renditions.iter().map(|rendition| (rendition, segments(&rendition.id, durations))).collect()
    }

    #[test]
    fn the_manifest_has_each_location_and_the_titles_timeline() {
        let rig = Rig::new(&["e1", "e2"]);
        let period = period(&tracks(&rig, &[4004, 4004, 3971, 500])).unwrap();
        let text = manifest(&period, 12_479, &rig.pathways(), "https://control/steering/s?a&b").unwrap();
        for part in [
            "mediaPresentationDuration=\"PT12.479S\"",
            &format!(
                "  <BaseURL serviceLocation=\"e1\">{}</BaseURL>\n  <BaseURL serviceLocation=\"e2\">{}</BaseURL>\n",
                rig.folder("e1"),
                rig.folder("e2")
            ),
            "<ContentSteering defaultServiceLocation=\"e1\" queryBeforeStart=\"false\">https://control/steering/s?a&amp;b</ContentSteering>",
            "<AdaptationSet contentType=\"video\" mimeType=\"video/mp4\" segmentAlignment=\"true\" startWithSAP=\"1\">\n      <Representation id=\"v720\" \
             bandwidth=\"3000000\" codecs=\"avc1.64001f\" width=\"1280\" height=\"720\" sar=\"1:1\" frameRate=\"25\">",
            "initialization=\"v720/init.mp4\" media=\"v720/$Number%05d$.m4s\" startNumber=\"1\">",
            "<S t=\"0\" d=\"4004\" r=\"1\"/>\n            <S d=\"3971\"/>\n            <S d=\"500\"/>",
            "lang=\"und\">\n      <Representation id=\"a1\" bandwidth=\"128000\" codecs=\"mp4a.40.2\" audioSamplingRate=\"48000\">",
        ] {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
        assert_eq!(text.matches("<AdaptationSet").count(), 2);
    }

    #[test]
    fn a_gap_is_told_and_other_names_are_not_guessed() {
        let rig = Rig::new(&["e1"]);
        let mut gap = segments("v720", &[4000, 4000, 4000]);
        gap[2].start_ms += 1;
        assert!(
            template(&rig.entry.renditions[0], &gap)
                .unwrap()
                .contains("<S t=\"0\" d=\"4000\" r=\"1\"/>\n            <S t=\"8001\" d=\"4000\"/>")
        );
        for spoil in [|path: &mut String| path.push_str(".x"), |path: &mut String| path.insert(0, '$')] {
            let mut spoilt = segments("v720", &[4000, 4000, 4000]);
            spoil(&mut spoilt[1].path);
            assert_eq!(template(&rig.entry.renditions[0], &spoilt), None);
        }
        let mut dollars = segments("v$720", &[4000, 4000]);
        assert_eq!(template(&rig.entry.renditions[0], &dollars), None);
        dollars.clear();
        assert_eq!(period(&[(&rig.entry.renditions[0], dollars)]), None);
    }

    #[test]
    fn frame_rates_are_fractions_where_they_must_be() {
        for (rate, text) in
            [(25.0, "25"), (30_000.0 / 1001.0, "30000/1001"), (23.976, "24000/1001"), (59.94, "60000/1001"), (12.5, "12500/1000")]
        {
            assert_eq!(Ratio(rate).to_string(), text);
        }
        assert_eq!(Escaped("a<b>&\"c\"\u{7}").to_string(), "a&lt;b&gt;&amp;&quot;c&quot;");
    }
}
