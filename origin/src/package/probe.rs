//! What a source file holds, asked of ffprobe.

use std::{collections::HashMap, path::Path};

use serde::Deserialize;

use super::{
    PackageError,
    ladder::{self, FrameRate, PICTURE_SIDE_MIN},
    language::bcp47,
    tool::{Arguments, Tool, ToolError},
};

/// More tracks than this are refused: each costs an encoder.
const AUDIO_TRACKS_MAX: usize = 32;
/// Containers that are opened. Playlists, scripts, pictures and text, which ffmpeg can open too, may name other files or
/// are no film.
const FORMATS: &str = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,avi,flv,live_flv,asf,ogg,mxf,mxf_opatom,gxf,nut,\
                       dv,rm,ivf,h264,hevc,m4v,mpegvideo,yuv4mpegpipe,wtv,mp3,wav,w64,flac,aac,ac3,eac3,aiff,caf,amr";

/// A source that can be packaged.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Source {
    pub(crate) video: VideoTrack,
    pub(crate) audio: Vec<AudioTrack>,
    /// What the container announces, if it does.
    pub(crate) duration_s: Option<f64>,
}

/// The picture.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VideoTrack {
    /// Its index among the file's streams.
    pub(crate) index: u32,
    /// In square pixels, as a viewer sees it: after rotation and aspect ratio.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// What it is made into.
    pub(crate) rate: FrameRate,
    /// How long a frame of the source is on average.
    pub(crate) frame_s: f64,
    pub(crate) interlaced: bool,
    pub(crate) duration_s: Option<f64>,
}

/// One language or commentary.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AudioTrack {
    pub(crate) index: u32,
    /// 1 or 2: more are mixed down.
    pub(crate) channels: u32,
    /// BCP 47, "und" when the file does not say.
    pub(crate) language: String,
    /// What the file calls it ("Director's commentary").
    pub(crate) name: Option<String>,
    pub(crate) duration_s: Option<f64>,
}

/// Asks `ffprobe` about `path`, which must be absolute.
pub(crate) async fn probe(ffprobe: &Tool, path: &Path) -> Result<Source, PackageError> {
    let arguments =
        Arguments::default().words("-v error -of json -show_format -show_streams -format_whitelist").word(FORMATS).input(path);
    let output = ffprobe.output(arguments).await.map_err(|error| match error {
        ToolError::Failed { reason, .. } if reason.contains("not on whitelist") => {
            PackageError::NotVideo("it is of another kind, such as text, a picture, or a playlist".into())
        }
        ToolError::Failed { reason, .. } => PackageError::NotVideo(reason),
        error => PackageError::Tool(error),
    })?;
    let probed: Probed = serde_json::from_slice(&output).map_err(|error| PackageError::NotVideo(error.to_string()))?;
    probed.source()
}

#[derive(Deserialize)]
struct Probed {
    #[serde(default)]
    streams: Vec<Stream>,
    #[serde(default)]
    format: Format,
}

#[derive(Deserialize, Default)]
struct Format {
    duration: Option<String>,
}

#[derive(Deserialize)]
struct Stream {
    index: u32,
    #[serde(default)]
    codec_type: String,
    codec_name: Option<String>,
    #[serde(default)]
    width: u32,
    #[serde(default)]
    height: u32,
    sample_aspect_ratio: Option<String>,
    avg_frame_rate: Option<String>,
    r_frame_rate: Option<String>,
    field_order: Option<String>,
    channels: Option<u32>,
    duration: Option<String>,
    #[serde(default)]
    disposition: HashMap<String, u8>,
    #[serde(default)]
    tags: HashMap<String, String>,
    #[serde(default)]
    side_data_list: Vec<SideData>,
}

#[derive(Deserialize)]
struct SideData {
    rotation: Option<f64>,
}

impl Probed {
    fn source(self) -> Result<Source, PackageError> {
        let picture = |stream: &&Stream| stream.codec_type == "video" && stream.disposition.get("attached_pic") != Some(&1);
        let Some(video) = self.streams.iter().find(picture) else {
            let held = self
                .streams
                .iter()
                .map(|stream| format!("{} ({})", stream.codec_type, stream.codec_name.as_deref().unwrap_or("unknown")));
            return Err(PackageError::NoPicture(held.collect::<Vec<_>>().join(", ")));
        };
        let audio: Vec<_> = self.streams.iter().filter(|stream| stream.codec_type == "audio").collect();
        if audio.len() > AUDIO_TRACKS_MAX {
            return Err(PackageError::TooManyAudioTracks { found: audio.len(), most: AUDIO_TRACKS_MAX });
        }
        Ok(Source {
            video: video.video()?,
            audio: audio.into_iter().map(Stream::audio).collect(),
            duration_s: seconds(self.format.duration.as_deref()),
        })
    }
}

impl Stream {
    fn video(&self) -> Result<VideoTrack, PackageError> {
        let aspect = self.sample_aspect_ratio.as_deref().and_then(|ratio| fraction(ratio, ':')).unwrap_or(1.0);
        // Wider pixels make a wider picture, narrower ones a lower one: never more pixels than there are.
        let (width, height) = match aspect {
            wide if wide > 1.0 => (f64::from(self.width), f64::from(self.height) / wide),
            narrow => (f64::from(self.width) * narrow, f64::from(self.height)),
        };
        let (mut width, mut height) = (width.round() as u32, height.round() as u32);
        let quarter_turns = self.side_data_list.iter().find_map(|data| data.rotation).unwrap_or(0.0) / 90.0;
        if quarter_turns.round().rem_euclid(2.0) == 1.0 {
            (width, height) = (height, width);
        }
        if width < PICTURE_SIDE_MIN || height < PICTURE_SIDE_MIN {
            return Err(PackageError::PictureTooSmall { width, height, least: PICTURE_SIDE_MIN });
        }
        let rate = |text: &Option<String>| text.as_deref().and_then(|rate| fraction(rate, '/'));
        let per_second = rate(&self.avg_frame_rate).or_else(|| rate(&self.r_frame_rate)).unwrap_or(25.0);
        Ok(VideoTrack {
            index: self.index,
            width,
            height,
            rate: ladder::constant_rate(per_second),
            frame_s: 1.0 / per_second,
            interlaced: self.field_order.as_deref().is_some_and(|order| matches!(order, "tt" | "bb" | "tb" | "bt")),
            duration_s: seconds(self.duration.as_deref()),
        })
    }

    fn audio(&self) -> AudioTrack {
        let tag = |name: &str| self.tags.get(name).map(|tag| tag.trim()).filter(|tag| !tag.is_empty());
        AudioTrack {
            index: self.index,
            channels: self.channels.unwrap_or(2).clamp(1, 2),
            language: bcp47(tag("language").unwrap_or_default()),
            name: tag("title").map(str::to_owned),
            duration_s: seconds(self.duration.as_deref()),
        }
    }
}

/// "30000/1001" or "16:15" as a number, if it is one above zero.
fn fraction(text: &str, separator: char) -> Option<f64> {
    let (numerator, denominator) = text.split_once(separator)?;
    let value = numerator.parse::<f64>().ok()? / denominator.parse::<f64>().ok()?;
    (value.is_finite() && value > 0.0).then_some(value)
}

fn seconds(text: Option<&str>) -> Option<f64> {
    text?.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(json: &str) -> Result<Source, PackageError> {
        serde_json::from_str::<Probed>(json).unwrap().source()
    }

    #[test]
    fn a_turned_anamorphic_interlaced_picture_is_described_as_it_is_seen() {
        let source = source(
            r#"{"streams":[
                {"index":0,"codec_type":"data"},
                {"index":1,"codec_type":"video","width":720,"height":576,"sample_aspect_ratio":"16:15","avg_frame_rate":"25/1",
                 "field_order":"tt","duration":"4.0","side_data_list":[{"side_data_type":"x"},{"rotation":-90}]},
                {"index":2,"codec_type":"audio","channels":6,"tags":{"language":"ger","title":"Kommentar"}},
                {"index":3,"codec_type":"audio"}
            ],"format":{"duration":"4.5"}}"#,
        )
        .unwrap();
        assert_eq!((source.video.index, source.video.width, source.video.height), (1, 540, 720));
        assert!(source.video.interlaced);
        assert_eq!((source.video.duration_s, source.duration_s), (Some(4.0), Some(4.5)));
        let audio = |i: usize| (source.audio[i].index, source.audio[i].channels, source.audio[i].language.as_str());
        assert_eq!((audio(0), audio(1)), ((2, 2, "de"), (3, 2, "und")));
        assert_eq!(source.audio[0].name.as_deref(), Some("Kommentar"));
    }

    #[test]
    fn a_song_with_a_cover_has_no_picture() {
        let error = source(
            r#"{"streams":[{"index":0,"codec_type":"audio","codec_name":"mp3"},
                {"index":1,"codec_type":"video","codec_name":"mjpeg","width":500,"height":500,"disposition":{"attached_pic":1}}]}"#,
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "it has no moving picture, only audio (mp3), video (mjpeg)");
    }

    #[test]
    fn absurd_streams_are_refused_in_words() {
        let error = source(r#"{"streams":[{"index":0,"codec_type":"video","width":8,"height":0}]}"#).unwrap_err();
        assert_eq!(error.to_string(), "its picture of 8x0 pixels is smaller than 16x16");
        let audio = r#",{"index":1,"codec_type":"audio"}"#.repeat(33);
        let error = source(&format!(r#"{{"streams":[{{"index":0,"codec_type":"video","width":64,"height":64}}{audio}]}}"#));
        assert_eq!(error.unwrap_err().to_string(), "it has 33 audio tracks, and 32 are the most that are packaged");
    }
}
