//! Pictures of a title: a poster, and a storyboard, which is one sprite of small pictures and a WebVTT file that says which
//! part of it belongs to which time (`storyboard.jpg#xywh=x,y,w,h`, Media Fragments URI 1.0 §4.2.2).
//!
//! Both are taken from packaged segments, whose times are known exactly: each small picture is the key frame at the
//! beginning of a segment, so that at most [`TILES_MAX`] segments are read, however long the film is.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    INIT, PackageError, blocking, io_error,
    segment::{Kind, MeasuredRendition},
    tool::{Arguments, Tool},
};

pub(crate) const POSTER: &str = "poster.jpg";
pub(crate) const STORYBOARD: &str = "storyboard.vtt";
pub(crate) const SPRITE: &str = "storyboard.jpg";

/// A storyboard has at most as many pictures.
const TILES_MAX: usize = 100;
const TILES_PER_ROW: usize = 10;
/// Pixels along the longer side of a small picture.
const TILE_SIDE: u32 = 160;
/// The poster is no wider.
const POSTER_WIDTH_MAX: u32 = 1280;
/// The poster is taken from this part of the way through the film: after the titles, before the end is given away.
const POSTER_AT: f64 = 0.1;
/// A file that exists only while ffmpeg reads it.
const EXCERPT: &str = "excerpt.tmp";

/// Makes poster, sprite and WebVTT file in `directory` from its video renditions: the poster from `best`, the storyboard
/// from `least`.
pub(crate) async fn pictures(
    ffmpeg: &Tool,
    directory: &Path,
    best: &MeasuredRendition,
    least: &MeasuredRendition,
) -> Result<(), PackageError> {
    let at = (best.segments.len() as f64 * POSTER_AT) as usize;
    let poster = format!("scale=min({POSTER_WIDTH_MAX}\\,iw):-2");
    picture(ffmpeg, directory, best, [at], &poster, POSTER).await?;

    let plan = Storyboard::plan(least);
    let Storyboard { width, height, columns, rows, .. } = plan;
    let sprite = format!("scale={width}:{height},tile={columns}x{rows}");
    picture(ffmpeg, directory, least, plan.segments(), &sprite, SPRITE).await?;
    let vtt = directory.join(STORYBOARD);
    fs::write(&vtt, plan.vtt(least)).map_err(io_error(&vtt))
}

/// Writes one JPEG picture, which `filter` makes of the key frames of some segments.
async fn picture(
    ffmpeg: &Tool,
    directory: &Path,
    rendition: &MeasuredRendition,
    segments: impl IntoIterator<Item = usize>,
    filter: &str,
    name: &str,
) -> Result<(), PackageError> {
    let excerpt = directory.join(EXCERPT);
    let segments = segments.into_iter().filter_map(|n| rendition.segments.get(n)).map(|segment| directory.join(&segment.path));
    let parts = std::iter::once(directory.join(&rendition.id).join(INIT)).chain(segments).collect();
    blocking({
        let excerpt = excerpt.clone();
        move || concatenate(parts, &excerpt).map_err(io_error(&excerpt))
    })
    .await?;
    let arguments = Arguments::default()
        .words("-hide_banner -nostdin -y -loglevel error -skip_frame nokey -f mp4")
        .input(&excerpt)
        .words(&format!("-vf {filter} -frames:v 1 -update 1 -pix_fmt yuvj420p -q:v 4 -map_metadata -1 {name}"));
    ffmpeg.lines(arguments, directory, |_| ()).await?;
    fs::remove_file(&excerpt).map_err(io_error(&excerpt))?;
    match directory.join(name).try_exists() {
        Ok(true) => Ok(()),
        _ => Err(PackageError::NoPictures(name.to_owned())),
    }
}

/// An initialisation segment and some of its media segments are together a file that plays.
fn concatenate(parts: Vec<PathBuf>, whole: &Path) -> io::Result<()> {
    let mut out = fs::File::create(whole)?;
    for part in parts {
        io::copy(&mut fs::File::open(part)?, &mut out)?;
    }
    Ok(())
}

/// Where the small pictures go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Storyboard {
    /// One picture for so many segments.
    every: usize,
    tiles: usize,
    columns: usize,
    rows: usize,
    /// Pixels of a small picture.
    width: u32,
    height: u32,
}

impl Storyboard {
    fn plan(rendition: &MeasuredRendition) -> Self {
        let (width, height) = match rendition.track.kind {
            Kind::Video { width, height } => (width, height),
            Kind::Audio { .. } => (TILE_SIDE, TILE_SIDE),
        };
        let scale = (f64::from(TILE_SIDE) / f64::from(width.max(height))).min(1.0);
        let scaled = |side: u32| ((f64::from(side) * scale).round() as u32).max(2);
        let every = rendition.segments.len().div_ceil(TILES_MAX).max(1);
        let tiles = rendition.segments.len().div_ceil(every);
        let columns = tiles.clamp(1, TILES_PER_ROW);
        Self { every, tiles, columns, rows: tiles.div_ceil(columns).max(1), width: scaled(width), height: scaled(height) }
    }

    fn segments(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.tiles * self.every).step_by(self.every)
    }

    fn vtt(&self, rendition: &MeasuredRendition) -> String {
        let begins_ms = |n: usize| rendition.milliseconds(rendition.segments.get(n).map_or(rendition.end(), |s| s.start));
        let mut vtt = String::from("WEBVTT\n");
        for (tile, segment) in self.segments().enumerate() {
            let (from, to) = (clock(begins_ms(segment)), clock(begins_ms(segment + self.every)));
            let (x, y) = (tile % self.columns * self.width as usize, tile / self.columns * self.height as usize);
            let _ = write!(vtt, "\n{from} --> {to}\n{SPRITE}#xywh={x},{y},{},{}\n", self.width, self.height);
        }
        vtt
    }
}

/// A WebVTT timestamp.
fn clock(ms: u64) -> String {
    format!("{:02}:{:02}:{:02}.{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::segment::{Measured, Track};

    fn rendition(segments: usize, width: u32, height: u32) -> MeasuredRendition {
        let segment =
            |n: usize| Measured { path: format!("v/{n}"), bytes: 1, start: n as u64 * 100, duration: 100, independent: true };
        MeasuredRendition {
            id: "v".into(),
            track: Track { timescale: 25, codecs: "avc1".into(), kind: Kind::Video { width, height } },
            audio: None,
            frame_rate: None,
            segments: (0..segments).map(segment).collect(),
        }
    }

    #[test]
    fn tiles_are_bounded_and_cover_the_whole_film() {
        for segments in [1, 9, 10, 11, 100, 101, 1800, 100_000] {
            let film = rendition(segments, 640, 360);
            let plan = Storyboard::plan(&film);
            assert!(plan.tiles <= TILES_MAX && plan.tiles <= plan.columns * plan.rows, "{segments}: {plan:?}");
            assert!(plan.segments().all(|n| n < segments) && plan.segments().count() == plan.tiles);
            let vtt = plan.vtt(&film);
            assert!(vtt.contains(&format!("--> {}", clock(film.milliseconds(film.end())))), "{segments}: {vtt}");
        }
    }

    #[test]
    fn fragments_point_at_rows_and_columns() {
        let film = rendition(12, 360, 640);
        let vtt = Storyboard::plan(&film).vtt(&film);
        assert!(vtt.starts_with("WEBVTT\n\n00:00:00.000 --> 00:00:04.000\nstoryboard.jpg#xywh=0,0,90,160\n\n"), "{vtt}");
        assert!(vtt.ends_with("\n00:00:44.000 --> 00:00:48.000\nstoryboard.jpg#xywh=90,160,90,160\n"), "{vtt}");
        assert_eq!(clock(3_723_004), "01:02:03.004");
    }
}
