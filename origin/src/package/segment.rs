//! What an encoder made, measured: times, durations, codecs and bitrates are read from the segments themselves, and
//! nothing is taken from what was asked for.

use std::io::{self, Cursor};

use mp4_atom::{Atom, Codec, Header, Moof, Moov, ReadAtom, ReadFrom, Trun};

use super::{SEGMENT_S, ladder::FrameRate};

/// A segment or initialisation segment larger than this is not one.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 256 << 20;
/// `sample_is_non_sync_sample` (ISO/IEC 14496-12 §8.8.3.1).
const NON_SYNC: u32 = 0x0001_0000;

/// Segments that do not hold what they must: the encoder's fault, or ours.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// Not MP4, or not of the kind that is wanted.
    #[error("{path} is not a proper segment: {reason}")]
    Malformed { path: String, reason: String },
    /// It does not follow the one before, or begins away from its place on the four-second grid.
    #[error("{path} begins at {found_s:.3} s instead of {wanted_s:.3} s")]
    OffGrid { path: String, found_s: f64, wanted_s: f64 },
    /// Two renditions cannot be switched between.
    #[error("the segments of {first} and {second} do not begin at the same times")]
    Unaligned { first: String, second: String },
}

/// What an initialisation segment says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Track {
    /// Units of time per second.
    pub(crate) timescale: u32,
    /// RFC 6381.
    pub(crate) codecs: String,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Video { width: u32, height: u32 },
    Audio { channels: u32, sample_rate: u32 },
}

/// A media segment's place in time, in units of its track's timescale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Measured {
    /// Relative to the title's root.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// When its first frame is shown or heard.
    pub(crate) start: u64,
    pub(crate) duration: u64,
    /// A decoder can begin here.
    pub(crate) independent: bool,
}

/// A rendition with its segments.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MeasuredRendition {
    pub(crate) id: String,
    pub(crate) track: Track,
    /// The language, and what the source calls it; `None` for video.
    pub(crate) audio: Option<(String, Option<String>)>,
    /// `None` for audio.
    pub(crate) frame_rate: Option<FrameRate>,
    pub(crate) segments: Vec<Measured>,
}

impl MeasuredRendition {
    pub(crate) fn end(&self) -> u64 {
        self.segments.last().map_or(0, |segment| segment.start + segment.duration)
    }

    pub(crate) fn end_s(&self) -> f64 {
        self.seconds(self.end())
    }

    pub(crate) fn seconds(&self, units: u64) -> f64 {
        units as f64 / f64::from(self.track.timescale)
    }

    pub(crate) fn milliseconds(&self, units: u64) -> u64 {
        (self.seconds(units) * 1000.0).round() as u64
    }

    /// Mean bits per second over all segments.
    pub(crate) fn bits_per_second_mean(&self) -> u64 {
        bits_per_second(self.segments.iter().map(|segment| segment.bytes).sum(), self.end_s())
    }

    /// RFC 8216 §4.1: "the peak segment bit rate of a Media Playlist is the largest bit rate of any contiguous set of
    /// segments whose total duration is between 0.5 and 1.5 times the target duration".
    pub(crate) fn bits_per_second_peak(&self) -> u64 {
        let target = f64::from(SEGMENT_S);
        let runs = (0..self.segments.len()).flat_map(|first| {
            self.segments[first..].iter().scan((0, 0), |(bytes, duration), segment| {
                *bytes += segment.bytes;
                *duration += segment.duration;
                Some((*bytes, self.seconds(*duration))).filter(|(_, seconds)| *seconds <= 1.5 * target)
            })
        });
        let peak = runs.filter(|(_, seconds)| *seconds >= 0.5 * target).map(|(bytes, seconds)| bits_per_second(bytes, seconds));
        peak.max().unwrap_or(0).max(self.bits_per_second_mean())
    }

    /// Checks that segments follow each other without a gap, and that each begins less than a frame after its multiple of
    /// [`SEGMENT_S`].
    pub(crate) fn check_grid(&self) -> Result<(), SegmentError> {
        let frame_s = match (self.frame_rate, self.track.kind) {
            (Some(rate), _) => 1.0 / rate.per_second(),
            (None, Kind::Audio { sample_rate, .. }) => 1024.0 / f64::from(sample_rate),
            (None, Kind::Video { .. }) => 0.0,
        };
        let mut end = 0;
        for (n, segment) in self.segments.iter().enumerate() {
            let late_s = self.seconds(segment.start) - n as f64 * f64::from(SEGMENT_S);
            if segment.start != end || late_s < -1e-6 || late_s > frame_s + 1e-6 {
                let (found_s, wanted_s) = (self.seconds(segment.start), self.seconds(end));
                return Err(SegmentError::OffGrid { path: segment.path.clone(), found_s, wanted_s });
            }
            if !segment.independent {
                let reason = "it does not begin with a key frame".to_owned();
                return Err(SegmentError::Malformed { path: segment.path.clone(), reason });
            }
            end += segment.duration;
        }
        Ok(())
    }

    /// Checks that a player can switch between this rendition and `other` at any segment.
    pub(crate) fn check_aligned(&self, other: &Self) -> Result<(), SegmentError> {
        let times = |rendition: &Self| rendition.segments.iter().map(|s| (s.start, s.duration)).collect::<Vec<_>>();
        if self.track.timescale != other.track.timescale || times(self) != times(other) {
            return Err(SegmentError::Unaligned { first: self.id.clone(), second: other.id.clone() });
        }
        Ok(())
    }
}

fn bits_per_second(bytes: u64, seconds: f64) -> u64 {
    (bytes as f64 * 8.0 / seconds.max(1e-3)).ceil() as u64
}

/// Reads an initialisation segment.
pub(crate) fn track(path: &str, bytes: &[u8]) -> Result<Track, SegmentError> {
    let malformed = |reason: &dyn std::fmt::Display| SegmentError::Malformed { path: path.into(), reason: reason.to_string() };
    let moov: Moov = atoms(bytes, |header, bytes| match header.kind {
        Moov::KIND => Some(Moov::read_atom(header, bytes)),
        _ => None,
    })
    .map_err(|error| malformed(&error))?
    .pop()
    .ok_or_else(|| malformed(&"it has no moov box"))?;
    let [trak] = moov.trak.as_slice() else { return Err(malformed(&"it has not exactly one track")) };
    let [codec] = trak.mdia.minf.stbl.stsd.codecs.as_slice() else { return Err(malformed(&"it has not exactly one codec")) };
    let (codecs, kind) = match codec {
        Codec::Avc1(avc1) => {
            let avcc = &avc1.avcc;
            let (profile, compatibility, level) =
                (avcc.avc_profile_indication, avcc.profile_compatibility, avcc.avc_level_indication);
            let kind = Kind::Video { width: avc1.visual.width.into(), height: avc1.visual.height.into() };
            (format!("avc1.{profile:02x}{compatibility:02x}{level:02x}"), kind)
        }
        Codec::Mp4a(mp4a) => {
            let decoder = &mp4a.esds.es_desc.dec_config;
            let object_type = decoder.object_type_indication;
            let specific = decoder.dec_specific.as_ref().ok_or_else(|| malformed(&"its sound is not described"))?;
            // The sample entry's own number is 2 whatever the sound has (ISO/IEC 14496-14 §5.6); 7 stands for 7.1.
            let channels = match specific.chan_conf {
                0 => mp4a.audio.channel_count.into(),
                7 => 8,
                channels => channels.into(),
            };
            let audio_type = specific.profile;
            let kind = Kind::Audio { channels, sample_rate: u32::from(mp4a.audio.sample_rate.integer()) };
            (format!("mp4a.{object_type:02x}.{audio_type}"), kind)
        }
        other => return Err(malformed(&format_args!("its codec is neither H.264 nor AAC: {other:?}"))),
    };
    match trak.mdia.mdhd.timescale {
        0 => Err(malformed(&"its timescale is zero")),
        timescale => Ok(Track { timescale, codecs, kind }),
    }
}

/// Measures a media segment of one track.
pub(crate) fn measure(path: &str, bytes: &[u8]) -> Result<Measured, SegmentError> {
    let malformed = |reason: &dyn std::fmt::Display| SegmentError::Malformed { path: path.into(), reason: reason.to_string() };
    let fragments: Vec<Moof> = atoms(bytes, |header, bytes| match header.kind {
        Moof::KIND => Some(Moof::read_atom(header, bytes)),
        _ => None,
    })
    .map_err(|error| malformed(&error))?;
    let mut times: Option<Times> = None;
    for fragment in &fragments {
        let [traf] = fragment.traf.as_slice() else { return Err(malformed(&"a fragment has not exactly one track")) };
        let tfdt = traf.tfdt.as_ref().ok_or_else(|| malformed(&"a fragment has no tfdt box"))?;
        let begin = tfdt.base_media_decode_time;
        let times = times.get_or_insert(Times { start: i128::MAX, decode: begin, end: begin, independent: None });
        if begin != times.end {
            return Err(malformed(&"its fragments do not follow each other"));
        }
        times.add(&traf.trun, traf.tfhd.default_sample_duration.unwrap_or(0), traf.tfhd.default_sample_flags.unwrap_or(0));
    }
    let times = times.ok_or_else(|| malformed(&"it has no moof box"))?;
    let start = u64::try_from(times.start).map_err(|_| malformed(&"it has no samples, or begins before zero"))?;
    Ok(Measured {
        path: path.to_owned(),
        bytes: bytes.len() as u64,
        start,
        duration: times.end - times.decode,
        independent: times.independent == Some(true),
    })
}

/// Times of the samples seen so far.
struct Times {
    /// Earliest presentation.
    start: i128,
    /// First and next decoding time.
    decode: u64,
    end: u64,
    /// Whether the first sample is a key frame.
    independent: Option<bool>,
}

impl Times {
    fn add(&mut self, runs: &[Trun], default_duration: u32, default_flags: u32) {
        for sample in runs.iter().flat_map(|run| run.samples.iter()) {
            self.start = self.start.min(i128::from(self.end) + i128::from(sample.cts.unwrap_or(0)));
            self.independent.get_or_insert(sample.flags.unwrap_or(default_flags) & NON_SYNC == 0);
            self.end = self.end.saturating_add(sample.duration.unwrap_or(default_duration).into());
        }
    }
}

/// The top-level boxes of `bytes` that `read` wants; others are skipped. Boxes that end elsewhere than they say are an error.
fn atoms<T>(
    bytes: &[u8],
    mut read: impl FnMut(&Header, &mut Cursor<&[u8]>) -> Option<mp4_atom::Result<T>>,
) -> mp4_atom::Result<Vec<T>> {
    let mut wanted = Vec::new();
    let mut rest = Cursor::new(bytes);
    while let Some(header) = Option::<Header>::read_from(&mut rest)? {
        let end = header.size.and_then(|size| rest.position().checked_add(size as u64)).unwrap_or(bytes.len() as u64);
        if end > bytes.len() as u64 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        wanted.extend(read(&header, &mut rest).transpose()?);
        rest.set_position(end);
    }
    Ok(wanted)
}
