//! Packaging: a source file becomes renditions, playlists and pictures in a folder. It knows no store and no catalogue.
//!
//! `probe` (what is in it) → `ladder` (what to make of it) → `encode` → `segment` (what was really made) → `manifest`,
//! `thumbnail`. Nothing is described that was not measured, and what does not fit together is an error.

mod encode;
mod ladder;
mod language;
mod manifest;
mod probe;
mod segment;
mod thumbnail;
mod tool;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use wire::title::{Media, Rendition, Segment};

pub use segment::SegmentError;
#[cfg(test)]
pub(crate) use tool::Tool;
pub use tool::ToolError;
pub(crate) use tool::{Arguments, Tools};

use ladder::Rung;
use probe::{AudioTrack, Source};
use segment::{Kind, MeasuredRendition};

/// Part of every fingerprint: packages made with other settings are made again. Raise it when they would differ.
pub(crate) const SETTINGS_VERSION: u32 = 1;
/// Length of a segment, in seconds.
const SEGMENT_S: u32 = 4;
/// Names in every rendition's folder.
const INIT: &str = "init.mp4";
const PLAYLIST: &str = "playlist.m3u8";
pub(crate) const MULTIVARIANT: &str = "master.m3u8";
pub(crate) const DASH: &str = "manifest.mpd";
pub(crate) use thumbnail::{POSTER, STORYBOARD};

/// A source whose decoded length falls short of the announced one by more than this, or by more than
/// [`CUT_OFF_FRACTION`] of it, is cut off.
const CUT_OFF_S: f64 = 1.0;
const CUT_OFF_FRACTION: f64 = 0.02;
/// What ffprobe says of an MP4 file that ends before or within its index.
const NO_INDEX: [&str; 2] = ["moov atom not found", "End of file"];
/// An audio segment shorter than this after the picture's end holds only what the encoder appends to finish.
const AUDIO_REMAINDER_S: f64 = 0.1;

/// Why a source could not be packaged. Most are about the file; [`PackageError::Segments`] is ffmpeg's or our fault.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// Nothing that ffprobe knows; its reason.
    #[error("it is not a video that ffprobe can read: {0}")]
    NotVideo(String),
    /// Only sound, or nothing; what there is.
    #[error("it has no moving picture, only {0}")]
    NoPicture(String),
    /// Pixels, after rotation and aspect ratio.
    #[error("its picture of {width}x{height} pixels is smaller than {least}x{least}")]
    PictureTooSmall { width: u32, height: u32, least: u32 },
    /// More than anyone can want.
    #[error("it has {found} audio tracks, and {most} are the most that are packaged")]
    TooManyAudioTracks { found: usize, most: usize },
    /// An MP4 file of which the end, where the index may be, is missing.
    #[error("it is cut off: its index (the moov box) is not there or not complete")]
    NoIndex,
    /// Seconds.
    #[error("it is cut off: it announces {announced_s:.1} s, and only {found_s:.1} s of it can be decoded")]
    CutOff { announced_s: f64, found_s: f64 },
    /// The pictures in it cannot be decoded.
    #[error("ffmpeg found no picture in it for {0}")]
    NoPictures(String),
    /// ffmpeg or ffprobe is missing, was killed, or gave up.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// ffmpeg made something else than it was asked for.
    #[error("ffmpeg made what cannot be published: {0}")]
    Segments(#[from] SegmentError),
    /// A file of ours, or the source.
    #[error("cannot use {}: {reason}", path.display())]
    Io { path: PathBuf, reason: io::Error },
    /// The runtime ends.
    #[error("larder is stopping")]
    Stopped,
    /// Somebody writes to it.
    #[error("it changed while it was read; wait until it is complete")]
    Changed,
}

/// What is in a packaged folder.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) duration_ms: u64,
    /// Video, best first, then audio.
    pub(crate) renditions: Vec<Rendition>,
}

/// A source that ffprobe understood.
#[derive(Debug)]
pub(crate) struct Probed(Source);

/// Looks into `input` (absolute path).
pub(crate) async fn probe(tools: &Tools, input: &Path) -> Result<Probed, PackageError> {
    match probe::probe(&tools.ffprobe, input).await {
        Err(PackageError::NotVideo(reason)) if is_mp4(input) && NO_INDEX.iter().any(|sign| reason.contains(sign)) => {
            Err(PackageError::NoIndex)
        }
        probed => probed.map(Probed),
    }
}

/// Whether a file begins as MP4 files do.
fn is_mp4(input: &Path) -> bool {
    let mut head = [0; 8];
    let read = fs::File::open(input).and_then(|mut file| io::Read::read_exact(&mut file, &mut head));
    read.is_ok() && &head[4..] == b"ftyp"
}

/// Packages `input` into `directory`, which is empty. `progress` gets the part of the film that is encoded, 0 to 1, when
/// its length is known.
pub(crate) async fn package(
    tools: &Tools,
    input: &Path,
    Probed(source): Probed,
    directory: &Path,
    mut progress: impl FnMut(Option<f64>),
) -> Result<Package, PackageError> {
    let rungs = ladder::ladder(source.video.width, source.video.height, source.video.rate);
    let audio_ids = (0..source.audio.len()).map(encode::audio_id);
    for id in rungs.iter().map(|rung| rung.id.clone()).chain(audio_ids) {
        let folder = directory.join(id);
        fs::create_dir(&folder).map_err(io_error(&folder))?;
    }
    let announced_s = source.duration_s.or(source.video.duration_s);
    encode::encode(&tools.ffmpeg, input, &source, &rungs, directory, |done_s| {
        progress(announced_s.map(|announced_s| (done_s / announced_s).min(1.0)));
    })
    .await?;
    let renditions = blocking({
        let directory = directory.to_owned();
        move || {
            let renditions = measured(&source, &rungs, &directory)?;
            check(&source, &renditions)?;
            describe(&renditions, &directory)?;
            Ok(renditions)
        }
    })
    .await?;
    let mut video = renditions.iter().filter(|rendition| rendition.audio.is_none());
    if let Some(best) = video.next() {
        thumbnail::pictures(&tools.ffmpeg, directory, best, video.next_back().unwrap_or(best)).await?;
    }
    Ok(Package {
        duration_ms: renditions.iter().map(|rendition| rendition.milliseconds(rendition.end())).max().unwrap_or(0),
        renditions: renditions.into_iter().map(rendition).collect(),
    })
}

/// Measures all renditions. A video rendition without a frame is an error; an audio track without a sample is left out.
fn measured(source: &Source, rungs: &[Rung], directory: &Path) -> Result<Vec<MeasuredRendition>, PackageError> {
    let mut renditions = Vec::new();
    for rung in rungs {
        let mut rendition = measure(&rung.id, directory)?.ok_or_else(|| PackageError::NoPictures(rung.id.clone()))?;
        rendition.frame_rate = Some(source.video.rate);
        renditions.push(rendition);
    }
    let picture_end_s = renditions.first().map_or(0.0, MeasuredRendition::end_s);
    for (n, AudioTrack { language, name, .. }) in source.audio.iter().enumerate() {
        let id = encode::audio_id(n);
        let Some(mut rendition) = measure(&id, directory)? else {
            tracing::warn!(track = n + 1, "an audio track has no sound in it and is left out");
            fs::remove_dir_all(directory.join(&id)).map_err(io_error(directory))?;
            continue;
        };
        let is_remainder = rendition.segments.last().is_some_and(|last| {
            rendition.seconds(last.start) >= picture_end_s && rendition.seconds(last.duration) < AUDIO_REMAINDER_S
        });
        if is_remainder
            && rendition.segments.len() > 1
            && let Some(last) = rendition.segments.pop()
        {
            let file = directory.join(&last.path);
            fs::remove_file(&file).map_err(io_error(&file))?;
        }
        rendition.audio = Some((language.clone(), name.clone()));
        renditions.push(rendition);
    }
    Ok(renditions)
}

/// Measures what is in one rendition's folder; `None` if there is no segment in it.
fn measure(id: &str, directory: &Path) -> Result<Option<MeasuredRendition>, PackageError> {
    let mut segments = Vec::new();
    loop {
        let path = format!("{id}/{:05}.m4s", segments.len() + 1);
        let file = directory.join(&path);
        match read(&file) {
            Ok(bytes) => segments.push(segment::measure(&path, &bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(io_error(&file)(error)),
        }
    }
    if segments.is_empty() {
        return Ok(None);
    }
    let init = format!("{id}/{INIT}");
    let file = directory.join(&init);
    let track = segment::track(&init, &read(&file).map_err(io_error(&file))?)?;
    Ok(Some(MeasuredRendition { id: id.to_owned(), track, audio: None, frame_rate: None, segments }))
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = segment::SEGMENT_BYTES_MAX;
    io::Read::read_to_end(&mut io::Read::take(fs::File::open(file)?, limit + 1), &mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// Checks that renditions fit together, and hold as much as the source announced.
fn check(source: &Source, renditions: &[MeasuredRendition]) -> Result<(), PackageError> {
    let whole = |announced_s: f64, found_s: f64, frame_s: f64| {
        let missing_s = announced_s - found_s;
        match missing_s > CUT_OFF_S.max(announced_s * CUT_OFF_FRACTION).max(2.0 * frame_s) {
            true => Err(PackageError::CutOff { announced_s, found_s }),
            false => Ok(()),
        }
    };
    let (video, audio): (Vec<_>, Vec<_>) = renditions.iter().partition(|rendition| rendition.audio.is_none());
    renditions.iter().try_for_each(MeasuredRendition::check_grid)?;
    for pair in video.windows(2) {
        pair[0].check_aligned(pair[1])?;
    }
    let longest_s = renditions.iter().map(MeasuredRendition::end_s).fold(0.0, f64::max);
    let frame_s = source.video.frame_s;
    whole(source.duration_s.unwrap_or(0.0), longest_s, frame_s)?;
    // A track may announce more than the container when an editor trimmed it: then the container is right.
    let announced_s = |track_s: Option<f64>| track_s.unwrap_or(0.0).min(source.duration_s.unwrap_or(f64::INFINITY));
    for rendition in video {
        whole(announced_s(source.video.duration_s), rendition.end_s(), frame_s)?;
    }
    let longest_audio_s = audio.iter().map(|rendition| rendition.end_s()).fold(0.0, f64::max);
    let announced_audio_s = source.audio.iter().map(|track| announced_s(track.duration_s)).fold(0.0, f64::max);
    match audio.is_empty() {
        true => Ok(()),
        false => whole(announced_audio_s, longest_audio_s, frame_s),
    }
}

/// Writes all playlists, over those of ffmpeg.
fn describe(renditions: &[MeasuredRendition], directory: &Path) -> Result<(), PackageError> {
    let write = |path: PathBuf, bytes: Vec<u8>| fs::write(&path, bytes).map_err(io_error(&path));
    for rendition in renditions {
        write(directory.join(&rendition.id).join(PLAYLIST), manifest::media(rendition))?;
    }
    write(directory.join(MULTIVARIANT), manifest::multivariant(renditions))?;
    write(directory.join(DASH), manifest::dash(renditions))
}

/// As the catalogue knows it.
fn rendition(measured: MeasuredRendition) -> Rendition {
    Rendition {
        media: match measured.track.kind {
            Kind::Video { width, height } => {
                let frame_rate = measured.frame_rate.map_or(0.0, ladder::FrameRate::per_second);
                Media::Video { width, height, frame_rate }
            }
            Kind::Audio { channels, sample_rate } => {
                let language = measured.audio.as_ref().map_or("und", |(language, _)| language).to_owned();
                Media::Audio { channels, sample_rate, language }
            }
        },
        codecs: measured.track.codecs.clone(),
        bits_per_second_peak: measured.bits_per_second_peak(),
        bits_per_second_mean: measured.bits_per_second_mean(),
        playlist: format!("{}/{PLAYLIST}", measured.id),
        init: format!("{}/{INIT}", measured.id),
        segments: measured
            .segments
            .iter()
            .map(|segment| Segment {
                path: segment.path.clone(),
                start_ms: measured.milliseconds(segment.start),
                duration_ms: measured.milliseconds(segment.start + segment.duration) - measured.milliseconds(segment.start),
            })
            .collect(),
        id: measured.id,
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> PackageError + use<> {
    let path = path.to_owned();
    move |reason| PackageError::Io { path, reason }
}

/// Runs `work`, which uses files, beside the runtime's own threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, PackageError> + Send + 'static) -> Result<T, PackageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(PackageError::Stopped),
        },
    }
}
